"""Whether the directory of a tree is there, and whether it is still the one that was seen before. Blocks for disk I/O."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jand.library.filesystems import Mount, MountTable

OUR_OWN_LACK: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Root:
    """A tree's directory as it was found: *path* without links, what tells it from another one of that name, and the file system that it lies on."""

    path: str
    device: int
    inode: int
    mount: Mount

    @property
    def identity(self) -> tuple[int, int, int]:
        return (self.device, self.inode, self.mount.id)


@dataclass(frozen=True, slots=True)
class NoRoot:
    """Why nothing can be said about a tree."""

    reason: str


def read_root(path: str, mounts: MountTable) -> Root | NoRoot:
    """Look at the directory itself. Raises OSError only for a lack of our own (open files, memory), which says nothing about it."""
    mounts.refresh()
    try:
        real = os.path.realpath(path)
        descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in OUR_OWN_LACK:
            raise
        return NoRoot(_explain(error))
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not os.access(real, os.X_OK):
        return NoRoot("permission denied")
    return Root(real, found.st_dev, found.st_ino, mounts.find(real))


def _explain(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "it is not there"
        case errno.ENOTDIR:
            return "it is no folder"
        case errno.EACCES | errno.EPERM:
            return "permission denied"
        case _:
            return (error.strerror or str(error)).lower()
