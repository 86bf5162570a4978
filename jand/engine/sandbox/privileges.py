"""What root, and a program of another user, could do more (Linux): the worker of a daemon that runs as root keeps none of root's powers but reading, and nothing that it runs can gain any."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

PR_SET_NO_NEW_PRIVS: Final = 38

# linux/capability.h
VERSION_3: Final = 0x20080522
DAC_READ_SEARCH: Final = 1 << 2
"""Weights that root may read though they are somebody else's; which files those can be, Landlock decides."""


class Header(ctypes.Structure):
    """`struct __user_cap_header_struct`."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Data(ctypes.Structure):
    """`struct __user_cap_data_struct`; there are two, for the lower and the upper 32 capabilities."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop() -> bool:
    """Give up all capabilities but one, and the way to gain any; return whether it is in force."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0))):
        return False
    header, data = Header(VERSION_3, 0), (Data * 2)()
    if libc.capget(ctypes.byref(header), data):
        return False
    kept = data[0].permitted & DAC_READ_SEARCH
    data[0], data[1] = Data(kept, kept, 0), Data(0, 0, 0)
    return bool(libc.capset(ctypes.byref(header), data) == 0)
