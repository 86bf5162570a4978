"""The door to Landlock, by which a process gives up files and TCP for itself (Linux 5.13 and later; kernel documentation, userspace-api/landlock).

Three system calls by ctypes. The packages that wrap them are young, and importing the most complete one (landlockpy 0.2) took 28 ms of each start of a worker, where this takes under 1.
A path that is not there is no rule; a kernel that knows less restricts less.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWS_TCP: Final = 4

# The same numbers on every architecture.
CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
WANT_VERSION: Final = 1
PATH_BENEATH: Final = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = (1 << bit for bit in range(4))
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
"""What a rule for something that is no directory may grant."""

FILES_BY_VERSION: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1, 9: (1 << 17) - 1}
"""All rights to files that a version knows: 2 adds links across directories, 3 truncation, 5 ioctl of devices, 9 connecting to sockets by their path."""
NETWORK_BY_VERSION: Final = {KNOWS_TCP: 0b11, 10: 0b1111}
"""Bind and connect: TCP, then UDP."""
SCOPES_BY_VERSION: Final = {6: 0b11}
"""Abstract sockets and signals stay among those who are restricted alike."""


class RulesetAttributes(ctypes.Structure):
    """`struct landlock_ruleset_attr` up to version 9."""

    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class PathBeneath(ctypes.Structure):
    """`struct landlock_path_beneath_attr`, which is packed; the padding that ctypes leaves at its end is not read."""

    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


def find_version() -> int:
    """Return what this kernel's Landlock can do; 0 where there is none, or it is turned off."""
    if sys.platform != "linux":
        return 0
    found = ctypes.CDLL(None).syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(WANT_VERSION))
    return max(0, int(found))


def restrict(*, readable: Iterable[str], usable: Iterable[str], listed: Iterable[str]) -> int:
    """Leave this thread, and those it will make, reading *readable*, reading and writing *usable*, and listing *listed*, each with what is below it.

    The thread must have given up new privileges (`privileges.drop`). Returns the version that is in force, 0 for none.
    """
    version = find_version()
    if not version:
        return 0
    libc = ctypes.CDLL(None)
    handled = known(FILES_BY_VERSION, version)
    attributes = RulesetAttributes(handled, known(NETWORK_BY_VERSION, version), known(SCOPES_BY_VERSION, version))
    # A kernel refuses a structure with more in it than it knows, and takes a shorter one.
    size = 8 if version < KNOWS_TCP else 16 if version < min(SCOPES_BY_VERSION) else 24
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return 0
    try:
        allow(libc, ruleset, readable, (READ_FILE | READ_DIR) & handled)
        allow(libc, ruleset, usable, (READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | IOCTL_DEV) & handled)
        allow(libc, ruleset, listed, READ_DIR & handled)
        return 0 if libc.syscall(RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) else version
    finally:
        os.close(ruleset)


def known(rights: dict[int, int], version: int) -> int:
    return max((right for least, right in rights.items() if version >= least), default=0)


def allow(libc: ctypes.CDLL, ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            continue
        try:
            directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            rule = PathBeneath(rights if directory else rights & OF_FILES, descriptor)
            libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
        finally:
            os.close(descriptor)
