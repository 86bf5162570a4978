"""Resource limits of a process that parses foreign files: no core dump (it would hold prompts), no file that grows, no more memory than there is."""

from __future__ import annotations

import resource
import sys
from typing import Final

MOST_DESCRIPTORS: Final = 4096
KIB: Final = 1024


def apply(*, computes_elsewhere: bool) -> None:
    """Lower the limits; *computes_elsewhere*: on a GPU, whose drivers reserve more than there is and keep caches in files of memory."""
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS)
    if not computes_elsewhere:
        lower(resource.RLIMIT_FSIZE, 0)
        if sys.platform == "linux":
            lower(resource.RLIMIT_DATA, all_memory())


def lower(kind: int, most: int) -> None:
    """Set both limits to *most*, unless they are lower already."""
    _, hard = resource.getrlimit(kind)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))


def all_memory() -> int:
    """Return the bytes of memory and swap; more of its own no process can ever use, and an allocation of a hostile size fails at once."""
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs a start more
        values = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in file)}
    return (values["MemTotal"] + values["SwapTotal"]) * KIB
