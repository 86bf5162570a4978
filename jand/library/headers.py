"""What has been learnt of files, by stamp, so that no file is read twice: GGUF headers (kept over restarts), and for this process alone parsed JSONs and verdicts.

The key of a header is device, inode, size and mtime, and the ctime besides, because a rewrite can put the time of the content back. The file may be deleted at any time. Safe to use from
several threads.
"""

# ruff: noqa: PTH119 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import io
import os
import stat
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import structlog

from jand import atomic
from jand.errors import GgufError, IncompleteGgufError
from jand.library import header_file
from jand.library.findings import Stamp
from jand.library.header_file import StoredHeaders
from jand.library.stamps import RACY_NS
from jand.model.filenames import printable
from jand.model.gguf import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jand.library.documents import Reading
    from jand.library.findings import EntryScan

log = structlog.get_logger(__name__)

MAX_ENTRIES: Final = 65_536

V = TypeVar("V")


def make_stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_racy(stamp: Stamp) -> bool:
    """Whether what is read now may change without a change of its stamp, and so is not to be kept."""
    return 0 <= time.time_ns() - max(stamp.mtime_ns, stamp.ctime_ns) < RACY_NS


class Recent(Generic[V]):
    """A mapping by stamp that forgets what was learnt first. The newest stamp of an inode alone is kept, so a growing file leaves nothing behind."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._values: dict[tuple[int, int], tuple[Stamp, V]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def find(self, stamp: Stamp) -> V | None:
        """Find the value of exactly *stamp*, None for any other content of the file."""
        known = self._values.get((stamp.device, stamp.inode))
        return known[1] if known is not None and known[0] == stamp else None

    def find_earlier(self, stamp: Stamp) -> tuple[Stamp, V] | None:
        """Find what is known of the file of *stamp*, be it of another content."""
        return self._values.get((stamp.device, stamp.inode))

    def keep(self, stamp: Stamp, value: V) -> None:
        with self._lock:
            self._values.pop((stamp.device, stamp.inode), None)
            self._values[stamp.device, stamp.inode] = (stamp, value)
            if len(self._values) > self._limit:
                for key in list(islice(self._values, self._limit // 8 + 1)):
                    del self._values[key]

    def items(self) -> list[tuple[Stamp, V]]:
        with self._lock:
            return list(self._values.values())


class HeaderCache:
    """Reads headers through; *path* is where they are kept, None for nowhere.

    The rest belongs to those who judge files: *documents* are parsed JSONs and *good* those that were models at the last scan, by tree and entry and shown path; *quiet* are stamps at which nobody was writing any more,
    *foreign* those of files that are no binary, *first_seen* when a stamp from the future was seen first (monotonic seconds).
    *lessons* are scans of an earlier life, by tree and entry, whose files nobody has looked at again: *teach* is given one when that is about to happen.
    """

    def __init__(self, path: Path | None = None, *, limit: int = MAX_ENTRIES) -> None:
        self.path = path
        self._limit = limit
        self._headers: Recent[Header | GgufError] = Recent(limit)
        self._growing: Recent[Header] = Recent(1024)
        self._stored_: StoredHeaders | None = None
        self._changed = False
        self.documents: Recent[Reading] = Recent(limit)
        self.good: dict[tuple[str, str], dict[str, Reading]] = {}
        self.quiet: Recent[bool] = Recent(limit)
        self.foreign: Recent[bool] = Recent(limit)
        self.first_seen: Recent[float] = Recent(1024)
        self.lessons: dict[tuple[str, str], EntryScan] = {}
        self.teach: Callable[[EntryScan], None] | None = None

    @property
    def _stored(self) -> StoredHeaders:
        """What the file holds, read when somebody asks: a start that finds everything as it was does not."""
        if self._stored_ is None:
            self._stored_ = StoredHeaders([], {}) if self.path is None else header_file.load(self.path)
        return self._stored_

    def learn(self, label: str, entry: str) -> None:
        """Know of the files of *entry*, of the tree of that *label*, what an earlier life of the daemon knew."""
        lesson = self.lessons.pop((label, entry), None)
        if lesson is not None and self.teach is not None:
            self.teach(lesson)

    def keep(self, stamp: Stamp, header: Header, *, quiet: bool) -> None:
        """Know that the file of *stamp* has *header*, and whether nobody was writing to it."""
        self._headers.keep(stamp, header)
        if quiet:
            self.quiet.keep(stamp, True)

    def __len__(self) -> int:
        return len(self._stored) + len(self._headers)

    def get(self, path: Path | str, stamp: Stamp) -> Header:
        """Return the header of *path*, whose stamp was *stamp* a moment ago.

        Raises GgufError or a subclass, as `gguf.read_header` does, and OSError. A file that is another by now raises IncompleteGgufError: look at it again.
        """
        known = self.recall(stamp)
        if known is None:
            stream, status = open_regular(path)
            with stream:
                name = os.path.basename(path)
                if make_stamp(status) != stamp:
                    message = f'cannot use "{printable(name)}": it changed while it was looked at'
                    raise IncompleteGgufError(message, hint="wait a moment")
                known = self.read(stream, stamp, name)
        if isinstance(known, GgufError):
            raise known
        return known

    def recall(self, stamp: Stamp) -> Header | GgufError | None:
        """Return what is known of the content at *stamp* without touching the disk."""
        known = self._headers.find(stamp)
        if known is None:
            known = self._restore(stamp)
        return known

    def find_growing(self, stamp: Stamp) -> Header | None:
        """Return the header that the file of *stamp* had when it was shorter: good enough until whoever writes it is done."""
        earlier = self._growing.find_earlier(stamp)
        return earlier[1] if earlier is not None and earlier[0].size <= stamp.size else None

    def read(self, stream: io.FileIO, stamp: Stamp, name: str) -> Header | GgufError:
        """Read the header of *stream*, whose file has *stamp*, and keep it, or the error that it is."""
        found: Header | GgufError
        try:
            found = read_header(stream, stamp.size, name=printable(name))
        except GgufError as error:
            # Kept for as long as the file lies there, without the frames that hold its bytes.
            error.__context__ = error.__cause__ = None
            found = error.with_traceback(None)
        if is_racy(stamp):
            if isinstance(found, Header):
                self._growing.keep(stamp, found)
        else:
            self._headers.keep(stamp, found)
            self._changed = True
        return found

    def save(self) -> None:
        """Write what is known to the disk, atomically; a disk that takes no writes costs the cache, never the caller."""
        if self.path is None or not self._changed:
            return
        self._changed = False
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            newest_first = reversed(self._headers.items())
            known = [
                (stamp, header, self.quiet.find(stamp) is not None)
                for stamp, header in newest_first
                if isinstance(header, Header)
            ]
            content = header_file.dump(known, self._stored, limit=self._limit)
            atomic.write(self.path, content, replace=True, mode=0o600)
        except OSError as error:
            log.warning("header cache not written", path=str(self.path), reason=error.strerror)

    def _restore(self, stamp: Stamp) -> Header | None:
        stored = self._stored.take(stamp)
        if stored is None:
            return None
        header, quiet = stored
        # Whoever began to write since has not written yet, or the stamp would be another.
        self.keep(stamp, header, quiet=quiet)
        return header


def open_regular(path: Path | str) -> tuple[io.FileIO, os.stat_result]:
    """Open a regular file for reading, raw, and return its status too; never waits for the other end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return io.FileIO(descriptor), status
