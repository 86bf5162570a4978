"""What has been learnt of files, by stamp, so that no file is read twice: GGUF headers (kept over restarts), and for this process alone parsed JSONs and verdicts.

A header's key on the disk is (device, inode, size, mtime_ns); one whose ctime moved is read again all the same, because a rewrite can put the time of the content
back. The file may be deleted at any time, and a damaged or foreign one counts as empty. Safe to use from several threads.
"""

# ruff: noqa: PTH119 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import stat
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog

import jand
from jand import atomic
from jand.errors import GgufError, IncompleteGgufError
from jand.library.findings import Stamp
from jand.model.filenames import printable
from jand.model.gguf import Header, read_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from jand.library.documents import Reading

log = structlog.get_logger(__name__)

MAX_ENTRIES: Final = 65_536
MAX_FILE_BYTES: Final = 64 << 20
RACY_NS: Final = 50_000_000
"""A file that changed this shortly before it was read may change again within the same tick of its clock, so what was read is not kept."""

_FORMAT: Final = "jand-headers-1"
_FIELDS: Final = tuple(each.name for each in dataclasses.fields(Header))
_LONG_TEXT: Final = 64

V = TypeVar("V")
_Key = tuple[int, int, int, int]


def make_stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_racy(stamp: Stamp) -> bool:
    """Whether what is read now may change without a change of its stamp."""
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
    """

    def __init__(self, path: Path | None = None, *, limit: int = MAX_ENTRIES) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._headers: Recent[Header | GgufError] = Recent(limit)
        self._growing: Recent[Header] = Recent(1024)
        self._stored: dict[_Key, tuple[int, list[Any]]] = {}
        self._texts: list[str] = []
        self._changed = False
        self.documents: Recent[Reading] = Recent(limit)
        self.good: dict[tuple[str, str], dict[str, Reading]] = {}
        self.quiet: Recent[bool] = Recent(limit)
        self.foreign: Recent[bool] = Recent(limit)
        self.first_seen: Recent[float] = Recent(1024)
        if path is not None:
            self._load(path)

    def __len__(self) -> int:
        return len(self._stored) + len(self._headers)

    def get(self, path: Path | str, stamp: Stamp) -> Header:
        """Return the header of *path*, whose stamp was *stamp* a moment ago.

        Raises GgufError or a subclass, as `gguf.read_header` does, and OSError. A file that is another by now raises IncompleteGgufError: look at it again.
        """
        known = self.recall(stamp)
        if known is None:
            with open_regular(path) as stream:
                known = self.read(stream, stamp, os.path.basename(path))
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
        """Read the header of *stream* and keep it, or the error that it is."""
        if make_stamp(os.fstat(stream.fileno())) != stamp:
            return IncompleteGgufError(f'cannot use "{name}": it changed while it was looked at', hint="wait a moment")
        found: Header | GgufError
        try:
            found = read_header(stream, stamp.size, name=printable(name))
        except GgufError as error:
            # Kept for as long as the file lies there; its frames would keep megabytes.
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
        if self._path is None or not self._changed:
            return
        self._changed = False
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            atomic.write(self._path, self._dump(), replace=True, mode=0o600)
        except OSError as error:
            log.warning("header cache not written", path=str(self._path), reason=error.strerror)

    def _restore(self, stamp: Stamp) -> Header | None:
        row = self._stored.get((stamp.device, stamp.inode, stamp.size, stamp.mtime_ns))
        if row is None or row[0] != stamp.ctime_ns:
            return None
        try:
            header = Header(**dict(zip(_FIELDS, map(self._unpack, row[1]), strict=True)))
        except (TypeError, ValueError, LookupError):
            return None
        self._headers.keep(stamp, header)
        return header

    def _unpack(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(value)
        return self._texts[value["text"]] if isinstance(value, dict) else value

    def _load(self, path: Path) -> None:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                return
            head, _, body = path.read_bytes().partition(b"\n")
            if head != _head(body):
                return
            content = json.loads(body)
            self._texts = content["texts"]
            self._stored = {tuple(row[:4]): (row[4], row[5:]) for row in content["rows"]}
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            if not isinstance(error, FileNotFoundError):
                log.warning("header cache ignored", path=str(path), reason=str(error))
            self._texts, self._stored = [], {}

    def _dump(self) -> bytes:
        """Write the newest headers that fit; what was loaded and not asked for since comes last: its disk may be away."""
        texts: dict[str, int] = {}
        rows: dict[_Key, str] = {}
        budget = MAX_FILE_BYTES // 2
        for key, ctime_ns, values in self._known():
            if key in rows:
                continue
            before = len(texts)
            row = json.dumps([*key, ctime_ns, *(_pack(value, texts) for value in values)], separators=(",", ":"))
            budget -= len(row) + sum(map(len, islice(reversed(texts), len(texts) - before)))
            if budget < 0 or len(rows) >= MAX_ENTRIES:
                break
            rows[key] = row
        body = f'{{"texts":{json.dumps(list(texts))},"rows":[{",".join(rows.values())}]}}'.encode()
        return _head(body) + b"\n" + body

    def _known(self) -> Iterator[tuple[_Key, int, Iterable[Any]]]:
        for stamp, header in reversed(self._headers.items()):
            if isinstance(header, Header):
                key = (stamp.device, stamp.inode, stamp.size, stamp.mtime_ns)
                yield key, stamp.ctime_ns, [getattr(header, name) for name in _FIELDS]
        for key, (ctime_ns, packed) in self._stored.items():
            if self._headers.find_earlier(Stamp(*key, ctime_ns)) is None:
                yield key, ctime_ns, map(self._unpack, packed)


def _pack(value: Any, texts: dict[str, int]) -> Any:
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return {"text": texts.setdefault(value, len(texts))}
    return value


def _head(body: bytes) -> bytes:
    """Make the first line: this release, with these fields of a header, over exactly this body."""
    digest = hashlib.blake2b(repr((_FIELDS, jand.__version__)).encode() + body, digest_size=16)
    return f"{_FORMAT} {digest.hexdigest()}".encode()


def open_regular(path: Path | str) -> io.FileIO:
    """Open a regular file for reading, raw; never waits for the other end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not a regular file: {os.fspath(path)}")
    return io.FileIO(descriptor)
