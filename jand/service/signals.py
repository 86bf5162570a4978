"""What the daemon's signals ask for: SIGTERM and SIGINT the end, and a second one a quick end; SIGHUP a reload; SIGUSR1 a dump."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Signals:
    """*asked* and *again* are set by the first and the second signal to end, whose name is *reason*."""

    NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.again = asyncio.Event()
        self.reason = ""
        self._tasks = TaskSet()
        self._hung_up = False
        self._reloading = False

    def install(self, *, reload: Callable[[], Awaitable[None]], dump: Callable[[], None]) -> None:
        """Listen from now on. *reload* runs once for any number of SIGHUPs that come before it begins."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._end, "SIGINT")
        loop.add_signal_handler(signal.SIGHUP, self._hang_up, reload)
        loop.add_signal_handler(signal.SIGUSR1, dump)

    async def remove(self) -> None:
        for number in self.NUMBERS:
            asyncio.get_running_loop().remove_signal_handler(number)
        await self._tasks.close()

    def _end(self, name: str) -> None:
        (self.again if self.asked.is_set() else self.asked).set()
        self.reason = name

    def _hang_up(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._hung_up = True
        if not self._reloading:
            self._reloading = True
            self._tasks.spawn(self._reload(reload), name="reload on SIGHUP")

    async def _reload(self, reload: Callable[[], Awaitable[None]]) -> None:
        try:
            while self._hung_up:
                self._hung_up = False
                await reload()
        finally:
            self._reloading = False
