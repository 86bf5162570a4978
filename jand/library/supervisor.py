"""Keeps one tree watched: notices when the watch is worth nothing, opens it anew, and says meanwhile that the tree must be polled.

It looks at the tree's own directory (gone, replaced, mounted over), at the watch's threads and log, at a cookie that has to come back as an event, and at the folders for which the kernel really holds
a watch. It draws no conclusion about models: whatever it finds, it asks for a sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from jand.library import health
from jand.library import vigilance as ways
from jand.library.hints import Alarm, Hints, Mailbox
from jand.library.roots import NoRoot, Root, read_root
from jand.library.status import Mode, TreeStatus
from jand.library.watcher import Refusal, Watch, remove_stale_cookies

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from jand.library.filesystems import Mount, MountTable
    from jand.library.findings import Tree
    from jand.library.threads import Threads
    from jand.library.vigilance import Vigilance
    from jand.library.watcher import ObserverLike
    from jand.tasks import TaskSet

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Reports:
    """Whom a supervisor tells, on the event loop.

    *heard*: every hint. *sweep*: look at the whole tree, and return when that is done. *folders*: the inodes of the folders, by entry, as last seen. *changed*:
    `status` may be another.
    """

    heard: Callable[[Hints], None]
    sweep: Callable[[], Coroutine[None, None, None]]
    folders: Callable[[], Mapping[str, tuple[int, ...]]]
    changed: Callable[[], None]


class Supervisor:
    """One tree's watch and its state of health."""

    def __init__(
        self,
        tree: Tree,
        vigilance: Vigilance,
        reports: Reports,
        *,
        threads: Threads,
        mounts: MountTable,
        tasks: TaskSet,
        observer: Callable[[], ObserverLike],
        look_at: Callable[[str, MountTable], Root | NoRoot] = read_root,
    ) -> None:
        self.tree = tree
        self.began = asyncio.Event()
        self.root: Root | None = None
        self.looked_at = asyncio.get_running_loop().time()
        self._vigilance = vigilance
        self._reports = reports
        self._threads = threads
        self._mounts = mounts
        self._tasks = tasks
        self._observer = observer
        self._look_at = look_at
        self._asking: asyncio.Future[Root | NoRoot] | None = None
        self._wake = asyncio.Event()
        self._watch: Watch | None = None
        self._former: Watch | None = None
        self._health = health.Health()
        self._rebuilds = 0
        self._edition = 0
        self._blind = False
        self._cookie = ways.CookieProbe(vigilance)
        self._audit = ways.Audit(vigilance)
        self._pauses = ways.Pauses(vigilance)
        self._refreshment = ways.Refreshment(vigilance)
        self._links: Mapping[str, frozenset[str]] = {}

    # What others ask.

    @property
    def must_poll(self) -> bool:
        """Whether changes in this tree have to be looked for."""
        return self._health.find_mode(self._mount, watching=self._watch is not None) in {Mode.POLLING, Mode.DEGRADED}

    @property
    def unwatched(self) -> frozenset[str]:
        """Entries of which some folder is not watched although the tree is."""
        return self._health.gaps.entries

    @property
    def _mount(self) -> Mount | None:
        return None if self.root is None else self.root.mount

    def status(self) -> TreeStatus:
        mode = self._health.find_mode(self._mount, watching=self._watch is not None)
        problems = tuple(self._health.problems(self.tree, online=self.root is not None))
        reason = problems[0].message if problems else ""
        if mode is Mode.POLLING and self.root is not None:
            reason = f"a file system of kind {self.root.mount.kind} does not tell every change"
        return TreeStatus(mode, reason, problems, self._rebuilds)

    def check_now(self) -> None:
        """Look at everything as soon as possible."""
        self._wake.set()

    def suspect(self) -> None:
        """Something had changed without a hint: try the watch out."""
        now = asyncio.get_running_loop().time()
        self._cookie.hurry(now)
        self._audit.hurry(now)
        self._wake.set()

    def follow(self, links: Mapping[str, frozenset[str]]) -> None:
        """Watch the far ends of *links* (real path to entries) as well, now and after every rebuild."""
        if links != self._links:
            self._links = links
            if self._watch is not None:
                self._tasks.spawn(self._follow(self._watch), name=f"links of {self.tree.label}")

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._wake.clear()
                await self._look()
                self.looked_at = asyncio.get_running_loop().time()
                self.began.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._wake.wait()
        finally:
            await self._close_watch()

    # Looking.

    def _patience(self) -> float:
        check_s = self._vigilance.check_s
        now = asyncio.get_running_loop().time()
        if self.root is not None and self._watch is None:
            return min(check_s, self._pauses.left(now) + 0.001)
        refresh_s = self._refreshment.left(now)
        return check_s if refresh_s is None else min(check_s, refresh_s + 0.001)

    async def _look(self) -> None:
        root = await self._read_root()
        if isinstance(root, NoRoot):
            await self._go_offline(root.reason)
        elif root is None:
            return
        elif (trouble := self._find_trouble(root)) is not None:
            await self._recover(root, trouble)
        else:
            self._note_mounts()
            if self._blind:
                # What changed in the meantime was heard of, and could not be looked at.
                self._blind = False
                self._tasks.spawn(self._reports.sweep(), name=f"sweep of {self.tree.label}")
            await self._refresh(root)
            await self._try_cookie(root)
            await self._try_audit(root)

    async def _read_root(self) -> Root | NoRoot | None:
        """Return what is known of the tree's directory now; None where that could not be found out, for a lack of our own."""
        if self._asking is None:
            self._asking = self._threads.submit(functools.partial(self._look_at, str(self.tree.path), self._mounts))
        done, _ = await asyncio.wait({self._asking}, timeout=self._vigilance.answer_s)
        if not done:
            # It is not asked again before it has answered: every question would cost a thread.
            return NoRoot("its disk does not answer")
        asked, self._asking = self._asking, None
        try:
            return asked.result()
        except OSError as error:
            if not self._blind:
                log.warning("tree not looked at", tree=self.tree.label, error=str(error))
            self._blind = True
            return None

    def _find_trouble(self, root: Root) -> str | None:
        """Why the watch must be opened (again); the empty string where nothing went wrong."""
        if self.root is None:
            return ""
        if self.root.identity != root.identity:
            return health.REPLACED
        if self._health.alarms:
            return min(self._health.alarms)
        if self._watch is None:
            return ""
        if not self._watch.alive:
            return Alarm.DIED
        return health.SILENT if self._cookie.is_overdue(asyncio.get_running_loop().time()) else None

    def _note_mounts(self) -> None:
        """Have the tree looked at when anything was mounted or unmounted anywhere: no event tells what that does below a tree or behind its links."""
        edition = self._mounts.edition
        if edition != self._edition:
            self._edition = edition
            self._tasks.spawn(self._reports.sweep(), name=f"sweep of {self.tree.label}")

    async def _go_offline(self, reason: str) -> None:
        if self.root is not None or self._health.away != reason:
            log.warning("tree offline", tree=self.tree.label, path=str(self.tree.path), reason=reason)
        self.root, self._health.away = None, reason
        self._health.alarms.clear()
        self._health.refusal = None
        self._health.gaps = ways.Gaps()
        await self._close_watch()
        self._reports.changed()

    async def _recover(self, root: Root, trouble: str) -> None:
        """Open the watch anew, unless it failed a moment ago, and have the whole tree looked at: watch first, then look."""
        known = self.root is not None and self.root.identity == root.identity
        self.root = root
        self._edition = self._mounts.edition
        await self._close_watch()
        now = asyncio.get_running_loop().time()
        troubles = {trouble, *self._health.alarms} - {""}
        self._health.alarms |= troubles
        if known and self._pauses.left(now) > 0:
            self._reports.changed()
            return
        if known:
            self._pauses.note(now)
        for each in troubles:
            self._health.recovering[each] = self._health.recovering.get(each, 0) + 1
        self._health.alarms.clear()
        if troubles:
            self._reports.changed()
        self._health.refusal = await self._open_watch(root)
        if troubles:
            self._rebuilds += 1
            refused = None if self._health.refusal is None else self._health.refusal.cause
            log.warning("watch opened anew", tree=self.tree.label, reasons=sorted(troubles), refused=refused)
        self._reports.changed()
        self._tasks.spawn(self._see_recovered(troubles), name=f"recovery of {self.tree.label}")

    async def _see_recovered(self, troubles: set[str]) -> None:
        await self._reports.sweep()
        for each in troubles:
            self._health.recovering[each] -= 1
            if not self._health.recovering[each]:
                del self._health.recovering[each]
        self._reports.changed()

    # The watch.

    async def _open_watch(self, root: Root) -> Refusal | None:
        """Open a watch, which takes the place of the one that there is, if any."""
        watch = Watch(root.path, Mailbox(asyncio.get_running_loop(), self._hear), self._observer)
        if self.tree.writable:
            await self._threads.run(functools.partial(remove_stale_cookies, root.path))
        # Both are ours until one of them is closed: we may be cancelled at any await.
        self._former, self._watch = self._watch, watch
        refusal = await self._threads.run(watch.open)
        if refusal is not None:
            self._former, self._watch = None, self._former
            return refusal
        await self._close_former()
        now = asyncio.get_running_loop().time()
        self._health.gaps = ways.Gaps()
        self._cookie.begin(now)
        self._audit.begin(now)
        await self._follow(watch)
        return None

    async def _refresh(self, root: Root) -> None:
        """Open the watch anew where folders have moved; the old one works until then."""
        began = asyncio.get_running_loop().time()
        if self._refreshment.left(began) != 0.0:
            return
        if await self._open_watch(root) is not None:
            # There may be room for one watch and not for two.
            await self._recover(root, health.INCOMPLETE)
        else:
            self._tasks.spawn(self._reports.sweep(), name=f"sweep of {self.tree.label}")
        now = asyncio.get_running_loop().time()
        self._refreshment.done(now, now - began)

    async def _close_former(self) -> None:
        watch, self._former = self._former, None
        if watch is not None:
            await self._close(watch)

    async def _close_watch(self) -> None:
        await self._close_former()
        watch, self._watch = self._watch, None
        if watch is not None:
            await self._close(watch)

    async def _close(self, watch: Watch) -> None:
        watch.mailbox.close()
        # Waited for and not awaited: a cancellation must not leave threads behind, nor a thread that hangs hold us up.
        done, _ = await asyncio.wait({self._threads.submit(watch.close)}, timeout=CLOSE_TIMEOUT_S)
        if not done:
            log.warning("watch does not close", tree=self.tree.label)

    async def _follow(self, watch: Watch) -> None:
        await self._threads.run(functools.partial(watch.follow, self._links))

    def _hear(self, hints: Hints) -> None:
        now = asyncio.get_running_loop().time()
        self._health.alarms |= {*hints.alarms, *([health.REPLACED] if hints.root else [])}
        self._cookie.came_back(hints.cookies)
        if hints.rights:
            self._audit.hurry(now)
        if hints.moved:
            self._refreshment.note_move(now)
        if hints.alarms or hints.root or hints.rights or hints.moved:
            self._wake.set()
        if hints.touched or hints.grown or hints.everything:
            self._cookie.note_activity(now)
            self._reports.heard(hints)

    async def _try_cookie(self, root: Root) -> None:
        now = asyncio.get_running_loop().time()
        watch = self._watch
        if watch is None or not self._cookie.is_due(now) or not self.tree.writable or root.mount.read_only:
            return
        self._cookie.plan_next(now)
        name = await self._threads.run(watch.place_cookie)
        if name is not None:
            self._cookie.placed(name, asyncio.get_running_loop().time())

    async def _try_audit(self, root: Root) -> None:
        watch = self._watch
        if watch is None or not self._audit.is_due(asyncio.get_running_loop().time()):
            return
        folders = dict(self._reports.folders())
        missing = await self._threads.run(functools.partial(ways.find_unwatched, watch, root, folders))
        lasting = self._audit.sift(missing)
        before = self._health.gaps
        if lasting or before.entries:
            gaps = await self._threads.run(functools.partial(ways.explain_gaps, root, lasting, self._observer))
            self._health.gaps = gaps
            if gaps.forgotten:
                self._health.alarms.add(health.INCOMPLETE)
                self._wake.set()
        self._audit.plan_next(asyncio.get_running_loop().time(), self._health.gaps)
        if self._health.gaps != before:
            self._reports.changed()
