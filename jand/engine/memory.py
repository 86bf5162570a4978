"""What a worker takes of this machine's memory: its own process and those that it has started, such as the one that applies its chat template."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import psutil


def resident(pid: int) -> int:
    """Return the resident bytes of *pid* and its children together; 0 once it has ended. Takes some 0.1 ms on Linux, where it is asked after each answer.

    What two of them share (the interpreter's library) counts twice, some megabytes: rather too much than too little. A child that has not yet become another
    program has nothing but what it shares with its parent, all weights included, and does not count.
    """
    own = _command(pid)
    return _resident(pid) + sum(_resident(child) for child in children(pid) if _command(child) != own)


def _command(pid: int) -> object:
    """Return the command line of *pid*; it is read before the memory, since the child that is about to become another program may do so in between."""
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            return psutil.Process(pid).cmdline()
        return None
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return None


def _resident(pid: int) -> int:
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def children(pid: int) -> list[int]:
    """Return the children of *pid*. Linux keeps them for each thread (proc(5), /proc/pid/task/tid/children); elsewhere the whole process table is read."""
    if sys.platform != "linux":
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, listed.read_text().split())
    return found
