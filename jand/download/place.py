"""Directories and names below a model's folder, reached without following a link, and a rename that never replaces anything.

Everything goes through descriptors of directories, so that nobody can swap one for a link between the check and the use.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_REPLACE: Final = 4 if sys.platform == "darwin" else 1
_NOT_SUPPORTED: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}
)

_libc = ctypes.CDLL(None, use_errno=True)
_sync_range = getattr(_libc, "sync_file_range", None)
_rename_at = getattr(_libc, "renameatx_np" if sys.platform == "darwin" else "renameat2", None)


def open_directory(path: Path) -> int:
    """Open *path*, which must itself be a directory and no link to one."""
    return os.open(path, _DIRECTORY)


def open_below(root: int, segments: Sequence[str], *, create: bool) -> int:
    """Open the directory *segments* below *root*, no part of which may be a link; the caller closes it."""
    current = os.dup(root)
    for segment in segments:
        try:
            if create:
                ensure_directory(segment, current)
            following = os.open(segment, _DIRECTORY, dir_fd=current)
        finally:
            os.close(current)
        current = following
    return current


def ensure_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return


def exists(name: str, parent: int) -> bool:
    """Whether anything, a dangling link included, has the name."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def rename_no_replace(name: str, source: int, new_name: str, target: int) -> None:
    """Rename; raise FileExistsError where *new_name* is taken, and leave both as they are.

    Where neither the kernel nor the file system can do that in one step (FAT, some network shares), the name is looked at just before.
    """
    if _rename_at is not None:
        if _rename_at(source, os.fsencode(name), target, os.fsencode(new_name), _NO_REPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NOT_SUPPORTED:
            raise OSError(code, os.strerror(code), new_name)
    try:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        if exists(new_name, target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name) from error
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return
    os.unlink(name, dir_fd=source)


def begin_writeback(descriptor: int, start: int, count: int) -> None:
    """Let the disk begin with *count* bytes of a file, where the system can be told to, so that the sync at its end finds little left to do."""
    if _sync_range is not None:
        _sync_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(count), ctypes.c_uint(2))
