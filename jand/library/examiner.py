"""Looks at entries in a thread: stamp, scan, and where what was found lies.

The stamp is taken before the scan, so that a change during the scan is a difference at the next look. What an entry seems to have lost is not believed when the tree itself is another one by
then.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from jand.errors.scarcity import is_our_own_lack
from jand.library.findings import LOOSE, EntryScan
from jand.library.picture import TREE, Anchor, Sight
from jand.library.roots import NoRoot, read_root
from jand.library.stamps import read_stamp
from jand.model.filenames import is_temporary, printable
from jand.model.immutable import immutable
from jand.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jand.library.filesystems import MountTable
    from jand.library.findings import Tree
    from jand.library.headers import HeaderCache
    from jand.library.memory import Memory
    from jand.library.picture import Picture, Place
    from jand.library.roots import Root
    from jand.library.settle import Key
    from jand.library.stamps import EntryStamp, Listings

log = structlog.get_logger(__name__)

_NOWHERE: Final[Mapping[str, Place]] = {}

BATCH_S: Final = 0.02
"""A batch ends after this long, so that what is touched meanwhile does not wait."""

LACK_S: Final = 2.0
"""When a look that failed for lack of descriptors or memory is tried again."""


class ScanEntry(Protocol):
    """`scan.scan_entry`."""

    def __call__(
        self, tree: Tree, entry: str, headers: HeaderCache, /, *, now: float, listings: Listings | None
    ) -> EntryScan: ...


@immutable()
class Look:
    """The result for one key: *sight* None where there is nothing and never was; *doubtful* where the tree was not the one that it should have been, or could not be looked at, which is tried after *again_after_s* seconds."""

    key: Key
    sight: Sight | None
    cost_s: float
    doubtful: bool = False
    again_after_s: float | None = None


@dataclass(slots=True, eq=False)
class Batch:
    """Keys to look at one after the other, and how far that has come; read by the event loop while the thread works on it."""

    items: Sequence[tuple[Key, Tree, Root]]
    looks: list[Look] = field(default_factory=list)
    given_up: bool = False

    @property
    def left(self) -> list[Key]:
        """The keys that were not looked at."""
        return [key for key, _, _ in self.items[len(self.looks) :]]


class Examiner:
    """Its methods block, and run in one thread at a time unless a disk hangs."""

    def __init__(
        self,
        scan_entry: ScanEntry,
        list_entries: Callable[[Tree], list[str]],
        headers: HeaderCache,
        memory: Memory,
        mounts: MountTable,
        picture: Picture,
    ) -> None:
        self._scan_entry = scan_entry
        self._list_entries = list_entries
        self._headers = headers
        self._memory = memory
        self._mounts = mounts
        self._picture = picture
        self._base: tuple[Root, Mapping[str, Anchor]] | None = None

    def work(self, batch: Batch) -> Batch:
        """Look at the keys of *batch* until all are done or `BATCH_S` is over."""
        deadline = time.perf_counter() + BATCH_S
        for key, tree, root in batch.items:
            began = time.perf_counter()
            if batch.given_up or (began > deadline and batch.looks):
                break
            again_after_s = None
            try:
                sight, doubtful = self._look(key, tree, root)
            except Exception as error:
                # The tree went away under our hands, or this is a fault of ours; the other entries must not pay for it.
                lacking = is_our_own_lack(error)
                if not lacking:
                    log.exception("entry not looked at", tree=tree.label, entry=printable(key[1]))
                sight, doubtful, again_after_s = None, True, LACK_S if lacking else None
            batch.looks.append(Look(key, sight, time.perf_counter() - began, doubtful, again_after_s))
        return batch

    def _look(self, key: Key, tree: Tree, root: Root) -> tuple[Sight | None, bool]:
        entry = key[1]
        listings: Listings = {}
        stamp = read_stamp(root.path, entry, lasting=True, listings=listings, identity=(root.device, root.inode))
        scan = None
        if key not in self._picture.scans:
            if not self._is_entry(tree, entry, stamp):
                return None, False
            scan = self._memory.recall(tree, entry, stamp)
        if scan is None:
            scan = self._scan(key, tree, listings if root.path == str(tree.path) else None)
        sight = self._sight(key, root, scan, stamp)
        if (stamp is None or scan.offline or self._has_lost(key, scan)) and self._is_other(tree, root):
            return None, True
        return sight, False

    def _has_lost(self, key: Key, scan: EntryScan) -> bool:
        before = self._picture.scans.get(key)
        return before is not None and not {found.path for found in before.models} <= {
            found.path for found in scan.models
        }

    def _is_entry(self, tree: Tree, entry: str, stamp: EntryStamp | None) -> bool:
        """Whether a name that was only heard of is an entry: a folder of a lasting name, or a link that scans count as one."""
        if entry == LOOSE:
            return True
        if stamp is None or is_temporary(entry):
            return False
        return not stamp.dangling or entry in self._list_entries(tree)

    def _scan(self, key: Key, tree: Tree, listings: Listings | None) -> EntryScan:
        try:
            return self._scan_entry(tree, key[1], self._headers, now=time.time(), listings=listings)
        except Exception as error:
            if is_our_own_lack(error):
                raise  # it says nothing of the entry: all is looked at again when the lack is over
            # One entry that brings out a fault of ours must not cost the others.
            log.exception("scan failed", tree=tree.label, entry=printable(key[1]))
            shown = f"{tree.label}/{printable(key[1])}"
            problem = Problem(
                shown, "scan-failed", f"cannot look at {shown}: {error!r}", "this is a fault of jand: please report it"
            )
            before = self._picture.scans.get(key, EntryScan(tree, key[1]))
            return dataclasses.replace(before, problems=(problem,))

    def _sight(self, key: Key, root: Root, scan: EntryScan, stamp: EntryStamp | None) -> Sight:
        base = self._anchor(root)
        before = self._picture.anchors.get(key)
        then = {name: self._place(anchor.path, root) for name, anchor in before.items()} if before else _NOWHERE
        crossings = self._crossings(root, key[1], stamp)
        if stamp is None or not (stamp.targets or crossings):
            return Sight(key, scan, stamp, base, then, polled=stamp is not None and stamp.shared)
        files = {found.path: os.path.realpath(found.file) for found in scan.models}
        anchors = {path: Anchor(file, self._place(file, root)) for path, file in files.items()}
        silent = not all(self._mounts.find(path).has_events for path in crossings)
        polled = silent or bool(stamp.targets) or stamp.shared
        return Sight(key, scan, stamp, {**base, **anchors}, then, polled=polled)

    def _crossings(self, root: Root, entry: str, stamp: EntryStamp | None) -> Collection[str]:
        """Return where other file systems begin within *entry*; one of the same device, as a bind mount is, only the table of mounts knows."""
        points = self._mounts.points_below(root.path)
        if not points:
            return () if stamp is None else stamp.crossings
        top = f"{root.path}/{entry}"
        mounted = {point for point in points if f"{point}/".startswith(f"{top}/")}
        return mounted if stamp is None else {*mounted, *stamp.crossings}

    def _anchor(self, root: Root) -> Mapping[str, Anchor]:
        """Return the anchors of an entry that has none but the tree's: one mapping for all of them."""
        if self._base is None or (self._base[0] is not root and self._base[0] != root):
            self._base = (root, {TREE: Anchor(root.path, (root.mount.point, root.mount.device))})
        return self._base[1]

    def _place(self, path: str, root: Root) -> Place:
        mount = root.mount if path == root.path else self._mounts.find(path)
        return (mount.point, mount.device)

    def _is_other(self, tree: Tree, root: Root) -> bool:
        try:
            found = read_root(str(tree.path), self._mounts)
        except OSError:
            return True
        return isinstance(found, NoRoot) or found.identity != root.identity
