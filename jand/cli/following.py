"""Watching a download of the daemon: a bar for each file and the whole on a terminal, a line from time to time elsewhere. Whoever stops watching ends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from jand.cli import errors
from jand.cli.output import size
from jand.client import kinds
from jand.errors import DownloadError, ModelNotFoundError
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jand.client import Client

POLL_S: Final = 0.2
LINE_EVERY_S: Final = 10.0
LONGEST_WAIT_S: Final = 120.0
"""A download that is not tried again for longer than this is not waited for."""

Json = dict[str, Any]


class Display(Protocol):
    def show(self, model: Json) -> None:
        """Take note of how far *model* is."""

    def complete(self) -> None:
        """Take note that all of it is there."""

    def note(self, text: str) -> None:
        """Say something that is not progress."""


async def follow(client: Client, model_id: str, *, silent: bool = False) -> Json:
    """Return the model once nothing is missing of it any more.

    Raises the error that keeps it from that, where the daemon does not try again soon, and Failure where somebody paused or deleted it.
    """
    noted: object = None
    with _displaying(silent=silent) as display:
        while True:
            model = await _look(client, model_id)
            if model["state"] != "downloading":
                display.complete()
                return model
            display.show(model)
            if model["paused"]:
                raise errors.Failure(
                    f'cannot wait for "{model_id}": its download is paused',
                    hint=f"go on with: jand resume {model_id}",
                    status=errors.TRY_LATER,
                )
            error = model["error"]
            if error is not None and error != noted:
                noted = error
                display.note(_wait_or_raise(error, model_id))
            await asyncio.sleep(POLL_S)


async def _look(client: Client, model_id: str) -> Json:
    try:
        return await client.get_model(model_id)
    except ModelNotFoundError as error:
        message = f'cannot wait for "{model_id}": it was deleted meanwhile'
        raise errors.Failure(message, status=errors.NOT_FOUND) from error


def _wait_or_raise(error: Json, model_id: str) -> str:
    """Return what to say of *error* where the daemon tries again soon; else raise it."""
    wait_s = None if error["retry_at"] is None else error["retry_at"] - time.time()
    if wait_s is not None and wait_s <= LONGEST_WAIT_S:
        return f"{error['message']}; trying again in {max(1, round(wait_s))} s"
    hint = error["hint"]
    if wait_s is not None:
        clock = time.strftime("%H:%M", time.localtime(error["retry_at"]))
        hint = f"{hint}; the daemon tries again at {clock}, or at once with: jand resume {model_id}".removeprefix("; ")
    raise kinds().get(error["code"], DownloadError)(error["message"], hint=hint)


@contextlib.contextmanager
def _displaying(*, silent: bool) -> Iterator[Display]:
    if silent:
        yield _Silent()
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield bars
    else:
        yield _Lines()


class _Silent:
    def show(self, model: Json) -> None:
        pass

    def complete(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class _Lines:
    """A line when the files are known, and one every `LINE_EVERY_S` seconds."""

    def __init__(self) -> None:
        self._said_at = float("-inf")

    def show(self, model: Json) -> None:
        now = time.monotonic()
        if model["progress"] is not None and now - self._said_at >= LINE_EVERY_S:
            self._said_at = now
            self.note(f"{model['id']}: {progress_text(model['progress'])}")

    def complete(self) -> None:
        pass

    def note(self, text: str) -> None:
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def progress_text(progress: Json) -> str:
    """Write how far something is: `42% of 4.4 GB, 80 MB/s, 32 s left`."""
    done, total = progress["bytes_done"], progress["bytes_total"]
    parts = [f"{done / total:.0%} of {size(total)}" if total else size(done)]
    if progress["bytes_per_second"]:
        parts.append(f"{size(progress['bytes_per_second'])}/s")
    if progress["eta_seconds"] is not None:
        parts.append(f"{duration(progress['eta_seconds'])} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 100 else f"{minutes} min {rest:02d} s"


@contextlib.contextmanager
def _bars() -> Iterator[Display]:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only a terminal has to wait for
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bars(progress)


class _Bars:
    """One bar for each file; where there are several, one more for all of them."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, model: Json) -> None:
        found = model["progress"]
        if found is None:
            return
        for file in found["files"]:
            self._update(file["name"], file)
        if len(found["files"]) > 1:
            self._update("all of it", found)

    def complete(self) -> None:
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total or task.completed, total=task.total or task.completed)

    def _update(self, name: str, facts: Json) -> None:
        total = facts["bytes_total"]
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(printable(name), total=total, completed=facts["bytes_done"])
        self._progress.update(self._tasks[name], total=total, completed=facts["bytes_done"])

    def note(self, text: str) -> None:
        from rich.text import Text  # noqa: PLC0415 - as above

        self._progress.console.print(Text(printable(text)))
