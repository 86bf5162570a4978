"""How full the disk with the models is, asked in a way that a disk which hangs cannot hold anybody up."""

from __future__ import annotations

import asyncio
import shutil
from typing import Final

PATIENCE_S: Final = 1.0


class DiskGauge:
    """Asks the disk on a thread, and on one only: a disk that hangs keeps that one and not all that the daemon has."""

    def __init__(self) -> None:
        self._asking: asyncio.Future[dict[str, int] | None] | None = None

    async def read(self, folder: str) -> dict[str, int] | None:
        """Return the bytes of the disk with *folder*; None where it is away, or does not answer in time."""
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.get_running_loop().run_in_executor(None, measure, folder)
        done, _ = await asyncio.wait([asking], timeout=PATIENCE_S)
        return asking.result() if done else None


def measure(folder: str) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return {"total": usage.total, "free": usage.free}
