"""What the daemon's signals ask for: SIGTERM and SIGINT the end, and a second one a quick end; SIGHUP a reload; SIGUSR1 a dump.

Whoever asked for the end gets it, also of a daemon whose loop hangs: where memory is refused to a thread that begins, `Thread.start` of Python 3.11 waits for ever for a sign that
the thread no longer gives. The kernel's timer is started with the first signal, by a handler that needs no loop, and ends the process where the order of things does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

ENDING: Final = (signal.SIGTERM, signal.SIGINT)
HEARD: Final = (*ENDING, signal.SIGHUP, signal.SIGUSR1)

OVERDUE_S: Final = 10.0
"""How long an end in order may take; it takes 5 s at most where nothing hangs, and service managers kill after 30 to 90."""

OVERDUE_AGAIN_S: Final = 3.0
"""The same from a second signal on."""

SOFTWARE: Final = 70
"""EX_SOFTWARE of sysexits.h."""

LAST_WORDS: Final = b"jand: cannot end in order: something hangs, so the process ends as it is\n"


@contextlib.contextmanager
def last_resort() -> Iterator[None]:
    """Let the process end in there `OVERDUE_S` seconds after the first signal to end, whatever it hangs on; what a killed daemon leaves the next start repairs.

    Once it was told to end, it ends after this, and one more signal does not change its status; only where the interpreter itself hangs at its end, SIGALRM ends it.
    """
    numbers = (*HEARD, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGALRM, _end_as_it_is)
    try:
        yield
    finally:
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
        if left_s:
            _leave(left_s)
        else:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def _leave(left_s: float) -> None:
    """Prepare for what the interpreter does last, when it has put its own handlers away: only the kernel's are left, to ignore a signal or to end the process."""
    for number in HEARD:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, left_s)


def _is_armed() -> bool:
    return signal.getsignal(signal.SIGALRM) is _end_as_it_is


def _end_as_it_is(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, LAST_WORDS)
    os._exit(SOFTWARE)


def _set_timer() -> None:
    """Start the timer, and shorten it at a second signal; a third would mean nothing more."""
    if not _is_armed():
        return
    left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    if not left_s:
        signal.setitimer(signal.ITIMER_REAL, OVERDUE_S)
        return
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, min(left_s, OVERDUE_AGAIN_S))


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if number in ENDING:
        _set_timer()


class Signals:
    """*asked* and *again* are set by the first and the second signal to end, whose name is *reason*.

    The loop's own handlers would be taken away before the process ends, by way of the system's default, and one more signal in that moment would kill it. So these are ours, and the loop
    hears of each signal by a byte in a pipe, as it does by its own: two that come while it is held are two.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.again = asyncio.Event()
        self.reason = ""
        self._before: dict[int, Any] = {}
        self._tasks = TaskSet()
        self._hung_up = False
        self._reloading = False

    def install(self, *, reload: Callable[[], Awaitable[None]], dump: Callable[[], None]) -> None:
        """Listen from now on. *reload* runs once for any number of SIGHUPs that come before it begins."""
        self._reload_with, self._dump = reload, dump
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        asyncio.get_running_loop().add_reader(self._reading, self._hear)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in HEARD:
            self._before[number] = signal.signal(number, _on_signal)
            signal.siginterrupt(number, False)  # as the loop sets it

    async def remove(self) -> None:
        """Hear no more; below `last_resort` a signal to end still starts its timer, and the others are ignored."""
        if self._before:
            signal.set_wakeup_fd(-1)
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
            os.close(self._writing)
        for number, handler in self._before.items():
            if not _is_armed():
                signal.signal(number, handler)
            elif number not in ENDING:
                signal.signal(number, signal.SIG_IGN)
        self._before.clear()
        await self._tasks.close()

    def _hear(self) -> None:
        for number in os.read(self._reading, 4096):
            if number in ENDING:
                self._end(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self._hang_up(self._reload_with)
            elif number == signal.SIGUSR1:
                self._dump()

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
