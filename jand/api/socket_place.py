"""The files that stand for our Unix sockets while we serve: one that somebody removes is made again, or told where only the service manager can.

Whoever is connected notices nothing: a connection does not need the file.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from jand.api.private_socket import BoundSocket, bind_again
from jand.errors import JandError
from jand.library.threads import Threads
from jand.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from jand.api.accepting import Report
    from jand.api.settings import ListenSettings

log = structlog.get_logger(__name__)

SOURCE: Final = "sockets"
INHERITED_HINT: Final = "restart the unit that made it: systemctl restart jand.socket jand.service"


@dataclass(slots=True)
class SocketPlace:
    """Looks whether the socket is still where clients look for it.

    *bound* is the one that we made, *settings* say how; *serve* takes over one that was made again. *report* is told the problems that there are now. Used from one event loop.
    """

    settings: ListenSettings
    bound: BoundSocket | None
    inherited: tuple[BoundSocket, ...]
    serve: Callable[[BoundSocket], Awaitable[None]]
    report: Report
    _told: tuple[Problem, ...] = ()
    _making: asyncio.Future[BoundSocket] | None = None
    _threads: Threads = field(default_factory=lambda: Threads(1, "sockets", close_s=0.1))

    async def look(self) -> None:
        """Look once, and make again what is gone."""
        lost = await self._threads.run(self._find_lost)
        problems = [lost_for_good(each) for each in self.inherited if each in lost]
        if self.bound is not None and self.bound in lost:
            problems += await self._make_again(self.bound)
        if tuple(problems) != self._told:
            self._told = tuple(problems)
            for problem in problems:
                log.error("socket lost", path=problem.path, reason=problem.message, hint=problem.hint)
            self.report(SOURCE, problems)

    def _find_lost(self) -> list[BoundSocket]:
        places = self.inherited if self.bound is None else (*self.inherited, self.bound)
        return [each for each in places if is_lost(each)]

    async def remove(self) -> None:
        """Remove the file of the socket that is ours, also of one that is just being made, and look no more."""
        await self._threads.close()
        if self._making is not None:
            made = (await asyncio.gather(self._making, return_exceptions=True))[0]
            self.bound = made if isinstance(made, BoundSocket) else self.bound
        if self.bound is not None:
            await asyncio.to_thread(self.bound.remove)

    async def _make_again(self, lost: BoundSocket) -> Iterable[Problem]:
        asked = self.settings
        binding = functools.partial(
            bind_again, lost.path, mode=asked.socket_mode, group=asked.socket_group, held=asked.held
        )
        self._making = asyncio.ensure_future(asyncio.to_thread(binding))
        try:
            # Cancelled, the thread goes on; `remove` waits for what it makes.
            made = await asyncio.shield(self._making)
        except JandError as error:
            self._making = None
            hint = error.hint if error.code == "socket-in-use" else f"make room for a socket at {lost.path}"
            message = f"the socket is gone, and cannot be made again: {error.message}"
            return [Problem(str(lost.path), "socket-lost", message, hint)]
        await self.serve(made)
        self.bound, self._making = made, None
        log.warning("socket made again", path=str(made.path), reason="somebody had removed it")
        return []


def is_lost(bound: BoundSocket) -> bool:
    """Whether clients find another file at its path, or none; a disk that does not answer says nothing."""
    try:
        return not bound.is_in_place()
    except OSError:
        return False


def lost_for_good(bound: BoundSocket) -> Problem:
    message = "the socket is gone, which the service manager had made and only it can make again"
    return Problem(str(bound.path), "socket-lost", message, INHERITED_HINT)


def placed(inherited: Iterable[socket.socket]) -> tuple[BoundSocket, ...]:
    """Return those of the *inherited* sockets that have a file, with what tells it from another at the same path."""
    found = []
    for listener in inherited:
        name = listener.getsockname() if listener.family == socket.AF_UNIX else ""
        if isinstance(name, str) and name.startswith("/"):
            try:
                status = os.lstat(name)
            except OSError:
                continue  # somebody has removed it before we began
            found.append(BoundSocket(Path(name), listener, status.st_dev, status.st_ino))
    return tuple(found)
