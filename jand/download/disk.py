"""Room on disks for what is on its way, and what a refusing disk means.

All transfers onto one device share its room: each counts what the others have still to write, so that two do not fill together what either would fit in alone.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Final

from jand.download.recommend import gb
from jand.errors import DiskError, DiskFullError, DownloadError, FolderGoneError

CHECK_EVERY: Final = 256 << 20
RESERVED_SHARE: Final = 50
"""One part in so many of a disk is left free."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_FOLDER_HINT: Final = "put a real folder there; nothing is written through a link"


class Space:
    """What is still to be written to each device, by whom. Used from several threads."""

    def __init__(self, min_free: int, *, retry_after_s: float) -> None:
        self.min_free = min_free
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._wanted: dict[int, dict[object, int]] = {}

    def claim(self, descriptor: int, who: object, remaining: int, what: str) -> None:
        """Note that *who* will write *remaining* bytes more beside *descriptor*; raise DiskFullError where that does not fit with what others write."""
        device = os.fstat(descriptor).st_dev
        status = os.fstatvfs(descriptor)
        free = status.f_bavail * status.f_frsize
        reserve = reserve_of(status, self.min_free)
        with self._lock:
            claims = self._wanted.setdefault(device, {})
            others = sum(count for other, count in claims.items() if other is not who)
            if remaining + others + reserve > free:
                claims.pop(who, None)
                raise self._full(what, remaining, others, reserve, free)
            claims[who] = remaining

    def release(self, who: object) -> None:
        with self._lock:
            for claims in self._wanted.values():
                claims.pop(who, None)

    def _full(self, what: str, remaining: int, others: int, reserve: int, free: int) -> DiskFullError:
        also = f", {gb(others)} are on their way already" if others else ""
        message = f"cannot download {what}: {gb(remaining)} are to come, the disk has {gb(free)} free of which {gb(reserve)} stay free{also}"
        hint = "make room on the disk; what is here already is kept, and it goes on by itself"
        return DiskFullError(message, hint=hint, retry_after_s=self._retry_after_s, needed=remaining, free=free)


def reserve_of(status: os.statvfs_result, min_free: int) -> int:
    """Return the bytes of a file system that no download may take."""
    return max(min_free, status.f_blocks * status.f_frsize // RESERVED_SHARE)


def disk_error(error: OSError, what: str, *, retry_after_s: float) -> DownloadError:
    """Translate what the disk said while *what* was written."""
    cause = error.strerror or str(error)
    if error.errno in _FULL:
        hint = "make room on the disk; what is here already is kept, and it goes on by itself"
        return DiskFullError(f"cannot write {what}: the disk is full ({cause})", hint=hint, retry_after_s=retry_after_s)
    if error.errno in _GONE:
        return FolderGoneError(
            f"cannot write {what}: its folder is gone, or is a link ({cause})",
            hint=_FOLDER_HINT,
            retry_after_s=retry_after_s,
        )
    if error.errno == errno.EFBIG:
        return DiskError(
            f"cannot write {what}: it is too large for this file system",
            hint="use a disk without such a limit",
            retry_after_s=retry_after_s,
        )
    return DiskError(
        f"cannot write {what}: {cause}",
        hint="check the disk and the permissions of the folder",
        retry_after_s=retry_after_s,
    )
