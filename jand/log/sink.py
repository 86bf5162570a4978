"""The thread that writes: lines are put in without ever waiting, and a reader that has stopped reading stops nobody."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAITING: Final = 10_000
"""Lines that wait for a slow reader before further ones are dropped (and counted)."""

FLUSH_S: Final = 1.0


class Stream(Protocol):
    """Where lines go: a text stream, a `files.LogFile`, a `journal.Journal`. OSError and ValueError mean that the line is lost."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Sink:
    """Writes lines from a thread; `write` never waits. Lines beyond the limit are dropped and their number is written as soon as there is room."""

    def __init__(self, stream: Stream, *, limit: int = MAX_WAITING, report: Callable[[int], str] = str) -> None:
        self._stream = stream
        self._report = report
        self._lines: queue.Queue[str | None] = queue.Queue(limit)
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        if self._thread is None:
            self._start()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._lost += 1

    @property
    def lost(self) -> int:
        """How many lines were lost that were not admitted yet."""
        return self._lost

    def _start(self) -> None:
        """Begin to write at the first line and not before: a process that detaches itself forks first, and threads do not survive that."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._admit_losses()
            if not self._put(line):
                with self._lock:
                    self._lost += 1
            if self._lines.empty():
                self._flush()
        self._admit_losses()
        self._flush()

    def _admit_losses(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost and not self._put(self._report(lost)):
            with self._lock:
                self._lost += lost

    def _put(self, line: str) -> bool:
        """Write *line*; return whether that worked. A full disk or a broken stream loses it, and there is nowhere to say so but here, later."""
        try:
            self._stream.write(line + "\n")
        except UnicodeEncodeError:
            self._stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        except (OSError, ValueError):
            return False
        return True

    def _flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # as above
            self._stream.flush()

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, for at most *timeout_s* seconds; what a stuck reader has not taken by then is lost."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        deadline = time.monotonic() + timeout_s
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        thread.join(max(0.0, deadline - time.monotonic()))
