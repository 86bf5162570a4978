"""Whether somebody is writing to a file, asked of the kernel.

Linux grants a read lease only while nobody has the file open for writing or mapped for it; asking takes about 3 µs. It is granted on files of our own user (or with CAP_LEASE) and
not on every file system; elsewhere, and on other systems, nothing is known. While the lease is held, which is for microseconds, a writer's `open` waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
from typing import Final

_SUPPORTED: Final = sys.platform == "linux"
_FINDER_BUSY: Final = 443_779_200.0


def ignore_lease_signal() -> None:
    """Ignore SIGIO, by which the kernel tells of a broken lease and whose default action ends the process; for the main thread, once.

    The probe asks for a harmless signal instead; this covers kernels that would not take that wish.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def is_marked_busy(status: os.stat_result, platform: str = sys.platform) -> bool:
    """Whether macOS' Finder says that it is still copying the file: until it is done, the file was created at an impossible time.

    Programs disagree on how that time reads (OmniFileStore, MEGA): before 1970, or 1984-01-24.
    """
    if platform != "darwin":
        return False
    created: float = getattr(status, "st_birthtime", 1.0)
    return created <= 0 or created == _FINDER_BUSY


def is_being_written(path: str | os.PathLike[str]) -> bool | None:
    """Whether somebody has *path* open for writing; None where nobody can tell (also when it cannot be opened)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return has_writer(descriptor)
    finally:
        os.close(descriptor)


def has_writer(descriptor: int) -> bool | None:
    """Do as `is_being_written` does, for a file that is open for reading only."""
    if not _SUPPORTED:
        return None
    try:
        # A writer that opens the file in the instant of the lease makes the kernel send this signal; SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
