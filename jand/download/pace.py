"""How fast and how often: one bandwidth for all transfers, and one pause for each quota of a server, so that many models do not each run into the same limit."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from jand.download.repository import origin_of

_SMALLEST_PART = 16 << 10
_LARGEST_PART = 1 << 30


class Bandwidth:
    """A limit in bytes per second for all who `take`; None for no limit.

    Whoever takes waits until what was taken before is paid for; meanwhile TCP slows the sender.
    """

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._paid_until = 0.0

    def limit(self, rate: int | None) -> None:
        """Let *rate* count from the next piece on."""
        self._rate = rate

    @property
    def most(self) -> int:
        """How many bytes to take at once: few where the limit is low, so that nobody waits long for one piece."""
        return _LARGEST_PART if self._rate is None else max(_SMALLEST_PART, self._rate // 20)

    async def take(self, count: int) -> None:
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._paid_until = max(now, self._paid_until) + count / self._rate
        if (wait := self._paid_until - now) > 0:
            await asyncio.sleep(wait)


class Pauses:
    """Until when which quota must be left alone, on the loop's clock: changes of the wall clock do not matter."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def set(self, url: str, seconds: float) -> None:
        quota = _quota_of(url)
        self._until[quota] = max(self._until.get(quota, 0.0), asyncio.get_running_loop().time() + seconds)

    def remaining(self, url: str) -> float:
        return max(0.0, self._until.get(_quota_of(url), 0.0) - asyncio.get_running_loop().time())

    async def wait(self, url: str) -> None:
        """Wait until the quota of *url* may be used; it may be paused anew meanwhile."""
        quota = _quota_of(url)
        while quota in self._until:
            delay = self._until[quota] - asyncio.get_running_loop().time()
            if delay <= 0:
                del self._until[quota]
            await asyncio.sleep(max(delay, 0.0))


def _quota_of(url: str) -> str:
    # The hub counts its API and its files apart.
    return origin_of(url) + ("/api" if urlsplit(url).path.startswith("/api/") else "")
