"""Connections that cannot be taken because this process, or the machine, has no descriptor left: a problem while it lasts, one line in the log when it begins and one when it is over.

asyncio tries again each second by itself and tells the loop's handler of exceptions of each failure, which would log every one with its traceback.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from jand.model.problem import Problem

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection

    Report = Callable[[str, Collection[Problem]], None]

log = structlog.get_logger(__name__)

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What asyncio takes for a lack that passes (selector_events, `_accept_connection`)."""

OVER_S: Final = 5.0
"""It is over when no connection failed for so long: at the limit they fail and succeed by turns."""

AT_ONCE: Final = 16
"""Connections that asyncio takes in one go. Where one fails it goes on to try the others all the same (bpo-27906), as often as it is told here."""


HINT: Final = "raise the limit of open files (ulimit -n, LimitNOFILE=), or let clients close what they do not use"
SOURCE: Final = "connections"


class Shortage:
    """Whether connections cannot be taken now; belongs to one event loop. *report* is told the problems that there are now, of the door *path*."""

    def __init__(self, report: Report, path: str, *, over_s: float = OVER_S) -> None:
        self._report = report
        self._path = path
        self._over_s = over_s
        self._began: float | None = None
        self._last = 0.0

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over what *loop* tells of failing connections; what else it tells goes where it went before."""
        before = loop.get_exception_handler()

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            if isinstance(error, OSError) and error.errno in EXHAUSTED and "accept" in context.get("message", ""):
                self.note(error, loop.call_later)
            elif before is not None:
                before(loop, context)
            else:
                loop.default_exception_handler(context)

        loop.set_exception_handler(handle)

    def note(self, error: OSError, call_later: Callable[..., object]) -> None:
        """Take note that a connection could not be taken."""
        self._last = time.monotonic()
        if self._began is None:
            self._began = self._last
            reason = os.strerror(error.errno or 0).lower()
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.error("connections must wait", reason=reason, limit=limit, hint=HINT)
            message = f"connections must wait: {reason} (a process may have {limit})"
            self._report(SOURCE, [Problem(self._path, "connections-wait", message, HINT)])
            call_later(self._over_s, self._look, call_later)

    def _look(self, call_later: Callable[..., object]) -> None:
        quiet_s = time.monotonic() - self._last
        if quiet_s < self._over_s:
            call_later(self._over_s - quiet_s, self._look, call_later)
        elif self._began is not None:
            log.info("connections are taken again", seconds=round(self._last - self._began, 1))
            self._began = None
            self._report(SOURCE, [])
