"""Who may be connected: a few at once, and a model that has none before one that has some."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Slots:
    """*most* holders at once. A free slot goes to the waiting owner who holds the fewest, then to the one served longest ago, then to the first who came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._held: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._turn = count(1)

    def resize(self, most: int) -> None:
        """Let *most* hold from now on; where they are fewer than before, who holds one keeps it."""
        self._free += most - self._most
        self._most = most
        self._hand_out()

    @asynccontextmanager
    async def hold(self, owner: str) -> AsyncIterator[None]:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._held[owner] -= 1
            self._hand_out()
            self._forget(owner)

    def _hand_out(self) -> None:
        self._waiting = [each for each in self._waiting if not each[1].cancelled()]
        while self._free > 0 and self._waiting:
            chosen = min(self._waiting, key=lambda each: (self._held[each[0]], self._served.get(each[0], 0)))
            self._waiting.remove(chosen)
            owner, turn = chosen
            turn.set_result(None)
            self._free -= 1
            self._held[owner] += 1
            self._served[owner] = next(self._turn)

    def _forget(self, owner: str) -> None:
        if not self._held[owner]:
            del self._held[owner]
            if not any(waiting == owner for waiting, _ in self._waiting) and len(self._served) > 1000:
                self._served.pop(owner, None)
