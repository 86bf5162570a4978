"""A log file that is kept small: it rotates at a size, and a file that was moved or deleted is begun anew.

Every line is one write to a file opened for appending, so a line is whole or lost, and another process that appends spoils nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

MODE: Final = 0o600
MAX_BYTES: Final = 10_000_000
KEEP: Final = 5


class LogFile:
    """Appends to *path* and, before it would become larger than *max_bytes*, renames it to `path.1` (that one to `path.2`, up to *keep*).

    `write` and `flush` belong to one thread; `reopen` may be called from any.
    Raises OSError where *path* cannot be opened.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._stands_for: tuple[int, ...] = ()
        self._descriptor = -1
        self._size = 0
        self._identity = (0, 0)
        self._torn = False
        self._stale = False
        self._open()

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> None:
        """Append *text*. Raises OSError where it is lost."""
        data = text.encode("utf-8", "backslashreplace")
        if self._stale or self._was_moved():
            self._stale = False
            self._open()
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        if self._torn:
            # A full disk took a part of a line: what follows begins on a line of its own.
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        self._size += written
        self._torn = written < len(data)
        if self._torn:
            raise OSError(f"{written} of {len(data)} bytes written")

    def flush(self) -> None:
        """Nothing waits here."""

    def stand_for(self, *descriptors: int) -> None:
        """Let *descriptors* (standard output and error of a daemon) lead here too, now and after each rotation."""
        self._stands_for = descriptors
        for number in descriptors:
            os.dup2(self._descriptor, number)

    def reopen(self) -> None:
        """Open *path* anew before the next line, as whoever renamed it expects."""
        self._stale = True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _was_moved(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._identity

    def _open(self) -> None:
        """Open *path*; the file that was open stays so where that fails."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, MODE)
        found = os.fstat(descriptor)
        self.close()
        self._descriptor = descriptor
        self._identity = (found.st_dev, found.st_ino)
        self._size = found.st_size
        self._torn = False
        self.stand_for(*self._stands_for)

    def _rotate(self) -> None:
        """Rename and begin anew; where the directory does not allow that, go on in the same file and try again after as many bytes."""
        try:
            for number in range(self._keep - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            if self._keep:
                self.path.replace(self._numbered(1))
            else:
                self.path.unlink()
            self._open()
        except OSError:
            self._size = 0

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
