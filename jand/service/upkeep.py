"""What a daemon looks after every few seconds besides its models: the files by which others find it, which people and cleaners of temporary directories remove."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from jand.library.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jand.service.lock import PidFile

log = structlog.get_logger(__name__)

SOCKET_S: Final = 5.0
"""How long a socket that was removed may be missing."""

PID_FILE_S: Final = 5.0


async def keep_up(look_at_sockets: Callable[[], Awaitable[None]], pid_files: Sequence[PidFile]) -> None:
    """Look again and again until cancelled. A disk that hangs costs a thread and its own looks, no others."""
    threads = Threads(1, "pid files", close_s=0.1)

    async def look_at_pid_files() -> None:
        for pid_file in pid_files:
            if await threads.run(pid_file.renew):
                log.warning("pid file made again", path=str(pid_file.path), reason="somebody had removed it")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(SOCKET_S, look_at_sockets), name="sockets")
            group.create_task(_every(PID_FILE_S, look_at_pid_files), name="pid files")
    finally:
        await threads.close()


async def _every(seconds: float, look: Callable[[], Awaitable[None]]) -> None:
    """Look at once, so that what a look needs is there from the start, and then every so many *seconds*."""
    while True:
        try:
            await look()
        except OSError as error:
            log.warning("upkeep failed", reason=error.strerror)
        await asyncio.sleep(seconds)
