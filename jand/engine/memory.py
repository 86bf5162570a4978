"""What a worker takes of this machine's memory: its own process and those that it has started, such as the one that applies its chat template."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil


def resident(pid: int) -> int:
    """Return the resident bytes of *pid* and its descendants together; 0 once it has ended.

    What two of them share (the interpreter's library) counts twice, some megabytes: rather too much than too little.
    """
    taken = 0
    for one in (pid, *descendants(pid)):
        with contextlib.suppress(psutil.Error):
            taken += int(psutil.Process(one).memory_info().rss)
    return taken


def descendants(pid: int) -> list[int]:
    """Return the children of *pid*, and theirs: a renderer is a grandchild."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


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
