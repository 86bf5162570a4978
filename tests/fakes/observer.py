"""An observer without a file system: the test says which events it reports, as FSEvents or another back end would."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent, FileSystemEventHandler


class FakeObserver:
    """Pass `Stage().make` where an observer is made, and report events through the stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._alive = False
        self.handlers: dict[str, FileSystemEventHandler] = {}

    def schedule(
        self,
        event_handler: FileSystemEventHandler,
        path: str,
        *,
        recursive: bool = False,
        event_filter: list[type[FileSystemEvent]] | None = None,
    ) -> Any:
        if self._stage.refusal is not None:
            raise self._stage.refusal
        if sum(observer.is_alive() for observer in self._stage.observers) >= self._stage.most:
            raise OSError(errno.EMFILE, "no room for another one")
        self.handlers[path] = event_handler
        self._stage.filter = event_filter
        return path

    def unschedule(self, watch: Any) -> None:
        del self.handlers[watch]

    def start(self) -> None:
        self._alive = True

    def stop(self) -> None:
        self._alive = False

    def join(self, timeout: float | None = None) -> None:
        assert not self._alive

    def is_alive(self) -> bool:
        return self._alive


class Stage:
    """What all observers of one test do: the last one reports events, *refusal* is what opening the next one raises, *most* how many there may be at once."""

    def __init__(self) -> None:
        self.observers: list[FakeObserver] = []
        self.refusal: Exception | None = None
        self.most = 100
        self.filter: list[type[FileSystemEvent]] | None = None

    def make(self) -> FakeObserver:
        self.observers.append(FakeObserver(self))
        return self.observers[-1]

    def report(self, *events: FileSystemEvent) -> None:
        """Give *events* to the watch of the tree."""
        handler = next(iter(self.observers[-1].handlers.values()))
        for event in events:
            handler.dispatch(event)
