"""What was last said of every entry, and what a new scan means beside it: nothing new, news, or a disk that is away.

Pure: no I/O. An unmounted disk must not take a model away, and what is seen after an unmount is a folder that is empty, missing, or another one. So a model that is not seen any more is gone only
where the place that its file lay in is still there, which its *anchor* tells.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from jand.library.findings import LOOSE
from jand.model.filenames import printable
from jand.model.immutable import immutable
from jand.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.library.findings import EntryScan
    from jand.library.settle import Key
    from jand.library.stamps import EntryStamp

Place: TypeAlias = tuple[str, str]
"""A mount point, and the device that is mounted there."""

TREE: Final = ""
"""The key of the anchor of the tree itself."""


@immutable()
class Anchor:
    """A real path, and the place that it lay in when it was last seen."""

    path: str
    place: Place


@immutable()
class Sight:
    """One look at one entry.

    *anchors* are those of its models, by path as shown, where they may lie elsewhere than the tree, whose own is `TREE`; *then* is where the anchors of the last look lie
    now. *polled*: its changes are not (all) told.
    """

    key: Key
    scan: EntryScan
    stamp: EntryStamp | None
    anchors: Mapping[str, Anchor]
    then: Mapping[str, Place]
    polled: bool = False


@dataclass(slots=True)
class Picture:
    """Belongs to the event loop; other threads may look things up."""

    scans: dict[Key, EntryScan] = field(default_factory=dict)
    stamps: dict[Key, EntryStamp | None] = field(default_factory=dict)
    anchors: dict[Key, Mapping[str, Anchor]] = field(default_factory=dict)
    polled: set[Key] = field(default_factory=set)
    held: set[Key] = field(default_factory=set)
    relinked: set[str] = field(default_factory=set)
    """The labels of trees whose links lead elsewhere than `links` last said."""
    _same: dict[Place, Place] = field(default_factory=dict)

    def take_in(self, sight: Sight) -> EntryScan | None:
        """Remember *sight*; return what is to be told, None where that is nothing new."""
        key, before = sight.key, self.scans.get(sight.key)
        if before is not None and self._is_away(before, sight):
            self.held.add(key)
            told = dataclasses.replace(before, problems=sight.scan.problems or (_away(before),), offline=True)
        else:
            self.held.discard(key)
            told = sight.scan
            self._note_moves(sight)
            self._remember(sight)
        if told == before:
            return None
        if told.exists:
            self.scans[key] = told
        else:
            self._forget(key)
        return told if told.exists or before is not None else None

    def folders(self, label: str) -> dict[str, tuple[int, ...]]:
        """Return the inodes of the folders of every entry of one tree."""
        return {key[1]: stamp.folders for key, stamp in self.stamps.items() if stamp is not None and key[0] == label}

    def keys(self, label: str) -> set[Key]:
        return {key for key in self.scans if key[0] == label}

    def links(self, label: str) -> dict[str, frozenset[str]]:
        """Return where the links of one tree lead, each with the entries that hold them."""
        self.relinked.discard(label)
        links: dict[str, set[str]] = {}
        for key in self.polled:
            stamp = self.stamps.get(key)
            if stamp is not None and key[0] == label:
                for target in stamp.targets:
                    links.setdefault(target, set()).add(key[1])
        return {target: frozenset(entries) for target, entries in links.items()}

    def _is_away(self, before: EntryScan, sight: Sight) -> bool:
        """Whether *sight* shows the absence of a disk and not a change of what lies on it."""
        if sight.scan.offline:
            return True
        known = {found.path for found in before.models}
        seen = {found.path for found in sight.scan.models}
        # Where something new is seen, what is seen is no empty mount point.
        return seen < known and any(self._has_moved(path, sight) for path in known - seen)

    def _has_moved(self, model: str, sight: Sight) -> bool:
        """Whether the place in which *model* lay is another by now."""
        anchors = self.anchors.get(sight.key, {})
        # A name that went from the tree itself says nothing of the disk that it led to.
        anchor_of = model if sight.scan.exists and model in anchors else TREE
        if anchor_of not in anchors:
            return False
        place = anchors[anchor_of].place
        return self._same.get(place, place) != sight.then.get(anchor_of, place)

    def _note_moves(self, sight: Sight) -> None:
        """Learn from a model that is seen again on another device that its disk came back under another number: what else lay there is judged by that."""
        anchors = self.anchors.get(sight.key)
        if anchors is None:
            return
        for model in (found.path for found in sight.scan.models):
            anchor_of = model if model in anchors else TREE
            if anchor_of in anchors and (now := sight.then.get(anchor_of)) not in {None, anchors[anchor_of].place}:
                self._same[anchors[anchor_of].place] = now
                self._same.pop(now, None)

    def _remember(self, sight: Sight) -> None:
        key, before = sight.key, self.stamps.get(sight.key)
        if _targets(before) != _targets(sight.stamp):
            self.relinked.add(key[0])
        self.stamps[key] = sight.stamp
        self.anchors[key] = sight.anchors
        if sight.polled:
            self.polled.add(key)
        else:
            self.polled.discard(key)

    def _forget(self, key: Key) -> None:
        for mapping in (self.scans, self.stamps, self.anchors):
            mapping.pop(key, None)
        self.polled.discard(key)
        self.held.discard(key)


def _targets(stamp: EntryStamp | None) -> tuple[str, ...]:
    return () if stamp is None else stamp.targets


def _away(before: EntryScan) -> Problem:
    path = before.tree.label if before.entry == LOOSE else f"{before.tree.label}/{printable(before.entry)}"
    message = f"cannot read {path}: the disk that it lay on is not mounted"
    return Problem(path, "root-offline", message, "mount it again; its models stay listed until then")
