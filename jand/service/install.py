"""Putting the files of a service in place and taking them away again: as often as one likes, and never over what a person has changed.

Each file ends with a comment that holds a digest of the rest. A file whose digest is right is as we wrote it and may be replaced or removed; any other belongs to whoever edited it.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand import atomic
from jand.errors import NotPossibleError
from jand.service import placing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.service.placing import Placement, Site

    Run = Callable[[Sequence[str]], "Ran"]

SEAL: Final = "written by jand service install, sha256 "
RUN_TIMEOUT_S: Final = 90
BOOTED: Final = Path("/run/systemd/system")
"""It exists where systemd is the init (sd_booted(3))."""


class Found(StrEnum):
    """How a file is that belongs to the service."""

    MISSING = "missing"
    CURRENT = "installed"
    DIFFERENT = "differs"
    """As we wrote it, with other paths or by another version."""
    EDITED = "edited"


@dataclass(frozen=True, slots=True)
class Did:
    """One thing that was done or left: *what* in one word, with the file or command, and *why* where it is not as asked."""

    what: str
    subject: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    output: str


def run_command(words: Sequence[str]) -> Ran:
    """Run a command of the service manager and return what it said."""
    try:
        ended = subprocess.run(  # noqa: S603 - our own words, absolute or by PATH as an administrator has it
            words, capture_output=True, text=True, errors="replace", timeout=RUN_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return Ran(127, "there is no such program")
    except subprocess.TimeoutExpired:
        return Ran(124, f"it did not end within {RUN_TIMEOUT_S} s")
    return Ran(ended.returncode, (ended.stdout + ended.stderr).strip())


def sealed(placement: Placement) -> str:
    """Return what is written for *placement*."""
    return placement.text + placement.comment.format(SEAL + _digest(placement.text)) + "\n"


def look(placement: Placement) -> Found:
    """Compare what lies at the path of *placement* with what would be written there. Raises NotPossibleError where it cannot be read."""
    try:
        text = placement.path.read_text(errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return Found.MISSING
    except OSError as error:
        raise NotPossibleError(f"cannot read {placement.path}: {error.strerror}", hint="run it with sudo") from error
    if text == sealed(placement):
        return Found.CURRENT
    body, _, last = text.removesuffix("\n").rpartition("\n")
    body += "\n"
    return Found.DIFFERENT if placement.comment.format(SEAL + _digest(body)) == last else Found.EDITED


def install(
    site: Site, *, force: bool = False, start: bool = True, run: Run = run_command, booted: Path = BOOTED
) -> list[Did]:
    """Put the service in place and start it; return what was done, in order. Raises NotPossibleError where a file cannot be written or a command fails."""
    done = []
    for placement in placing.placements(site):
        found = look(placement)
        if found is Found.EDITED and not force:
            done.append(Did("kept", str(placement.path), "somebody has edited it; --force replaces it"))
        elif found is Found.CURRENT:
            done.append(Did("unchanged", str(placement.path)))
        else:
            _write(placement)
            done.append(Did("written" if found is Found.MISSING else "replaced", str(placement.path)))
    if site.below is not None:
        return done
    if not _has_manager(site, booted):
        words = "; ".join(" ".join(command) for command in placing.commands(site))
        return [*done, Did("left", "starting it", f"systemd does not run here; where it does: {words}")]
    commands = placing.commands(site)
    return done + [_do(command, run) for command in (commands if start else commands[:-1])]


def uninstall(site: Site, *, force: bool = False, run: Run = run_command, booted: Path = BOOTED) -> list[Did]:
    """Stop the service and remove its files, but not what it served; return what was done. Idempotent."""
    files = [(placement, look(placement)) for placement in placing.placements(site)]
    done = []
    managed = site.below is None and _has_manager(site, booted)
    if managed and any(found is not Found.MISSING for _, found in files):
        done += [_do(command, run, needed=False) for command in placing.commands_before_removal(site)]
    for placement, found in files:
        if found is Found.EDITED and not force:
            done.append(Did("kept", str(placement.path), "somebody has edited it; --force removes it"))
        elif found is not Found.MISSING:
            with contextlib.suppress(FileNotFoundError):
                _attempt(placement.path.unlink, placement.path, "remove")
            done.append(Did("removed", str(placement.path)))
    if not done:
        return [Did("unchanged", "nothing of it is here")]
    if managed:
        done += [_do(command, run) for command in placing.commands_after_removal(site)]
    return [*done, Did("kept", str(site.janroot), "models are only removed by jand delete")]


def status(site: Site, *, run: Run = run_command, booted: Path = BOOTED) -> list[Did]:
    """Return how each file is and what the service manager says."""
    done = [Did(look(placement).value, str(placement.path)) for placement in placing.placements(site)]
    if site.below is not None:
        return done
    if not _has_manager(site, booted):
        return [*done, Did("not running", "systemd", "it does not run here")]
    for question in placing.questions(site):
        ran = run(question)
        first = ran.output.splitlines()[0].strip() if ran.output else f"status {ran.status}"
        done.append(Did(first, " ".join(question[-2:])))
    return done


def _has_manager(site: Site, booted: Path) -> bool:
    return site.launchd or booted.is_dir()


def _do(command: Sequence[str], run: Run, *, needed: bool = True) -> Did:
    ran = run(command)
    if ran.status == 0:
        return Did("ran", " ".join(command))
    if not needed:
        return Did("ran", " ".join(command), ran.output or f"status {ran.status}")
    raise NotPossibleError(
        f"cannot finish: {' '.join(command)} failed: {ran.output or f'status {ran.status}'}",
        hint="the files are in place; run it again when that is mended",
    )


def _write(placement: Placement) -> None:
    def write() -> None:
        placement.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(placement.path, sealed(placement).encode(errors="surrogateescape"), replace=True)

    _attempt(write, placement.path, "write")


def _attempt(action: Callable[[], None], path: Path, verb: str) -> None:
    try:
        action()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotPossibleError(
            f"cannot {verb} {path}: {error.strerror}", hint="run it with sudo, or for yourself alone: --user"
        ) from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
