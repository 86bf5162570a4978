"""Scans what is due, touched entries first, and tells what is new.

One scan at a time, since scans share caches and the interpreter; an entry on a disk that does not answer is left to its thread and becomes a problem, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Final

import structlog

from jand.library.examiner import Batch
from jand.model.filenames import printable
from jand.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.library.examiner import Examiner, Look
    from jand.library.findings import EntryScan, Tree
    from jand.library.picture import Picture
    from jand.library.roots import Root
    from jand.library.settle import Key, Settler
    from jand.library.threads import Threads
    from jand.tasks import TaskSet

log = structlog.get_logger(__name__)

BATCH_TOUCHED: Final = 16
BATCH_QUEUED: Final = 1024
FIRST_BATCH: Final = 16
"""A batch of queued entries is what was managed of the last one in the time that a batch may take, or twice that where there was time left: what is taken and not managed goes back."""

BREATH: Final = 16
"""After so many results the event loop gets its turn."""


class Scanner:
    """The one hand that scans.

    *find_root* gives the tree of a label and its directory, None while it is offline. *told* is called with each scan that says something new, *looked* after each look with whether it did, *doubted* with the label
    of a tree that is not what it was, *changed* when `slow` changes.
    """

    def __init__(
        self,
        settler: Settler,
        picture: Picture,
        examiner: Examiner,
        *,
        threads: Threads,
        tasks: TaskSet,
        slow_s: float,
        find_root: Callable[[str], tuple[Tree, Root] | None],
        told: Callable[[EntryScan], None],
        looked: Callable[[Key, bool], None],
        doubted: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.slow: dict[Key, Problem] = {}
        self._settler = settler
        self._picture = picture
        self._examiner = examiner
        self._threads = threads
        self._tasks = tasks
        self._slow_s = slow_s
        self._find_root = find_root
        self._told = told
        self._looked = looked
        self._doubted = doubted
        self._changed = changed
        self._wake = asyncio.Event()
        self._limit = FIRST_BATCH

    def wake(self) -> None:
        """Something was touched or queued."""
        self._wake.set()

    async def run(self) -> None:
        """Scan until cancelled."""
        while True:
            self._wake.clear()
            batch = self._next_batch()
            if batch is None:
                await self._wait()
            elif batch.items:
                await self._carry_out(batch)

    async def _wait(self) -> None:
        now = asyncio.get_running_loop().time()
        due_at = self._settler.next_due_at()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due_at is None else max(0.0, due_at - now)):
                await self._wake.wait()

    def _next_batch(self) -> Batch | None:
        """Return what to scan next; None where nothing is due."""
        now = asyncio.get_running_loop().time()
        keys: list[Key] = []
        while len(keys) < BATCH_TOUCHED and (key := self._settler.take_touched(now)) is not None:
            keys.append(key)
        if not keys:
            keys = self._settler.take_queued(now, self._limit)
        if not keys:
            return None
        items = []
        for key in keys:
            found = self._find_root(key[0])
            if found is None:
                # When the tree is back, all of it is looked at.
                self._settler.done(key, now)
                self._looked(key, False)
            else:
                items.append((key, *found))
        return Batch(items)

    async def _carry_out(self, batch: Batch) -> None:
        future = self._threads.submit(functools.partial(self._examiner.work, batch))
        done, _ = await asyncio.wait({future}, timeout=self._slow_s)
        if done:
            future.result()
            self._note_pace(len(batch.looks), all_of_it=len(batch.looks) == len(batch.items))
            await self._take_in(batch.looks)
            for key in batch.left:
                self._settler.give_back(key)
            return
        batch.given_up = True
        finished = list(batch.looks)
        stuck, *waiting = [key for key, _, _ in batch.items[len(finished) :]]
        for key in waiting:
            self._settler.give_back(key)
        self._note_slow(stuck)
        self._tasks.spawn(self._see_out(future, batch, len(finished)), name=f"slow scan of {printable(stuck[1])}")
        await self._take_in(finished)

    def _note_pace(self, managed: int, *, all_of_it: bool) -> None:
        if not all_of_it:
            self._limit = max(managed, 1)
        elif managed >= self._limit:
            self._limit = min(2 * managed, BATCH_QUEUED)

    async def _see_out(self, future: asyncio.Future[Batch], batch: Batch, known: int) -> None:
        """Take in the one look that was given up, when the disk has answered after all."""
        await future
        late = batch.looks[known : known + 1]
        for look in late:
            self.slow.pop(look.key, None)
        self._changed()
        await self._take_in(late)

    async def _take_in(self, looks: list[Look]) -> None:
        for number, look in enumerate(looks, 1):
            self._settle(look)
            if number % BREATH == 0:
                await asyncio.sleep(0)

    def _settle(self, look: Look) -> None:
        now = asyncio.get_running_loop().time()
        sight = look.sight
        if sight is None:
            self._settler.done(look.key, now, cost_s=look.cost_s, recheck_after_s=look.again_after_s)
            if look.doubtful:
                self._doubted(look.key[0])
            self._looked(look.key, False)
            return
        held_before = look.key in self._picture.held
        news = self._picture.take_in(sight)
        self._settler.done(look.key, now, cost_s=look.cost_s, recheck_after_s=sight.scan.recheck_after_s)
        if (look.key in self._picture.held) is not held_before:
            self._changed()
        if news is not None:
            self._tell(news)
        self._looked(look.key, news is not None)

    def _tell(self, news: EntryScan) -> None:
        try:
            self._told(news)
        except Exception:
            # What one entry brings about must not end the watching of all others.
            log.exception("scan not taken in", tree=news.tree.label, entry=printable(news.entry))

    def _note_slow(self, key: Key) -> None:
        shown = f"{key[0]}/{printable(key[1])}".rstrip("/")
        message = f"cannot look at {shown}: its disk has not answered for {self._slow_s:.0f} s"
        self.slow[key] = Problem(shown, "disk-not-answering", message, "mount it again, or take the link to it away")
        log.warning("scan hangs", entry=shown)
        self._changed()
        # Nobody waits for it any longer, least of all the first scan.
        self._looked(key, False)
