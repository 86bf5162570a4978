"""What the daemon's signals ask for: SIGTERM and SIGINT the end, and a second one a quick end; SIGHUP a reload; SIGUSR1 a dump.

Whoever asked for the end gets it, also of a daemon whose loop hangs: where memory is refused to a thread that begins, `Thread.start` of Python 3.11 waits for ever for a sign that
the thread no longer gives. The kernel's timer is started with the first signal, by a handler that needs no loop, and ends the process where the order of things does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

ENDING: Final = (signal.SIGTERM, signal.SIGINT)

OVERDUE_S: Final = 10.0
"""How long an end in order may take; it takes 5 s at most where nothing hangs, and service managers kill after 30 to 90."""

OVERDUE_AGAIN_S: Final = 3.0
"""The same from a second signal on."""

SOFTWARE: Final = 70
"""EX_SOFTWARE of sysexits.h."""

LAST_WORDS: Final = b"jand: cannot end in order: something hangs, so the process ends as it is\n"


@contextlib.contextmanager
def last_resort() -> Iterator[None]:
    """Let the process end in there `OVERDUE_S` seconds after the first signal to end, whatever it hangs on; what a killed daemon leaves the next start repairs."""
    numbers = (*ENDING, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGALRM, _end_as_it_is)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _is_armed() -> bool:
    return signal.getsignal(signal.SIGALRM) is _end_as_it_is


def _end_as_it_is(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, LAST_WORDS)
    os._exit(SOFTWARE)


def _set_timer(_number: int, _frame: FrameType | None) -> None:
    """Start the timer, and shorten it at a second signal; the loop hears of the signal by its wakeup descriptor all the same."""
    if not _is_armed():
        return
    left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, min(left_s, OVERDUE_AGAIN_S) if left_s else OVERDUE_S)


def _watch_ending() -> None:
    for number in ENDING:
        signal.signal(number, _set_timer)
        signal.siginterrupt(number, False)  # as the loop sets it


class Signals:
    """*asked* and *again* are set by the first and the second signal to end, whose name is *reason*."""

    NUMBERS: Final = (*ENDING, signal.SIGHUP, signal.SIGUSR1)

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
        _watch_ending()

    async def remove(self) -> None:
        for number in self.NUMBERS:
            asyncio.get_running_loop().remove_signal_handler(number)
        if _is_armed():
            # One more signal in the last moments would kill a process that is about to end in order.
            _watch_ending()
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
