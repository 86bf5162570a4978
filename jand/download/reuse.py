"""Re-using a file that another program of this machine has: judged as a download would be, then linked into the model's folder.

What is there is read and linked to, never moved, changed or removed. It counts as the file that is sought when everything known of that agrees, its digest first; where nobody states a
digest, repository, path and size must. It must be a whole GGUF that nobody writes to, and nobody but this user and root may be able to change it. Blocks: belongs in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import hashlib
import os
import pwd
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from jand.download import neighbours, place, sweep
from jand.download.naming import checked_name
from jand.download.neighbours import Sought
from jand.download.repository import find_hub_address
from jand.errors import GgufError
from jand.model.gguf import read_header

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jand.download.neighbours import Candidate, Place
    from jand.download.plan import WantedFile
    from jand.download.repository import Listing, Repository
    from jand.model.gguf import Header

log = structlog.get_logger(__name__)

PIECE: Final = 8 << 20
"""How much is hashed at once: each piece is one turn at the interpreter's lock."""

QUIET_S: Final = 3.0
"""For how long a file must not have changed where the system cannot tell whether somebody writes to it."""

_MOST_REMEMBERED: Final = 1024
_CONTROL_ENDING: Final = ".aria2"
"""`NAME` with `NAME.aria2` beside it is not finished, however long it is; the other programs give a file its name at the end."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One file that was linked: *name* in the model's folder is *source*, found in *place*; *inode* and *size* tell it from a later one of that name."""

    name: str
    source: Path
    place: Path
    inode: int
    size: int


class _UnfitError(Exception):
    """A candidate is not used; says why."""


@dataclass(frozen=True, slots=True)
class _Identity:
    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Reuse:
    """*places* are looked at in their order; *endpoint* is the hub whose repositories they hold.

    *has_writer* tells whether somebody has an open file open for writing, None where nobody can tell. What was hashed is remembered for as long as the file does not change.
    """

    def __init__(self, places: Sequence[Place], endpoint: str, has_writer: Callable[[int], bool | None]) -> None:
        self.endpoint = endpoint
        self._places = places
        self._has_writer = has_writer
        self._digests: dict[tuple[_Identity, int], str] = {}

    def offer(self, repository: Repository, digests: Mapping[str, str]) -> Listing:
        """Return what seems to be here of *repository*, as a hub would list it; see `neighbours.offer`."""
        return neighbours.offer(self._places, repository, digests)

    def find_header(self, repository: Repository, path: str, size: int) -> Header | None:
        """Read the header of a file that was offered."""
        for candidate in neighbours.candidates(self._places, Sought(path, repository, size=size)):
            with contextlib.suppress(_UnfitError, OSError), _opened(candidate, self._has_writer) as (_, stream):
                return _whole_header(stream, path)
        return None

    def take(
        self,
        wanted: WantedFile,
        directory: Path,
        *,
        stop: threading.Event,
        on_bytes: Callable[[int], None],
        tidy: bool = True,
    ) -> Taken | None:
        """Link *wanted* into *directory* under its name where this machine has it; None where it has not, or where the name is taken by then.

        *on_bytes* is told how many bytes of the file are checked. *tidy*: what a download of it left is removed. Gives up once *stop* is set.
        """
        sought = self._sought(wanted)
        for candidate in neighbours.candidates(self._places, sought):
            try:
                taken = self._take(candidate, sought, directory, wanted.name, stop, on_bytes)
            except FileNotFoundError:
                continue
            except FileExistsError:
                return None
            except (_UnfitError, OSError) as error:
                log.info("not re-used", file=str(candidate.path), wanted=wanted.name, reason=str(error))
                if stop.is_set():
                    return None
                continue
            if tidy:
                with contextlib.suppress(OSError):
                    sweep.discard_partial(directory, wanted.name)
            return taken
        return None

    def _sought(self, wanted: WantedFile) -> Sought:
        pinned = find_hub_address(wanted.source, self.endpoint) if wanted.on_hub else None
        written = find_hub_address(wanted.url, self.endpoint) if wanted.on_hub else None
        if pinned is None or written is None:
            return Sought(wanted.name, size=wanted.size, sha256=wanted.sha256)
        return Sought(pinned.path, written.repository, pinned.repository.revision, wanted.size, wanted.sha256)

    def _take(
        self,
        candidate: Candidate,
        sought: Sought,
        directory: Path,
        name: str,
        stop: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> Taken:
        with _opened(candidate, self._has_writer) as (source, stream):
            before = os.fstat(stream)
            if sought.size is not None and before.st_size != sought.size:
                message = f"it has {before.st_size} bytes, not {sought.size}"
                raise _UnfitError(message)
            if None not in {sought.sha256, candidate.sha256} and sought.sha256 != candidate.sha256:
                raise _UnfitError("its name says that it is another content")
            _whole_header(stream, name)
            demanded = sought.sha256 or candidate.sha256
            if demanded is not None and (found := self._digest(stream, before, stop, on_bytes)) != demanded:
                message = f"its sha256 is {found}, not {demanded}"
                raise _UnfitError(message)
            after = os.fstat(stream)
            if _state(after) != _state(before) or self._has_writer(stream):
                raise _UnfitError("somebody writes to it")
            identity = _Identity.of(after)
        _link(source, directory, checked_name(name), identity)
        return Taken(name, source, candidate.place.path, identity.inode, identity.size)

    def _digest(
        self, stream: int, status: os.stat_result, stop: threading.Event, on_bytes: Callable[[int], None]
    ) -> str:
        key = (_Identity.of(status), status.st_ctime_ns)
        if (known := self._digests.get(key)) is not None:
            return known
        digest = hashlib.sha256()
        view = memoryview(bytearray(min(PIECE, max(status.st_size, 1))))
        done = 0
        while count := os.preadv(stream, [view], done):
            if stop.is_set():
                raise _UnfitError("it is not wanted any more")
            digest.update(view[:count])
            done += count
            on_bytes(done)
        if len(self._digests) >= _MOST_REMEMBERED:
            self._digests.clear()
        self._digests[key] = found = digest.hexdigest()
        return found


def find_dead(path: Path, taken: Taken) -> bool:
    """Whether *path* is the link that `take` made and what it leads to was deleted, not merely out of reach: its program's place is there."""
    try:
        return path.readlink() == taken.source and not path.exists() and taken.place.is_dir()
    except OSError:
        return False


# Judging.


@contextlib.contextmanager
def _opened(candidate: Candidate, has_writer: Callable[[int], bool | None]) -> Iterator[tuple[Path, int]]:
    """Open what *candidate* leads to, a file that may be used at all; yield its real path and a descriptor. Raises _UnfitError and OSError."""
    top = candidate.place.path.resolve(strict=True)
    source = candidate.path.resolve(strict=True)
    if top not in source.parents:
        raise _UnfitError("it leads out of the folder of its program")
    owners = {0, os.geteuid(), *([top.stat().st_uid] if candidate.place.service else [])}
    for folder in source.parents[: source.parents.index(top) + 1]:
        _check_ours(folder.stat(), owners, f"its folder {folder}")
    if any(Path(f"{path}{_CONTROL_ENDING}").exists() for path in (candidate.path, source)):
        raise _UnfitError("its download has not ended")
    stream = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(stream)
        if not stat.S_ISREG(status.st_mode):
            raise _UnfitError("it is no regular file")
        _check_ours(status, owners, "it")
        writing = has_writer(stream)
        if writing or (writing is None and abs(time.time() - status.st_ctime) < QUIET_S):
            raise _UnfitError("somebody writes to it")
        yield source, stream
    finally:
        os.close(stream)


def _check_ours(status: os.stat_result, owners: set[int], what: str) -> None:
    """Raise _UnfitError for what somebody else may change. A group counts as nobody else where it is this user's own and has no other member."""
    if status.st_uid not in owners:
        message = f"{what} belongs to another user"
        raise _UnfitError(message)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    shared = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid))
    if shared and not sticky:
        message = f"{what} can be changed by other users"
        raise _UnfitError(message)


def _is_private(group_id: int) -> bool:
    """Whether *group_id* is the group of one user alone, ours or root: the systems that make one for each user let it write by default."""
    try:
        group = grp.getgrgid(group_id)
        ours = {pwd.getpwuid(os.geteuid()).pw_name, "root"}
    except KeyError:
        return False
    return group.gr_name in ours and set(group.gr_mem) <= ours


def _whole_header(stream: int, name: str) -> Header:
    size = os.fstat(stream).st_size
    try:
        with os.fdopen(os.dup(stream), "rb") as opened:
            header = read_header(opened, size, name=name)
    except GgufError as error:
        raise _UnfitError(error.message) from error
    if header.size_needed > size:
        message = f"it ends at {size} bytes, its own header demands {header.size_needed}"
        raise _UnfitError(message)
    return header


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


# Linking.


def _link(source: Path, directory: Path, name: str, identity: _Identity) -> None:
    """Give *source* the name *name* in *directory*: hard, where the file system and its rules allow it, else symbolic.

    Both calls are atomic and never replace anything: FileExistsError where the name is taken. Raises _UnfitError where another file had the source's name by then.
    """
    *folders, base = name.split("/")
    root = place.open_directory(directory)
    try:
        parent = place.open_below(root, folders, create=True)
    finally:
        os.close(root)
    try:
        _make_link(source, base, parent)
        made = os.stat(base, dir_fd=parent)
        if _Identity.of(made) != identity:
            os.unlink(base, dir_fd=parent)
            raise _UnfitError("it was replaced while it was looked at")
        os.fsync(parent)
    finally:
        os.close(parent)


def _make_link(source: Path, base: str, parent: int) -> None:
    try:
        os.link(source, base, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:
        # Another file system, another user's file (fs.protected_hardlinks), too many links, a read-only mount, no hard links at all.
        log.debug("no hard link", source=str(source), reason=errno.errorcode.get(error.errno or 0, str(error)))
        os.symlink(source, base, dir_fd=parent)
