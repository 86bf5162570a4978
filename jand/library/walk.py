"""Which files an entry holds, by name alone: one listing of each folder, nothing opened.

Paths are text, for names may hold bytes that are no UTF-8 (surrogate escapes). Links are followed, once for each folder that they lead to; real folders come first, so that a file is found
under its real name where it has one here.
"""

# ruff: noqa: PTH110, PTH112, PTH114, PTH115, PTH116 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from itertools import filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from jand.errors.scarcity import is_our_own_lack
from jand.library.documents import unreadable
from jand.library.findings import LOOSE
from jand.model import filenames
from jand.model.filenames import Kind
from jand.model.immutable import immutable
from jand.model.problem import Problem, Severity

if TYPE_CHECKING:
    from jand.library.findings import Tree
    from jand.library.stamps import Listings

DEEPEST: Final = 16
MOST_FOLDERS: Final = 10_000
"""Bounds on what one entry can cost: a link to `/` is one entry too."""

_NO_PLACE_FOR_MODELS: Final = ("/proc", "/sys")

_NAME: Final = attrgetter("name")


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir(follow_symlinks=False)
    except OSError:
        return False


_AWAY: Final = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENODEV,
        errno.ENXIO,
    }
)
"""What a disk says that is not there any more, although its folder is."""


@immutable()
class File:
    """*linked*: the file itself is a link, or its folder is reached through one."""

    name: str
    item: os.DirEntry[str]
    linked: bool


@dataclass(slots=True)
class Folder:
    """One folder and what its files' names promise, each list in the order of the names.

    *shown* is the path for people, *parent* the folder in which it was met, *below* are those met in this one that could be listed.
    """

    path: str
    shown: str
    depth: int = 0
    linked: bool = False
    parent: Folder | None = None
    below: list[Folder] = field(default_factory=list)
    jsons: list[File] = field(default_factory=list)
    binaries: list[File] = field(default_factory=list)
    unknown: list[File] = field(default_factory=list)
    controlled: set[str] = field(default_factory=set)

    def list_for(self, kind: Kind) -> list[File]:
        return self.jsons if kind is Kind.JSON else self.binaries if kind is Kind.BINARY else self.unknown


@dataclass(slots=True)
class Walk:
    """*exists* is false where there is no such entry, *offline* true where it cannot be looked at."""

    folders: list[Folder] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    exists: bool = True
    offline: bool = False


def walk(tree: Tree, entry: str, listings: Listings | None = None) -> Walk:
    """List *entry* of *tree*, but for the folders that *listings* has. What cannot be listed is a problem; nothing is raised."""
    root = str(tree.path)
    if entry == LOOSE:
        return _Walker(root, only_files=True).take(Folder(root, tree.label))
    path = f"{root}/{entry}"
    walker = _Walker(root, listings)
    shown = f"{tree.label}/{filenames.printable(entry)}"
    try:
        found = os.lstat(path)
        linked = stat.S_ISLNK(found.st_mode)
        if linked:
            found = os.stat(path)
    except OSError as error:
        return _without_top(root, path, shown, error)
    if linked and _leads_astray(path, root):
        return Walk(problems=[_wide_link(path, shown)])
    walker.seen.add((found.st_dev, found.st_ino))
    return walker.take(Folder(path, shown, linked=linked))


def _without_top(root: str, path: str, shown: str, error: OSError) -> Walk:
    """Say what it means that the top of an entry cannot be looked at: gone, or only away."""
    if not os.path.isdir(root):
        return Walk(offline=True)
    if os.path.islink(path):
        return Walk(problems=[_broken_link(path, shown)], offline=True)
    if error.errno in _AWAY:
        return Walk(problems=[unreadable(shown, error)], offline=True)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Walk(exists=False)
    return Walk(problems=[unreadable(shown, error)])


def _leads_astray(link: str, root: str) -> bool:
    """Whether *link* leads to a folder that holds the tree itself, or to where the kernel shows its own state: everything there would be taken for models."""
    real = os.path.realpath(link)
    holds_tree = f"{os.path.realpath(root)}/".startswith(f"{real.rstrip('/')}/") and os.path.realpath(root) != real
    return holds_tree or any(real == place or real.startswith(f"{place}/") for place in _NO_PLACE_FOR_MODELS)


def _wide_link(path: str, shown: str) -> Problem:
    target = filenames.printable(os.path.realpath(path))
    message = f"cannot follow the link {shown}: {target} is no folder of models"
    return Problem(shown, "wide-link", message, "link to the folder that holds the model")


def _no_file(shown: str, cause: str) -> Problem:
    return Problem(shown, "not-a-file", f"cannot read {shown}: {cause}", "put a file in its place, or remove it")


def _broken_link(path: str, shown: str) -> Problem:
    try:
        target = filenames.printable(os.readlink(path))
    except OSError:
        target = "what it points to"
    message = f"cannot follow the link {shown}: {target} is not there"
    return Problem(shown, "broken-link", message, "mount the disk that it leads to, or remove the link")


class _Walker:
    def __init__(self, root: str, listings: Listings | None = None, *, only_files: bool = False) -> None:
        self._root = root
        self._listings = listings or {}
        self._only_files = only_files
        self._root_seen = False
        self._walk = Walk()
        self._real: deque[Folder] = deque()
        self._linked: deque[Folder] = deque()
        self.seen: set[tuple[int, int]] = set()

    def take(self, top: Folder) -> Walk:
        self._real.append(top)
        while queue := self._real or self._linked:
            folder = queue.popleft()
            if folder is not top and not self._is_new(folder):
                continue
            if len(self._walk.folders) >= MOST_FOLDERS:
                self._limit(top.shown, "too-large", f"it has more than {MOST_FOLDERS:,} folders")
                break
            if self._list(folder):
                self._walk.folders.append(folder)
                if folder.parent is not None:
                    folder.parent.below.append(folder)
        return self._walk

    def _is_new(self, folder: Folder) -> bool:
        if folder.linked and not self._root_seen:
            # A link back to the tree itself would lead through all other entries.
            self._root_seen = True
            self._note(self._root)
        return self._note(folder.path)

    def _note(self, path: str) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        identity = (found.st_dev, found.st_ino)
        new = identity not in self.seen
        self.seen.add(identity)
        return new

    def _list(self, folder: Folder) -> bool:
        listed = self._listings.get(folder.path)
        if listed is None:
            try:
                with os.scandir(folder.path) as items:
                    # Beside the loose files of a tree lie all its folders, which are entries of their own.
                    listed = [*filterfalse(_is_folder, items)] if self._only_files else [*items]
            except OSError as error:
                if is_our_own_lack(error):
                    raise
                self._note_unlisted(folder, error)
                return False
        for item in sorted(listed, key=_NAME):
            try:
                self._sort(folder, item)
            except OSError as error:
                self._walk.problems.append(unreadable(f"{folder.shown}/{filenames.printable(item.name)}", error))
        return True

    def _note_unlisted(self, folder: Folder, error: OSError) -> None:
        gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        if folder.depth == 0:
            # The loose files have no folder of their own: where it is gone, so is the whole tree.
            self._walk.offline = error.errno in _AWAY or (gone and self._only_files)
            self._walk.exists = not gone or self._only_files
        if not gone:
            self._walk.problems.append(unreadable(folder.shown, error))

    def _sort(self, folder: Folder, item: os.DirEntry[str]) -> None:
        """Put one item of *folder* where its name says."""
        name = item.name
        kind = filenames.kind(name)
        if item.is_file():
            if kind is not Kind.OTHER:
                file = File(name, item, item.is_symlink() or folder.linked)
                folder.list_for(kind).append(file)
            elif name.endswith(filenames.CONTROL_ENDING):
                folder.controlled.add(name[: -len(filenames.CONTROL_ENDING)])
        elif item.is_dir():
            if not self._only_files and not filenames.is_temporary(name):
                self._descend(folder, item)
        elif kind is not Kind.OTHER:
            self._sort_odd(folder, item, kind)

    def _descend(self, folder: Folder, item: os.DirEntry[str]) -> None:
        shown = f"{folder.shown}/{filenames.printable(item.name)}"
        linked = item.is_symlink()
        if linked and _leads_astray(item.path, self._root):
            self._walk.problems.append(_wide_link(item.path, shown))
        elif folder.depth == DEEPEST:
            self._limit(shown, "too-deep", f"it lies more than {DEEPEST} folders deep")
        else:
            below = Folder(item.path, shown, folder.depth + 1, linked or folder.linked, folder)
            (self._linked if linked else self._real).append(below)

    def _sort_odd(self, folder: Folder, item: os.DirEntry[str], kind: Kind) -> None:
        """Say what is wrong with something that is neither file nor folder; a binary's link that leads nowhere still holds its place."""
        shown = f"{folder.shown}/{filenames.printable(item.name)}"
        if not item.is_symlink():
            if kind is not Kind.UNKNOWN:
                self._walk.problems.append(_no_file(shown, "it is no regular file"))
        elif kind is Kind.BINARY:
            folder.binaries.append(File(item.name, item, linked=True))
        elif os.path.exists(item.path):
            target = filenames.printable(os.path.realpath(item.path))
            self._walk.problems.append(_no_file(shown, f"{target} is neither a file nor a folder"))
        elif kind is Kind.JSON or (not self._only_files and "." not in item.name):
            # Directly in a tree, a link without an ending is an entry of its own, which says so itself.
            self._walk.problems.append(_broken_link(item.path, shown))

    def _limit(self, shown: str, code: str, cause: str) -> None:
        message = f"cannot look through all of {shown}: {cause}"
        self._walk.problems.append(
            Problem(shown, code, message, "move what belongs to a model further up", severity=Severity.WARNING)
        )
