"""What this machine has for a model: memory, as its control group allows, and GPUs that the installed engine can use.

Totals and not what is free now, so that the same machine gives the same answer tomorrow. llama_cpp is never imported here: which GPU backends it was built with shows in the
files that it installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand.download.recommend import Gpu, Machine

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_QUERY_TIMEOUT_S: Final = 10.0
_MIB: Final = 1 << 20

_ANY: Final = frozenset({"vulkan", "sycl", "opencl"})
"""Backends that drive GPUs of any maker."""


def _engine_folder() -> Path | None:
    spec = importlib.util.find_spec("llama_cpp")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _installed_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the facts are read; tests lay out their own."""

    sys_root: Path = Path("/sys")
    own_cgroup: Path = Path("/proc/self/cgroup")
    engine: Path | None = field(default_factory=_engine_folder)
    nvidia_query: tuple[str, ...] = _QUERY
    system: str = sys.platform
    processor: str = field(default_factory=platform.machine)
    total_memory: int = field(default_factory=_installed_memory)


def measure(sources: Sources | None = None) -> Machine:
    """Look at the machine; takes up to some seconds where a GPU's driver has to wake, so it belongs in a thread."""
    found = sources or Sources()
    memory = min([found.total_memory, *_cgroup_limits(found)])
    return Machine(memory, tuple(_gpus(found, memory)))


def backends(engine: Path | None) -> frozenset[str]:
    """Return the names of the backends (`cpu`, `cuda`, `vulkan`, `metal`, …) for which the engine in the folder *engine* has a library."""
    if engine is None:
        return frozenset()
    names = (path.name for path in engine.rglob("*ggml-*") if path.is_file())
    return frozenset(name.partition("ggml-")[2].partition(".")[0].partition("-")[0] for name in names)


def _gpus(found: Sources, memory: int) -> Iterable[Gpu]:
    able = backends(found.engine)
    if "metal" in able and found.system == "darwin" and found.processor == "arm64":
        # Metal may wire about two thirds of the memory that it shares with the processor, three quarters on large machines.
        share = (2, 3) if memory <= 36 << 30 else (3, 4)
        yield Gpu("Apple", memory * share[0] // share[1])
    if able & ({"cuda"} | _ANY):
        yield from _nvidia(found.nvidia_query)
    if able & ({"hip"} | _ANY):
        yield from _amd(found.sys_root)


def _nvidia(query: tuple[str, ...]) -> Iterable[Gpu]:
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            query, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    for line in answer.stdout.splitlines():
        name, _, size = line.rpartition(",")
        if size.strip().isdigit():
            yield Gpu(name.strip(), int(size) * _MIB)


def _amd(sys_root: Path) -> Iterable[Gpu]:
    for path in sorted(sys_root.glob("class/drm/card*/device/mem_info_vram_total")):
        if (size := _read_number(path)) is not None:
            yield Gpu(f"AMD {path.parent.parent.name}", size)


def _cgroup_limits(found: Sources) -> Iterable[int]:
    """Return the limits of the control groups that this process is in, each level of them."""
    try:
        lines = found.own_cgroup.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers == "":
            yield from _limits_up(found.sys_root / "fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up(found.sys_root / "fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_up(mount: Path, path: str, name: str) -> Iterable[int]:
    folder = Path(os.path.normpath(mount / path.lstrip("/")))
    while folder.is_relative_to(mount):
        if (limit := _read_number(folder / name)) is not None:
            yield limit
        folder = folder.parent


def _read_number(path: Path) -> int | None:
    """Return the number in *path*; None for `max`, for no file and for no number."""
    try:
        text = path.read_text().strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None
