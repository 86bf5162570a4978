"""What a worker takes of this machine's memory: its own process and those that it has started, such as the one that applies its chat template."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import psutil


def resident(pid: int) -> int:
    """Return the resident bytes of *pid* and its children together; 0 once it has ended. Takes some 0.1 ms on Linux, where it is asked after each answer.

    What two of them share (the interpreter's library) counts twice, some megabytes: rather too much than too little.
    """
    return sum(map(_resident, (pid, *children(pid))))


def _resident(pid: int) -> int:
    if sys.platform == "linux":
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
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
