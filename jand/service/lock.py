"""One daemon for each root: a lock that the kernel frees with the process, however it ends.

The file stays when the daemon goes (removing it would let two daemons lock two files of one name); only the lock on it counts, never that it is there.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from jand.errors import RootLockedError, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


class RootLock:
    """The lock of the root whose own directory is *own*; held until `release` or the end of the process."""

    def __init__(self, own: Path) -> None:
        self._path = own / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. RootLockedError with the pid of the daemon that holds it; SettingsError where the root cannot be written."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot serve {self._path.parent.parent}: {error.strerror}: {error.filename}"
            raise SettingsError(message, hint="choose a root that you can write: --root DIR", param="root") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            who = f"another daemon (pid {pid}) serves it" if pid else "another daemon serves it"
            message = f"cannot serve {self._path.parent.parent}: {who}"
            raise RootLockedError(
                message, hint="use that one (jand status), stop it, or choose another --root", pid=pid
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
