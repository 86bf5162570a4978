"""What tells one content of an entry from another, without reading a file: the cheap half of a scan.

One walk with `lstat`, following links as scans do. Equal stamps mean that nothing has changed; the walk also notes what no watch will tell: links, hard links, other file systems. Our own
temporary names leave no trace in a stamp. Everything here blocks for disk I/O.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from jand.library.findings import LOOSE
from jand.model.immutable import immutable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OWN_PREFIX: Final = ".jand-"
"""Names that jand itself gives, for a moment (cookies, files that are being written) or for longer (partial downloads)."""

RACY_NS: Final = 50_000_000
"""What changed this shortly before it was looked at may change again within the same tick of its clock."""

MOST_ITEMS: Final = 100_000
DEEPEST: Final = 16
"""Bounds on what a link to somewhere large can cost; what lies beyond is not compared."""


_KINDS: Final = 0o170000
_REGULAR: Final = stat.S_IFREG
_FOLDER: Final = stat.S_IFDIR

Listings: TypeAlias = "dict[str, list[os.DirEntry[str]]]"
"""What folders held, by their real paths, with the status of each item as a listing has it: who scans what was just stamped need not ask again."""


@immutable()
class EntryStamp:
    """*value* is the same while nothing changes. *folders* are the inodes that a watch of this entry must hold.

    *lasting* says the same as *value*, but also to later processes, where that was asked for; it is empty where it proves nothing, because of links or of something that changed a moment ago.

    *targets* are the real paths to which its links lead, *crossings* the first folder on each other file system; *shared* says that one of its files has another
    name somewhere, through which it may be written to without an event here. *dangling*: it is itself a link that leads nowhere.
    """

    value: int
    folders: tuple[int, ...] = ()
    targets: tuple[str, ...] = ()
    crossings: tuple[str, ...] = ()
    shared: bool = False
    lasting: bytes = field(default=b"", compare=False)
    dangling: bool = False

    @property
    def needs_polling(self) -> bool:
        return bool(self.targets) or self.shared


@dataclass(slots=True)
class _Walk:
    device: int
    root: tuple[int, int]
    facts: list[tuple[str, *tuple[int, ...]]] = field(default_factory=list)
    folders: list[int] = field(default_factory=list)
    targets: set[str] = field(default_factory=set)
    crossings: list[str] = field(default_factory=list)
    devices: set[int] = field(default_factory=set)
    seen: set[tuple[int, int]] = field(default_factory=set)
    shared: bool = False
    dangling: bool = False
    newest_ns: int = 0
    listings: Listings | None = None

    def stamp(self, *, lasting: bool) -> EntryStamp:
        self.facts.sort()
        return EntryStamp(
            hash(tuple(self.facts)),
            tuple(self.folders),
            tuple(sorted(self.targets)),
            tuple(self.crossings),
            self.shared,
            _digest(self.facts) if lasting and self._proves() else b"",
            self.dangling,
        )

    def _proves(self) -> bool:
        """Whether nothing here can change without another stamp."""
        if self.targets or self.crossings or self.shared or len(self.facts) >= MOST_ITEMS:
            return False
        return time.time_ns() - self.newest_ns > RACY_NS


def read_stamp(
    root: str,
    entry: str,
    *,
    lasting: bool = False,
    listings: Listings | None = None,
    identity: tuple[int, int] | None = None,
) -> EntryStamp | None:
    """Return the stamp of *entry* below *root*; None where there is no such entry (never so for the loose files while *root* can be read).

    *lasting*: one for later processes too. Into *listings* go those of the entry's real folders, where they are wanted. *identity* is the device and the inode of *root*, for who knows them.
    """
    if identity is None:
        try:
            above = os.stat(root)  # noqa: PTH116 - paths are text here: names may hold bytes that are no UTF-8
        except OSError:
            return None
        identity = (above.st_dev, above.st_ino)
    return _read_stamp(root, identity, entry, lasting=lasting, listings=listings)


def read_stamps(root: str, entries: Iterable[str]) -> Iterator[EntryStamp | None]:
    """Yield the stamps of several entries, one by one."""
    try:
        above = os.stat(root)  # noqa: PTH116 - as above
    except OSError:
        yield from (None for _ in entries)
        return
    for entry in entries:
        yield _read_stamp(root, (above.st_dev, above.st_ino), entry, lasting=False, listings=None)


def _read_stamp(
    root: str, identity: tuple[int, int], entry: str, *, lasting: bool, listings: Listings | None
) -> EntryStamp | None:
    try:
        if entry != LOOSE:
            plain = _read_plain(f"{root}/{entry}", entry, identity[0], lasting=lasting, listings=listings)
            if plain is not None:
                return plain
        walk = _Walk(identity[0], identity, listings=listings)
        if entry == LOOSE:
            _note_items(walk, root, "", depth=DEEPEST, linked=False)
        else:
            _note_entry(walk, f"{root}/{entry}", entry)
    except OSError:
        return None
    return walk.stamp(lasting=lasting)


def _read_plain(path: str, name: str, device: int, *, lasting: bool, listings: Listings | None) -> EntryStamp | None:
    """Read the stamp of a folder of files without anything odd, as most are; None where there is more to it, and all of it is to be noted with care."""
    found = os.lstat(path)
    if found.st_mode & _KINDS != _FOLDER or found.st_dev != device:
        return None
    newest_ns = 0
    facts: list[tuple[str, *tuple[int, ...]]] = [(name, found.st_mode, device, found.st_ino)]
    try:
        with os.scandir(path) as items:
            listed = list(items)
        for item in listed:
            own = item.name
            if own.startswith(OWN_PREFIX):
                continue
            status = item.stat(follow_symlinks=False)
            mode, mtime_ns, ctime_ns = status.st_mode, status.st_mtime_ns, status.st_ctime_ns
            if mode & _KINDS != _REGULAR or status.st_nlink > 1:
                return None
            newest_ns = max(newest_ns, mtime_ns, ctime_ns)
            facts.append((f"{name}/{own}", mode, status.st_dev, status.st_ino, status.st_size, mtime_ns, ctime_ns))
    except OSError:
        return None
    if len(facts) >= MOST_ITEMS:
        return None
    if listings is not None:
        listings[path] = listed
    facts.sort()
    proves = lasting and time.time_ns() - newest_ns > RACY_NS
    return EntryStamp(hash(tuple(facts)), (found.st_ino,), lasting=_digest(facts) if proves else b"")


def _digest(facts: list[tuple[str, *tuple[int, ...]]]) -> bytes:
    # Version 2 of the format writes equal values alike, whichever of them are the same object.
    return hashlib.blake2b(marshal.dumps(facts, 2), digest_size=16).digest()


def _note_entry(walk: _Walk, path: str, name: str) -> None:
    found = os.lstat(path)
    linked = stat.S_ISLNK(found.st_mode)
    if linked:
        walk.targets.add(os.path.realpath(path))
        try:
            found = os.stat(path)  # noqa: PTH116
        except OSError as error:
            walk.dangling = True
            walk.facts.append((name, found.st_ino, found.st_ctime_ns, error.errno or 0))
            return
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(path)
    _note_folder(walk, path, found, name, depth=0, linked=linked)


def _note_folder(walk: _Walk, path: str, found: os.stat_result, name: str, *, depth: int, linked: bool) -> None:
    """Note one folder and all below it, once, by whatever names it is reached."""
    identity = (found.st_dev, found.st_ino)
    if identity in walk.seen or (depth > 0 and identity == walk.root):
        return
    walk.seen.add(identity)
    walk.facts.append((name, found.st_mode, found.st_dev, found.st_ino))
    if found.st_dev == walk.device:
        if not linked:
            walk.folders.append(found.st_ino)
    elif found.st_dev not in walk.devices:
        walk.devices.add(found.st_dev)
        walk.crossings.append(path)
    try:
        _note_items(walk, path, name, depth=depth, linked=linked)
    except OSError as error:
        walk.facts.append((name, error.errno or 0))


def _note_items(walk: _Walk, path: str, name: str, *, depth: int, linked: bool) -> None:
    with os.scandir(path) as items:
        listed = list(items)
    if walk.listings is not None and not linked and depth < DEEPEST:
        walk.listings[path] = listed
    facts = walk.facts
    for item in listed:
        if item.name.startswith(OWN_PREFIX):
            continue
        if len(facts) >= MOST_ITEMS:
            break
        try:
            if depth >= DEEPEST and item.is_dir(follow_symlinks=False):
                continue  # the listing says what it is: thousands of folders beside the loose files cost no status each
            found = item.stat(follow_symlinks=False)
            mode = found.st_mode
            if stat.S_IFMT(mode) != _REGULAR:
                _note_odd(walk, item, found, f"{name}/{item.name}", depth=depth, linked=linked)
            else:
                _note_file(walk, found, f"{name}/{item.name}", linked=linked)
        except OSError as error:
            # It went away between the listing and now, leads nowhere, or cannot be read.
            facts.append((name, error.errno or 0))


def _note_odd(
    walk: _Walk, item: os.DirEntry[str], found: os.stat_result, name: str, *, depth: int, linked: bool
) -> None:
    """Note what is no regular file, by itself."""
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFLNK:
        target = os.path.realpath(item.path)
        walk.facts.append((name, found.st_ino, found.st_ctime_ns, hash(target)))
        if depth < DEEPEST or not item.is_dir():
            walk.targets.add(target)
        linked, found = True, item.stat()
        kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFDIR:
        _note_file(walk, found, name, linked=linked)
    elif depth < DEEPEST:
        _note_folder(walk, item.path, found, name, depth=depth + 1, linked=linked)


def _note_file(walk: _Walk, found: os.stat_result, name: str, *, linked: bool) -> None:
    mtime_ns, ctime_ns = found.st_mtime_ns, found.st_ctime_ns
    if found.st_nlink > 1 and not linked:
        walk.shared = True
    walk.newest_ns = max(walk.newest_ns, mtime_ns, ctime_ns)
    walk.facts.append((name, found.st_mode, found.st_dev, found.st_ino, found.st_size, mtime_ns, ctime_ns))
