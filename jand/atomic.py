"""Writing a file so that a crash at any instant leaves the old content or the new one, whole.

Temporary file in the same directory, fsync, rename, fsync of the directory: without both syncs ext4 was seen to keep an empty file under the final name for seconds.
"""

from __future__ import annotations

import errno
import os
import secrets
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""How FAT, exFAT and some FUSE file systems say that they have no hard links."""


def write(path: Path, content: bytes, *, replace: bool = False, mode: int = 0o644) -> None:
    """Write *content* to *path*; where a file is there already, raise FileExistsError unless *replace*.

    The temporary name begins with `.jand-`, which scans leave out. Blocks for the time of two fsyncs (about 1 ms on a local disk).
    """
    temporary = path.with_name(f".jand-{secrets.token_hex(6)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path, content)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _link(temporary: Path, path: Path, content: bytes) -> None:
    """Give *temporary* its name: a link is the portable rename that refuses to replace."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Whoever looks meanwhile sees a file that is arriving.
        with path.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())


def sync_directory(directory: Path) -> None:
    """Make a rename in *directory* survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
