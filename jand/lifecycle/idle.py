"""How long a running model may stay without requests, and the timer that says when that is over."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class IdleTimer:
    """Calls *over* once, on the event loop, when a model has been idle for long enough.

    *by_request* is what the last request asked for, in seconds, and comes before what the JSON and the settings say; 0 is at once, negative never.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._handle: asyncio.TimerHandle | None = None
        self.by_request: float | None = None

    def arm(self, own: float | None, default: float) -> None:
        """Begin to count; *own* is the model's own time, if it has one."""
        self.disarm()
        seconds = next(value for value in (self.by_request, own, default) if value is not None)
        if seconds >= 0:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._over, context=contextvars.Context())

    def disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
