"""One file on its way: its bytes so far, a running digest of them, and notes; in a hidden folder inside the model's own, until it is whole, verified and renamed.

Every method blocks and is called from the one thread that a transfer has for it; `hash` alone may be called from another, a few pieces behind `write`. The bytes are the truth:
how far a download came is the size of the partial, whatever the notes say, and a partial that is gone on is hashed again first.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import TypeAdapter, ValidationError

from jand.download import place
from jand.download.naming import NOTES_ENDING, PARTIAL_ENDING, PARTIAL_FOLDER, partial_stem
from jand.errors import IncompleteGgufError, PartialInUseError
from jand.model.gguf import read_header

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

PIECE: Final = 8 << 20
"""How much is hashed at once when a partial is gone on: each piece is one turn at the interpreter's lock, and small ones starve beside a busy thread."""

STEP: Final = 512 << 10
"""How much one thread writes and then hashes: what still lies in the processor's cache for the second."""

_LOOK_EVERY: Final = 32 << 20
_LOOK_AFTER_S: Final = 1.0
_LARGEST_NOTES: Final = 64 << 10

_SYNC_DATA: Final = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class Notes:
    """Where a partial comes from. *etag* is the strong tag that its server gave; *owners* are the models that wanted it last; *orphaned_at* a Unix time in seconds."""

    source: str
    sha256: str | None = None
    size: int | None = None
    etag: str | None = None
    owners: tuple[str, ...] = ()
    started_at: float = 0.0
    orphaned_at: float | None = None


_NOTES: Final = TypeAdapter(Notes)


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class FileArrivedError(Exception):
    """A file with the final name came from elsewhere: it wins."""


class PartialGoneError(Exception):
    """Somebody deleted the partial while it was written."""


class WrongBytesError(Exception):
    """The bytes are not those announced; says what was expected and found."""


class Partial:
    """The partial of *name* in *directory*, opened and closed as often as needed.

    While open, *size* bytes are there; *hashed* says whether the digest covers them all, which a close and an open keep where nobody touched the file between.
    """

    def __init__(
        self, directory: Path, name: str, *, stem: str | None = None, digest: Callable[[], Digest] = hashlib.sha256
    ) -> None:
        """*stem* is what the partial is called where it is not to be the one that a download of *name* goes on with; *digest* begins a sha256."""
        self.name = name
        self.size = 0
        self.notes: Notes | None = None
        self._directory = directory
        self._stem = partial_stem(name) if stem is None else stem
        self._new_digest = digest
        self._digest = digest()
        self._digested = -1
        """How many of the bytes the digest covers; fewer than none where they may be others."""
        self._root = self._folder = self._file = -1
        self._left: tuple[int, int, int] | None = None
        self._looked_at = 0.0
        self._looked_bytes = 0
        self._broken = False

    @property
    def descriptor(self) -> int:
        """Of a directory on the device that is written to."""
        return self._root

    def open(self) -> None:
        """Make or find the partial, for this process alone; raise PartialInUseError, or OSError also where a link is in the way."""
        self._root = place.open_directory(self._directory)
        self._folder, self._file = self._open_file()
        status = os.fstat(self._file)
        if status.st_nlink != 1 or not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ELOOP, "its partial is no file of its own", self.name)
        self._lock()
        if status.st_size == 0:
            self._begin_digest()
        elif self._left != _identity(status):
            self._digested = -1
        self.size = self._looked_bytes = status.st_size
        self.notes = read_notes(self._folder, self._stem)

    def _open_file(self) -> tuple[int, int]:
        """Return descriptors of the hidden folder and of the partial in it. Another one that is done may remove the folder at any instant before this one lies in it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            place.ensure_directory(PARTIAL_FOLDER, self._root)  # which ends this where the model's own folder is gone
            with contextlib.ExitStack() as on_error, contextlib.suppress(FileNotFoundError):
                folder = place.open_below(self._root, [PARTIAL_FOLDER], create=False)
                on_error.callback(os.close, folder)
                file = os.open(self._stem + PARTIAL_ENDING, flags, 0o666, dir_fd=folder)
                on_error.pop_all()
                return folder, file

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"cannot download {self.name}: another process is writing it"
            raise PartialInUseError(message, hint="let one daemon serve this root", retry_after_s=60.0) from error
        except OSError:
            return  # a file system without locks; the root's lock keeps daemons apart

    def close(self) -> None:
        """Let go of everything; idempotent."""
        if self._file >= 0:
            self._left = None if self._broken else _identity(os.fstat(self._file))
        self._broken = False
        for descriptor in (self._file, self._folder, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._folder = self._root = -1

    @property
    def hashed(self) -> bool:
        return self._digested == self.size

    def _begin_digest(self) -> None:
        self._digest = self._new_digest()
        self._digested = 0

    def rehash(self, stop: threading.Event) -> None:
        """Bring the digest up to what is there; return early once *stop* is set."""
        self._begin_digest()
        buffer = bytearray(min(PIECE, max(self.size, 1)))
        view = memoryview(buffer)
        done = 0
        while done < self.size and not stop.is_set():
            count = os.preadv(self._file, [view[: min(len(buffer), self.size - done)]], done)
            if count == 0:
                break
            self._digest.update(view[:count])
            self._digested = done = done + count
        if not stop.is_set():
            self.size = done

    def append(self, chunk: bytes | memoryview) -> None:
        """Write and hash *chunk*; raise what `write` does."""
        view = memoryview(chunk)
        for start in range(0, len(view), STEP):
            step = view[start : start + STEP]
            try:
                self.write(step)
            finally:
                self.hash(step)

    def write(self, chunk: memoryview) -> None:
        """Write *chunk*, which `hash` is to be given next; raise FileArrivedError or PartialGoneError, looked for every second, or OSError with what was written kept.

        After an error nothing more is written until it is opened anew: chunks that were handed over behind the one that failed would leave a gap.
        """
        if self._broken:
            return
        self._broken = True
        while chunk:
            count = os.write(self._file, chunk)
            self.size += count
            chunk = chunk[count:]
        now = time.monotonic()
        if now - self._looked_at > _LOOK_AFTER_S or self.size - self._looked_bytes > _LOOK_EVERY:
            place.begin_writeback(self._file, self._looked_bytes, self.size - self._looked_bytes)
            self._looked_at, self._looked_bytes = now, self.size
            self.look()
        self._broken = False

    def hash(self, chunk: memoryview) -> None:
        """Hash of *chunk* what `write` wrote of it. To be called for each chunk, in order, after its `write` has ended, whether well or not; later chunks may be written already."""
        written = chunk[: max(0, self.size - self._digested)]
        self._digest.update(written)
        self._digested += len(written)

    def look(self) -> None:
        """Notice that the partial was deleted, or that the file came from elsewhere."""
        if os.fstat(self._file).st_nlink == 0:
            raise PartialGoneError
        self.raise_if_arrived()

    def raise_if_arrived(self) -> None:
        folder, _, base = self.name.rpartition("/")
        try:
            parent = place.open_below(self._root, folder.split("/") if folder else [], create=False)
        except FileNotFoundError:
            return
        try:
            if place.exists(base, parent):
                raise FileArrivedError
        finally:
            os.close(parent)

    def reset(self) -> None:
        """Begin at nothing again."""
        os.ftruncate(self._file, 0)
        self.size = self._looked_bytes = 0
        self._broken = False
        self._begin_digest()

    def note(self, notes: Notes) -> None:
        """Write the notes, where they are new; they are a hint, so nobody waits for the disk."""
        if notes == self.notes:
            return
        started = self.notes.started_at if self.notes else time.time()
        self.notes = replace(notes, started_at=notes.started_at or started)
        write_notes(self._folder, self._stem, self.notes)

    def verify(self, size: int | None, sha256: str | None) -> None:
        """Judge the whole; raise WrongBytesError for a wrong size or digest, and what `read_header` raises for what is no GGUF."""
        self.verify_announced(size, sha256)
        self.verify_header()

    @property
    def digest(self) -> str:
        """The sha256 of what is there, in hexadecimal digits."""
        return self._digest.hexdigest()

    def verify_announced(self, size: int | None, sha256: str | None) -> None:
        if size is not None and self.size != size:
            message = f"it has {self.size} bytes, {size} were announced"
            raise WrongBytesError(message)
        if sha256 is not None and self.digest != sha256:
            message = f"its sha256 is {self.digest}, {sha256} was announced"
            raise WrongBytesError(message)

    def verify_header(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as stream:
            stream.seek(0)
            header = read_header(stream, self.size, name=self.name)
        if header.size_needed > self.size:
            message = f"it ends at {self.size} bytes, its own header demands {header.size_needed}"
            raise IncompleteGgufError(message)

    def finish(self) -> None:
        """Give the verified file its name, durably; raise FileArrivedError where the name is taken, and keep that file."""
        self.look()
        _SYNC_DATA(self._file)
        folder, _, base = self.name.rpartition("/")
        parent = place.open_below(self._root, folder.split("/") if folder else [], create=True)
        try:
            place.rename_no_replace(self._stem + PARTIAL_ENDING, self._folder, base, parent)
            os.fsync(parent)
        except FileExistsError as error:
            raise FileArrivedError from error
        finally:
            os.close(parent)
        self.discard()

    def discard(self) -> None:
        """Remove what is left of the partial, its notes, and the hidden folder once it is empty."""
        if self._folder < 0:
            return
        for ending in (PARTIAL_ENDING, NOTES_ENDING):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._stem + ending, dir_fd=self._folder)
        remove_if_empty(self._root)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def remove_if_empty(root: int) -> None:
    """Remove the hidden folder in the directory *root* where nothing is in it any more."""
    with contextlib.suppress(OSError):
        os.rmdir(PARTIAL_FOLDER, dir_fd=root)


def read_notes(folder: int, stem: str) -> Notes | None:
    """Read the notes of a partial; None where there are none that can be understood."""
    try:
        descriptor = os.open(
            stem + NOTES_ENDING, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError:
        return None
    try:
        with os.fdopen(descriptor, "rb") as stream:
            return _NOTES.validate_json(stream.read(_LARGEST_NOTES))
    except (OSError, ValidationError):
        return None


def write_notes(folder: int, stem: str, notes: Notes) -> None:
    temporary = stem + NOTES_ENDING + "~"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as stream:
        stream.write(_NOTES.dump_json(notes))
    os.rename(temporary, stem + NOTES_ENDING, src_dir_fd=folder, dst_dir_fd=folder)
