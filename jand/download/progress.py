"""How far a model's files have come, told to whoever wants to know at most ten times a second."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from jand.model.record import FileProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jand.download.plan import WantedFile

TELL_EVERY_S: Final = 0.1
_WINDOW_S: Final = 5.0


class Meter:
    """Counts the bytes of one model. The speed is that of the last seconds and counts only what came over the network, not what was found."""

    def __init__(
        self, wanted: Sequence[WantedFile], present: Mapping[str, int], tell: Callable[[Progress], None]
    ) -> None:
        self._done: dict[str, int] = {**present, **dict.fromkeys((file.name for file in wanted), 0)}
        self._total: dict[str, int | None] = dict(present)
        self._total.update((file.name, file.size) for file in wanted)
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._fresh: deque[tuple[float, int]] = deque()
        self._told_at = float("-inf")
        self._later: asyncio.TimerHandle | None = None

    def note(self, name: str, done: int, total: int | None, fresh: int) -> None:
        self._done[name] = done
        self._total[name] = total
        if fresh:
            self._count(fresh)
        self._tell_soon()

    def _count(self, fresh: int) -> None:
        now = self._loop.time()
        if self._fresh and now - self._fresh[-1][0] < TELL_EVERY_S:
            began, count = self._fresh.pop()
            self._fresh.append((began, count + fresh))
        else:
            self._fresh.append((now, fresh))

    def complete(self, name: str) -> None:
        total = self._total[name]
        self._done[name] = self._done[name] if total is None else total
        self._total[name] = self._done[name]
        self._tell_soon()

    def close(self) -> None:
        """Tell what was not told yet, and nothing after it."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
            self._tell(self.progress())

    def progress(self) -> Progress:
        now = self._loop.time()
        while self._fresh and now - self._fresh[0][0] > _WINDOW_S:
            self._fresh.popleft()
        done = sum(self._done.values())
        sizes = list(self._total.values())
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        speed = self._speed(now)
        return Progress(
            bytes_done=done,
            bytes_total=total,
            bytes_per_second=speed,
            eta_seconds=(total - done) / speed if total is not None and speed > 0 else None,
            files=tuple(FileProgress(name, count, self._total[name]) for name, count in self._done.items()),
        )

    def _speed(self, now: float) -> float:
        if not self._fresh:
            return 0.0
        span = max(now - self._fresh[0][0], TELL_EVERY_S)
        return sum(count for _, count in self._fresh) / span

    def _tell_soon(self) -> None:
        if self._later is not None:
            return
        wait = self._told_at + TELL_EVERY_S - self._loop.time()
        if wait <= 0:
            self._tell_now()
        else:
            self._later = self._loop.call_later(wait, self._tell_now)

    def _tell_now(self) -> None:
        self._later = None
        self._told_at = self._loop.time()
        self._tell(self.progress())
