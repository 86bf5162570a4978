"""The Unix socket: private from its first instant, never taken from a daemon that lives, and removed only while it is ours.

Its mode is set by the umask at bind, not after; wider modes come afterwards, when the group is right. Who binds holds a lock on the directory, so that of two daemons that find
the same dead socket one binds and the other sees it live.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import secrets
import socket
import stat
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from jand.api.guard import read_credentials
from jand.errors import JandError, SocketInUseError, SocketUnusableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_PATH: Final = 103 if sys.platform == "darwin" else 107
"""Bytes that `sun_path` holds beside its final NUL."""

PRIVATE: Final = 0o600
DIAL_TIMEOUT_S: Final = 1.0
LOCK_TIMEOUT_S: Final = 3.0
BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A listening socket and the file that stands for it."""

    path: Path
    listener: socket.socket
    device: int
    inode: int

    def is_in_place(self) -> bool:
        """Whether the file is there and the same. Raises OSError where that cannot be known."""
        try:
            found = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def remove(self) -> None:
        """Remove the file, unless another one has taken its place or it is gone."""
        with contextlib.suppress(FileNotFoundError):
            if self.is_in_place():
                self.path.unlink()


def bind_private(path: Path, *, mode: int = PRIVATE, group: str | None = None, held: Path | None = None) -> BoundSocket:
    """Bind and listen on *path*. Blocks for up to a few seconds where another process binds there too; *held* is a directory whose lock this process has already.

    Raises SocketInUseError where somebody answers there, SocketUnusableError where *path* or its directory is no place for it.
    """
    check_length(path)
    gid = find_gid(group, path)
    try:
        ensure_directory(path.parent, mode, gid)
        with locked(path.parent, held):
            remove_dead(path)
            return _bind(path, mode, gid)
    except OSError as error:
        raise unusable(path, os.strerror(error.errno or 0).lower()) from error


def bind_again(path: Path, *, mode: int = PRIVATE, group: str | None = None, held: Path | None = None) -> BoundSocket:
    """Do as `bind_private` does, for a daemon that serves: clients come all the time, and find nothing or a socket that answers."""
    gid = find_gid(group, path)
    beside = path.with_name(f".{secrets.token_hex(2)}")
    check_length(beside)
    try:
        ensure_directory(path.parent, mode, gid)
        with locked(path.parent, held):
            remove_dead(path)
            bound = _bind(beside, mode, gid)
            beside.rename(path)
    except OSError as error:
        raise unusable(path, os.strerror(error.errno or 0).lower()) from error
    return replace(bound, path=path)


def _bind(path: Path, mode: int, gid: int) -> BoundSocket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The umask belongs to the whole process: it is changed for this one call.
        before = os.umask(0o777 & ~PRIVATE)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        found = os.lstat(path)
        if gid >= 0:
            os.chown(path, -1, gid, follow_symlinks=False)
        if mode != PRIVATE:
            path.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return BoundSocket(path, listener, found.st_dev, found.st_ino)


def unusable(path: Path, cause: str, hint: str = "choose another place with --socket") -> SocketUnusableError:
    return SocketUnusableError(f"cannot listen on {path}: {cause}", hint=hint, path=str(path))


def check_length(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MAX_PATH:
        raise unusable(
            path,
            f"its path has {length} bytes, and a socket's can have {MAX_PATH}",
            "choose a shorter one with --socket",
        )


def find_gid(group: str | None, path: Path) -> int:
    """Return the number of *group*, -1 for none."""
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise unusable(path, f'there is no group "{group}"', "correct socket_group") from error


def ensure_directory(directory: Path, mode: int, gid: int) -> None:
    """Make *directory* for its owner alone (and to be entered by those whom *mode* lets use the socket), or check the one that is there.

    Raises SocketUnusableError where others could put a socket of theirs in the place of ours. One that everybody may write to is no such place if it is sticky, as /tmp is.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        check_directory(directory)
        return
    if gid >= 0:
        os.chown(directory, -1, gid)
    entered_by = (0o010 if mode & 0o060 else 0) | (0o001 if mode & 0o006 else 0)
    if entered_by:
        directory.chmod(0o700 | entered_by)


def check_directory(directory: Path) -> None:
    found = directory.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise unusable(directory, "it is no directory")
    if found.st_uid not in {0, os.geteuid()}:
        raise unusable(directory, f"the directory belongs to somebody else (uid {found.st_uid})")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise unusable(directory, "others may write to the directory", f"chmod go-w {directory}")


@contextlib.contextmanager
def locked(directory: Path, held: Path | None = None) -> Iterator[None]:
    """Hold the lock of *directory* against others that bind there, unless it is *held*."""
    if held is not None and held.is_dir() and directory.samefile(held):
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while not try_lock(descriptor):
            if time.monotonic() > deadline:
                raise unusable(directory, "another program holds the lock of the directory")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove_dead(path: Path) -> None:
    """Remove the socket at *path* that nobody listens on any more. Raises SocketInUseError where somebody does."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise unusable(
            path, "something that is no socket is there", "move it away, or choose another place with --socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(DIAL_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except (TimeoutError, BlockingIOError) as error:
            # Its queue of connections is full: a daemon that is alive and busy, or stopped by a debugger.
            raise in_use(path, {}) from error
        except PermissionError as error:
            raise unusable(path, "a socket of somebody else is there") from error
        else:
            raise in_use(path, peer_of(probe))


def peer_of(probe: socket.socket) -> dict[str, int | str]:
    try:
        return read_credentials(probe)
    except OSError:
        return {}


def in_use(path: Path, peer: dict[str, int | str]) -> JandError:
    who = f" (pid {peer['pid']}, uid {peer['uid']})" if "pid" in peer else ""
    return SocketInUseError(
        f"cannot listen on {path}: another daemon{who} answers there",
        hint="stop it, or choose another place with --socket",
        path=str(path),
        pid=peer.get("pid"),
        uid=peer.get("uid"),
    )
