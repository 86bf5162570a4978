"""What a daemon looks after every few seconds besides its models: the files by which others find it, which people and cleaners of temporary directories remove."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jand.service.lock import PidFile

log = structlog.get_logger(__name__)

LOOK_S: Final = 2.0
"""How long a socket that was removed may be missing; a look costs some microseconds."""


async def keep_up(
    look_at_sockets: Callable[[], Awaitable[None]], pid_files: Sequence[PidFile], *, every_s: float = LOOK_S
) -> None:
    """Look every *every_s* seconds until cancelled; what goes wrong once is tried again."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await look_at_sockets()
            for pid_file in pid_files:
                if pid_file.renew():
                    log.warning("pid file made again", path=str(pid_file.path), reason="somebody had removed it")
        except OSError as error:
            log.warning("upkeep failed", reason=error.strerror)
