"""`jand add`: what lies on this machine, or at an address, comes into the models folder; the original stays where it is.

A drop like any other: files are put together under a hidden name first and get their own in one step, so that the daemon sees them whole.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli import errors
from jand.cli.connect import SocketOption, ask
from jand.cli.fetching import body_of, outcome
from jand.cli.following import follow
from jand.cli.output import JsonOption, print_json, say, size
from jand.cli.places import find_place
from jand.cli.verbs import described
from jand.client import RemotePlace
from jand.model.document import MAX_BYTES, parse
from jand.model.filenames import binary_stem, is_json, is_temporary, json_stem
from jand.model.gguf import read_header
from jand.model.problem import Severity
from jand.model.quantisation import split_names, split_part
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jand.client import Client

app = typer.Typer()

Json = dict[str, Any]
PIECE: Final = 8 << 20
SEEN_S: Final = 30.0
"""How long a drop may take to be registered: adopting a bare GGUF waits until its folder has settled."""

POLL_S: Final = 0.1
SHOW_AFTER_S: Final = 1.0


class How(StrEnum):
    """How a file comes to lie in the models folder."""

    HARD_LINK = "hard link"
    LINK = "link"
    COPY = "copy"


@app.command(
    "add",
    help=described(
        "add",
        "jand add ~/Downloads/zephyr-7b-beta.Q4_K_M.gguf",
        "jand add /mnt/models/llava --link",
        "jand add https://example.com/models/tiny.gguf",
        more="Files are linked hard where that is possible, and copied elsewhere; the original always stays.",
    ),
)
def add(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="A file, a folder, or the address of a binary.")],
    link: Annotated[bool, typer.Option("--link", help="Make symbolic links, which take no room on any disk.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy, so that the original may change or go.")] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    if link and copy:
        raise typer.BadParameter("--link and --copy exclude one another")
    if what.startswith(("https://", "http://")):
        models = [ask(socket, lambda client: _add_address(client, what, silent=json))]
    else:
        how = How.LINK if link else How.COPY if copy else How.HARD_LINK
        models = _add_local(socket, Path(what), how, silent=json)
    if json:
        print_json({"object": "list", "data": models})
        return
    for model in models:
        say(outcome(model))


async def _add_address(client: Client, address: str, *, silent: bool) -> Json:
    model = await client.register(body_of(address))
    return await follow(client, model["id"], silent=silent)


def _add_local(socket: Path | None, source: Path, how: How, *, silent: bool) -> list[Json]:
    source = source.expanduser().absolute()
    place = find_place(socket)
    if isinstance(place, RemotePlace) and not place.is_this_machine:
        raise errors.Failure(
            f"cannot add {source}: the daemon at {place} runs on another machine",
            hint="copy it into the models folder there (scp, rsync), or drop it on the page of that daemon",
        )
    health = ask(socket, lambda client: client.health())
    models = Path(health["details"]["folder"])
    files = list(_files(source))
    if not files:
        raise errors.Failure(f"cannot add {source}: there is nothing in it", status=errors.DATA)
    if source.is_file():
        _check(source)
    folder = models / _folder_name(source)
    done = _drop(files, folder, how, silent=silent)
    if not silent:
        ways = ", ".join(f"{count} by {way}" for way, count in done.items())
        what = "1 file" if len(files) == 1 else f"{len(files)} files"
        say(printable(f"{folder} has {what} of {size(_total(files))} ({ways})"))
    return ask(socket, lambda client: _registered(client, f"{models.name}/{folder.name}/"))


def _files(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield what belongs to the drop: real paths with their names in the new folder. Raises Failure where there is nothing to add."""
    if source.is_dir():
        for folder, below, names in os.walk(source):
            below[:] = sorted(name for name in below if not is_temporary(name))
            for path in (Path(folder) / name for name in sorted(names) if not is_temporary(name)):
                if path.is_file():
                    yield path, str(path.relative_to(source))
    elif source.is_file():
        for name in split_names(source.name):
            if not (part := source.with_name(name)).is_file():
                raise errors.Failure(f"cannot add {source}: its part {name} is missing", status=errors.NOT_FOUND)
            yield part, name
    else:
        cause = "it is no regular file" if source.exists() else "there is no such file or folder"
        hint = "check the path; what lies elsewhere is named by an address that begins with https://"
        raise errors.Failure(f"cannot add {source}: {cause}", hint=hint, status=errors.NOT_FOUND)


def _check(source: Path) -> None:
    """Refuse a single file that can be no model, before it is dropped where it would only be a problem. Raises GgufError or Failure."""
    try:
        with source.open("rb") as stream:
            if not is_json(source.name):
                header = read_header(stream, source.stat().st_size, name=source.name)
                if header.size_needed > source.stat().st_size:
                    message = f"cannot add {source}: it is incomplete, {size(header.size_needed)} are needed"
                    raise errors.Failure(message, hint="copy or download it again", status=errors.DATA)
                return
            problems = parse(stream.read(MAX_BYTES + 1), str(source)).problems
    except OSError as error:
        raise errors.Failure(f"cannot read {source}: {(error.strerror or str(error)).lower()}") from error
    worst = next((problem for problem in problems if problem.severity is Severity.ERROR), None)
    if worst is not None:
        raise errors.Failure(worst.message, hint=worst.hint, status=errors.DATA)


def _folder_name(source: Path) -> str:
    if source.is_dir():
        return source.name
    part = split_part(source.name)
    name = part.prefix if part else json_stem(source.name) if is_json(source.name) else binary_stem(source.name)
    return name or source.name


def _total(files: Sequence[tuple[Path, str]]) -> int:
    return sum(path.stat().st_size for path, _ in files)


def _drop(files: Sequence[tuple[Path, str]], folder: Path, how: How, *, silent: bool) -> dict[How, int]:
    """Bring *files* into the new *folder*; return how many came in which way."""
    if os.path.lexists(folder):
        message = f"cannot add to {folder}: there is something of that name already"
        raise errors.Failure(message, hint="give the file or folder another name before", status=errors.EXISTS)
    hidden = folder.parent / f".jand-add-{secrets.token_hex(4)}"
    done: dict[How, int] = {}
    try:
        with _showing(_total(files), silent=silent) as told:
            for path, name in files:
                target = hidden / name
                target.parent.mkdir(parents=True, exist_ok=True)
                way = _bring(path.resolve(), target, How.COPY if is_json(name) else how, told)
                done[way] = done.get(way, 0) + 1
        hidden.rename(folder)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise errors.Failure(f"cannot add to {folder}: {(error.strerror or str(error)).lower()}{where}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return done


def _bring(path: Path, target: Path, how: How, told: Callable[[int], None]) -> How:
    if how is How.LINK:
        target.symlink_to(path)
        return How.LINK
    if how is How.HARD_LINK:
        # Another file system, one without links, or a file of somebody else's.
        with contextlib.suppress(OSError):
            target.hardlink_to(path)
            return How.HARD_LINK
    _copy(path, target, told)
    return How.COPY


def _copy(path: Path, target: Path, told: Callable[[int], None]) -> None:
    with path.open("rb") as source, target.open("xb") as copy:
        while piece := source.read(PIECE):
            copy.write(piece)
            told(len(piece))
        copy.flush()
        os.fsync(copy.fileno())


@contextlib.contextmanager
def _showing(total: int, *, silent: bool) -> Iterator[Callable[[int], None]]:
    """Give what is to be told the bytes as they are copied; draws a bar on a terminal once that takes longer than a second."""
    if silent or not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only a long copy has to wait for
    from rich.progress import Progress  # noqa: PLC0415 - as above

    began = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("copying", total=total)

    def told(count: int) -> None:
        bar.update(task, advance=count)
        if not bar.live.is_started and time.monotonic() - began > SHOW_AFTER_S:
            bar.start()

    try:
        yield told
    finally:
        bar.stop()


async def _registered(client: Client, prefix: str) -> list[Json]:
    """Return the models of the folder *prefix* once there are any; Failure with what is wrong where none comes."""
    import asyncio  # noqa: PLC0415 - the rest of this module does without

    deadline = time.monotonic() + SEEN_S
    while True:
        models = [model for model in await client.list_models() if model["path"].startswith(prefix)]
        if models:
            return models
        problems = [problem for problem in await client.problems() if problem["path"].startswith(prefix)]
        if problems and all(problem["severity"] == "error" for problem in problems):
            raise errors.Failure(problems[0]["message"], hint=problems[0]["hint"], status=errors.DATA)
        if time.monotonic() > deadline:
            message = f"cannot see a model in {prefix}: the files are there, and the daemon registers none"
            raise errors.Failure(message, hint="jand problems may say why; adopt = false leaves a bare GGUF alone")
        await asyncio.sleep(POLL_S)
