"""What lies in the trees, told as it changes: the path from an event on the disk to `on_scan`.

Hints of the watcher and differences that sweeps find end in the same place, the settler; scans answer them, and only what a scan says differently from the last time is told. A tree that cannot be
read tells nothing, and so takes no model away.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from jand.library import scan as scans
from jand.library.examiner import Examiner
from jand.library.filesystems import MountTable
from jand.library.memory import Memory
from jand.library.picture import Picture
from jand.library.scanner import Scanner
from jand.library.settle import Pace, Settler
from jand.library.stamps import read_stamp
from jand.library.status import WatchStatus
from jand.library.supervisor import Reports, Supervisor
from jand.library.sweeper import Rhythm, Sweeper
from jand.library.threads import Threads
from jand.library.vigilance import Vigilance
from jand.library.watcher import default_observer
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.library.examiner import ScanEntry
    from jand.library.findings import EntryScan, Tree
    from jand.library.headers import HeaderCache
    from jand.library.hints import Hints
    from jand.library.roots import Root
    from jand.library.settle import Key
    from jand.library.watcher import ObserverLike

MOST_TOUCHED: Final = 2048
"""More touched entries than this at once are not looked at one by one: the whole tree is."""

THREADS: Final = 3
FOLLOW_S: Final = 0.05
LOSSY_RESCAN_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class LibrarySettings:
    """How long things take.

    Times in seconds: a folder has settled after *settle_s* of quiet, everything is looked at every *rescan_s*, what gives no events every *poll_s*, and a scan
    that takes longer than *slow_s* is a problem of its disk. *lossy_events*: the platform drops events without a word, so everything is looked at more often.
    """

    settle_s: float = 2.0
    rescan_s: float = 60.0
    poll_s: float = 5.0
    slow_s: float = 10.0
    lossy_events: bool = sys.platform == "darwin"
    vigilance: Vigilance = field(default_factory=Vigilance)


@dataclass(frozen=True, slots=True)
class RescanResult:
    """*changed* are the paths of the entries of which there was something new to tell."""

    scanned: int
    changed: tuple[str, ...]
    seconds: float


class Library:
    """All trees. *on_scan* and *on_status* are called on the event loop; everything here belongs to it."""

    def __init__(
        self,
        trees: Sequence[Tree],
        settings: LibrarySettings,
        *,
        headers: HeaderCache,
        on_scan: Callable[[EntryScan], None],
        on_status: Callable[[WatchStatus], None],
        scan_entry: ScanEntry = scans.scan_entry,
        list_entries: Callable[[Tree], list[str]] = scans.list_entries,
        observer: Callable[[], ObserverLike] = default_observer,
    ) -> None:
        self.ready = asyncio.Event()
        self.status = WatchStatus()
        self._trees = {tree.label: tree for tree in trees}
        self._settings = settings
        self._on_status = on_status
        self._headers = headers
        self._observer = observer
        self._list_entries = list_entries
        self._threads = Threads(THREADS, "library")
        self._tasks = TaskSet()
        self._mounts = MountTable()
        self._picture = Picture()
        self._memory = Memory(headers)
        self._following: set[str] = set()
        self._settler = Settler(Pace(settle_s=settings.settle_s), started_at=asyncio.get_running_loop().time())
        self._scanner = Scanner(
            self._settler,
            self._picture,
            Examiner(scan_entry, list_entries, headers, self._memory, self._mounts, self._picture),
            threads=self._threads,
            tasks=self._tasks,
            slow_s=settings.slow_s,
            find_root=self._find_root,
            told=on_scan,
            looked=self._looked,
            doubted=lambda label: self._supervisors[label].check_now(),
            changed=self._publish,
        )
        self._supervisors = {label: self._supervise(tree) for label, tree in self._trees.items()}
        self._sweepers = {label: self._sweep(tree) for label, tree in self._trees.items()}
        self.status = self._make_status()

    async def run(self) -> None:
        """Watch, scan everything once, then follow what happens, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scanner.run(), name="scans")
                for label, supervisor in self._supervisors.items():
                    group.create_task(supervisor.run(), name=f"watch of {label}")
                    group.create_task(self._sweepers[label].run(), name=f"sweeps of {label}")
                group.create_task(self._begin(), name="first scan")
        finally:
            await self._tasks.close()
            await self._threads.close()
            self._mounts.close()

    def touch(self, label: str, entry: str) -> None:
        """Look at *entry* now, for somebody knows that something has changed there."""
        self._settler.touch((label, entry), asyncio.get_running_loop().time())
        self._scanner.wake()

    def tune(self, *, settle_s: float, rescan_s: float) -> None:
        """Let other times count from now on; see `LibrarySettings`."""
        self._settings = replace(self._settings, settle_s=settle_s, rescan_s=rescan_s)
        self._settler.settle_after(settle_s)
        for sweeper in self._sweepers.values():
            sweeper.set_rhythm(self._rhythm())

    def unwatched_s(self) -> float:
        """Return for how many seconds the tree that was neglected longest has not been looked after; it is a few where all is well."""
        now = asyncio.get_running_loop().time()
        return max((now - supervisor.looked_at for supervisor in self._supervisors.values()), default=0.0)

    async def save(self) -> None:
        """Write down what a later start can use: what lies here, and the headers of it."""
        if self.ready.is_set():
            held = self._picture.held
            scans = [
                (scan, self._picture.stamps.get(key)) for key, scan in self._picture.scans.items() if key not in held
            ]
            await asyncio.to_thread(self._memory.save, scans)
        await asyncio.to_thread(self._headers.save)

    async def rescan(self) -> RescanResult:
        """Scan every entry of every tree that can be read, and return when all of it was told."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        tickets = [sweeper.request(force=True) for sweeper in self._sweepers.values()]
        for ticket in tickets:
            await ticket.done.wait()
        changed = sorted("/".join(filter(None, key)) for ticket in tickets for key in ticket.changed)
        return RescanResult(sum(ticket.scanned for ticket in tickets), tuple(changed), loop.time() - began)

    async def wait_settled(self, label: str, entry: str) -> None:
        """Return when nothing in *entry* has changed for `settle_s`, and the last scan of it says how it is now."""
        key = (label, entry)
        loop = asyncio.get_running_loop()
        while True:
            left_s = self._settler.settled_at(key) - loop.time()
            if left_s > 0 or self._settler.busy(key) or self._settler.is_queued(key):
                await asyncio.sleep(max(left_s, 0.02))
                continue
            found = self._find_root(label)
            if found is not None and key not in self._picture.held:
                # Hints are not to be had everywhere, and can be lost.
                stamp = await self._threads.run(functools.partial(read_stamp, found[1].path, entry))
                if stamp == self._picture.stamps.get(key):
                    return
                self._settler.note_change(key, loop.time())
                self._settler.queue([key])
                self._scanner.wake()
            await asyncio.sleep(min(self._settings.settle_s, 0.2))

    # Parts of the whole.

    def _supervise(self, tree: Tree) -> Supervisor:
        label = tree.label
        reports = Reports(
            heard=functools.partial(self._heard, label),
            sweep=functools.partial(self._sweep_now, label),
            folders=functools.partial(self._picture.folders, label),
            changed=self._publish,
        )
        return Supervisor(
            tree,
            self._settings.vigilance,
            reports,
            threads=self._threads,
            mounts=self._mounts,
            tasks=self._tasks,
            observer=self._observer,
        )

    def _sweep(self, tree: Tree) -> Sweeper:
        return Sweeper(
            tree,
            self._rhythm(),
            self._supervisors[tree.label],
            settler=self._settler,
            picture=self._picture,
            threads=self._threads,
            list_entries=self._list_entries,
            queued=self._scanner.wake,
        )

    def _rhythm(self) -> Rhythm:
        rescan_s = self._settings.rescan_s
        if self._settings.lossy_events:
            # FSEvents reports what it dropped, and new hard links not at all; watchdog (#124) passes neither on.
            rescan_s = min(rescan_s, LOSSY_RESCAN_S)
        return Rhythm(rescan_s, self._settings.poll_s)

    async def _begin(self) -> None:
        for label, supervisor in self._supervisors.items():
            await supervisor.began.wait()
            await self._sweep_now(label)
        self.ready.set()

    async def _sweep_now(self, label: str) -> None:
        await self._sweepers[label].request().done.wait()

    def _find_root(self, label: str) -> tuple[Tree, Root] | None:
        root = self._supervisors[label].root
        return None if root is None else (self._trees[label], root)

    # What parts say.

    def _heard(self, label: str, hints: Hints) -> None:
        now = asyncio.get_running_loop().time()
        for name in hints.touched:
            self._settler.touch((label, name), now)
        for name in hints.grown - hints.touched:
            self._settler.touch((label, name), now, flow=True)
        if hints.everything or self._settler.touched > MOST_TOUCHED:
            self._settler.collapse(label)
            self._sweepers[label].request()
        self._scanner.wake()

    def _looked(self, key: Key, news: bool) -> None:
        self._sweepers[key[0]].note(key, news=news)
        if key[0] in self._picture.relinked and key[0] not in self._following:
            # Many entries may come in one go; one look at all links will do for them.
            self._following.add(key[0])
            asyncio.get_running_loop().call_later(FOLLOW_S, self._follow, key[0])

    def _follow(self, label: str) -> None:
        self._following.discard(label)
        self._supervisors[label].follow(self._picture.links(label))

    def _publish(self) -> None:
        status = self._make_status()
        for sweeper in self._sweepers.values():
            sweeper.wake()
        if status != self.status:
            self.status = status
            self._on_status(status)

    def _make_status(self) -> WatchStatus:
        trees = {label: supervisor.status() for label, supervisor in self._supervisors.items()}
        problems = [problem for tree in trees.values() for problem in tree.problems]
        return WatchStatus(trees, frozenset(self._picture.held), (*problems, *self._scanner.slow.values()))
