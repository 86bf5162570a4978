"""Hears what watchdog says in its log alone, and the death of its threads, which it does not say at all.

Both are properties of the process, so one hook of each kind serves all watches, and goes when the last one is closed.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from typing_extensions import override

from jand.library.hints import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.library.hints import Mailbox

log = structlog.get_logger(__name__)


class Heard(Protocol):
    """A watch to which threads belong."""

    root: str
    mailbox: Mailbox


class Ears(logging.Handler):
    """All open watches of the process; *building* is held while threads are started, so that each is known to be whose."""

    LOGGERS: Final = ("watchdog.observers.inotify", "watchdog.observers.inotify_c", "fsevents")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.building = threading.Lock()
        self._lock = threading.Lock()
        self._watches: dict[threading.Thread, Heard] = {}
        self._previous_hook: Callable[[threading.ExceptHookArgs], Any] | None = None

    def attend(self, watch: Heard, threads: Sequence[threading.Thread]) -> None:
        with self._lock:
            if not self._watches:
                for name in self.LOGGERS:
                    logging.getLogger(name).addHandler(self)
                self._previous_hook, threading.excepthook = threading.excepthook, self._thread_died
            self._watches.update(dict.fromkeys(threads, watch))

    def ignore(self, threads: Sequence[threading.Thread]) -> None:
        with self._lock:
            for thread in threads:
                self._watches.pop(thread, None)
            if not self._watches and self._previous_hook is not None:
                for name in self.LOGGERS:
                    logging.getLogger(name).removeHandler(self)
                # Somebody who hooked in after us keeps our hook in his chain; it passes everything on.
                if threading.excepthook == self._thread_died:
                    threading.excepthook = self._previous_hook
                    self._previous_hook = None

    @override
    def emit(self, record: logging.LogRecord) -> None:
        watch = self._watches.get(threading.current_thread())
        if watch is not None:
            log.warning("watchdog lost events", tree=watch.root, reason=record.getMessage()[:200])
            watch.mailbox.alarm(Alarm.OVERFLOW)

    def _thread_died(self, args: threading.ExceptHookArgs) -> Any:
        watch = None if args.thread is None else self._watches.get(args.thread)
        if watch is not None:
            log.warning(
                "watchdog thread died", tree=watch.root, thread=type(args.thread).__name__, error=repr(args.exc_value)
            )
            watch.mailbox.alarm(Alarm.DIED)
        elif self._previous_hook is not None:
            self._previous_hook(args)
