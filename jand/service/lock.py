"""Pid files that are locks: one daemon for each root, and the pid for whoever looks for it.

The kernel frees the lock with the process, however it ends. The file stays when the daemon goes, emptied (removing it would let two daemons lock two files of one name); only the lock on it
counts, never that it is there. People do remove it: so the root itself is locked too, which nobody removes for tidiness, and the file is made again by the daemon whose it was. Not
the models folder: it may be a disk of its own, and what is open there keeps it from being unmounted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from jand.errors import RootLockedError, SettingsError

if TYPE_CHECKING:
    from jand.errors import JandError

FILE_NAME: Final = "jand.pid"


class PidFile:
    """The file *path*, which holds our pid and our lock from `acquire` to `release` or the end of the process; others may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Write the pid and take the lock. RootLockedError with the pid of who holds it; SettingsError where *path* cannot be written."""
        self._descriptor = self._take()

    def renew(self) -> bool:
        """Make the file again where somebody has removed it; return whether. One that another daemon holds by now stays its own."""
        if self._descriptor is None or self._is_ours(self._descriptor):
            return False
        try:
            taken = self._take()
        except (RootLockedError, SettingsError):
            return False
        os.close(self._descriptor)
        self._descriptor = taken
        return True

    def _is_ours(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a disk that does not answer says nothing

    def _take(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            raise self._taken(pid) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _unusable(self, error: OSError) -> JandError:
        return SettingsError(
            f"cannot write pid_file {self.path}: {error.strerror}", hint="choose another one", param="pid_file"
        )

    def _taken(self, pid: str) -> JandError:
        return RootLockedError(
            f"cannot use pid_file {self.path}: another daemon{f' (pid {pid})' if pid else ''} holds it",
            hint="stop that one, or choose another pid_file",
            pid=pid,
        )


class RootLock(PidFile):
    """The lock of the root whose own directory is *own*."""

    def __init__(self, own: Path) -> None:
        super().__init__(own / FILE_NAME)
        self._root = own.parent
        self._folder: int | None = None

    @override
    def acquire(self) -> None:
        """Do as every pid file does, and lock the root as well; a file system that has no locks on folders (NFS) is left to the pid file."""
        super().acquire()
        try:
            self._hold()
        except RootLockedError:
            self.release()
            raise

    def _hold(self) -> None:
        try:
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _find_holder(descriptor)
            os.close(descriptor)
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                raise self._taken(pid) from error
            return
        self._folder = descriptor

    @override
    def release(self) -> None:
        super().release()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    @override
    def _unusable(self, error: OSError) -> JandError:
        return SettingsError(
            f"cannot serve {self._root}: {error.strerror}: {error.filename}",
            hint="choose a root that you can write: --root DIR",
            param="root",
        )

    @override
    def _taken(self, pid: str) -> JandError:
        who = f"another daemon (pid {pid}) serves it" if pid else "another daemon serves it"
        return RootLockedError(
            f"cannot serve {self._root}: {who}",
            hint="use that one (jand status), stop it, or choose another --root",
            pid=pid,
        )


def find_owner(own: Path) -> str:
    """Return the pid of the daemon that serves the root whose own directory is *own*; "" where none does, or who asks may not know."""
    with contextlib.suppress(OSError):
        descriptor = os.open(own / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        finally:
            os.close(descriptor)
    return ""


def _find_holder(descriptor: int) -> str:
    """Return the pid of who holds a lock on the file of *descriptor*, as proc_locks(5) has it; "" where it does not say."""
    inode = os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" not in fields and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
                return fields[4]
    return ""
