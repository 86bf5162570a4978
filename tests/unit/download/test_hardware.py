"""What the machine has, read from files laid out as systems do and from a driver's tool."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from jand.download.hardware import Sources, backends, measure
from jand.download.recommend import Gpu

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def lay_out(base: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return base


def sources(base: Path, **changes: object) -> Sources:
    fields: dict[str, object] = {
        "sys_root": base / "sys",
        "own_cgroup": base / "proc/self/cgroup",
        "engine": base / "llama_cpp",
        "nvidia_query": (str(base / "no-such-tool"),),
        "system": "linux",
        "processor": "x86_64",
        "total_memory": 64 * GIB,
    }
    return Sources(**{**fields, **changes})  # type: ignore[arg-type]


def test_this_machine_can_be_measured() -> None:
    assert measure().memory > GIB // 4


def test_without_anything_else_it_is_the_installed_memory(tmp_path: Path) -> None:
    assert measure(sources(tmp_path)).memory == 64 * GIB


@pytest.mark.parametrize(
    ("group", "limits", "expected"),
    [
        ("0::/user.slice/app\n", {"fs/cgroup/user.slice/app/memory.max": "8589934592\n"}, 8 * GIB),
        (
            "0::/user.slice/app\n",
            {"fs/cgroup/user.slice/memory.max": str(4 * GIB), "fs/cgroup/user.slice/app/memory.max": "max\n"},
            4 * GIB,
        ),
        ("0::/\n", {"fs/cgroup/memory.max": str(2 * GIB)}, 2 * GIB),
        ("0::/app\n", {"fs/cgroup/app/memory.max": "max"}, 64 * GIB),
        ("0::/app\n", {"fs/cgroup/app/memory.max": str(1000 * GIB)}, 64 * GIB),
        ("5:cpu,memory:/docker/x\n", {"fs/cgroup/memory/docker/x/memory.limit_in_bytes": str(3 * GIB)}, 3 * GIB),
        ("5:cpu:/x\n", {"fs/cgroup/memory/x/memory.limit_in_bytes": str(3 * GIB)}, 64 * GIB),
        ("0::/../../outside\n", {"outside/memory.max": str(GIB)}, 64 * GIB),
        ("garbage\n", {}, 64 * GIB),
    ],
)
def test_a_control_group_that_allows_less_is_what_there_is(
    tmp_path: Path, group: str, limits: dict[str, str], expected: int
) -> None:
    lay_out(tmp_path / "sys", limits)
    lay_out(tmp_path, {"proc/self/cgroup": group})
    assert measure(sources(tmp_path)).memory == expected


def tool(base: Path, script: str) -> tuple[str, ...]:
    path = base / "fake-smi"
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(0o755)
    return (str(path),)


def engine(base: Path, *names: str) -> None:
    lay_out(base, {f"llama_cpp/lib/{name}": "" for name in names})


def test_a_gpu_counts_only_where_the_engine_can_use_it(tmp_path: Path) -> None:
    query = tool(tmp_path, 'print("NVIDIA GeForce RTX 4090, 24564")\nprint("NVIDIA T4, 15360")')
    engine(tmp_path, "libggml-base.so", "libggml-cpu.so.0")
    assert measure(sources(tmp_path, nvidia_query=query)).gpus == ()
    engine(tmp_path, "libggml-cuda.so")
    assert measure(sources(tmp_path, nvidia_query=query)).gpus == (
        Gpu("NVIDIA GeForce RTX 4090", 24564 << 20),
        Gpu("NVIDIA T4", 15360 << 20),
    )


@pytest.mark.parametrize(
    "script", ["raise SystemExit(9)", "print('No devices were found')", "print(',,,')", "print('x, [N/A]')"]
)
def test_a_driver_that_fails_is_no_gpu(tmp_path: Path, script: str) -> None:
    engine(tmp_path, "libggml-cuda.so")
    assert measure(sources(tmp_path, nvidia_query=tool(tmp_path, script))).gpus == ()


def test_amd_gpus_are_read_from_the_kernel(tmp_path: Path) -> None:
    engine(tmp_path, "libggml-hip.so")
    lay_out(
        tmp_path / "sys",
        {"class/drm/card0/device/mem_info_vram_total": f"{16 * GIB}\n", "class/drm/card1/device/vendor": "x"},
    )
    assert measure(sources(tmp_path)).gpus == (Gpu("AMD card0", 16 * GIB),)


@pytest.mark.parametrize(("memory", "expected"), [(16 * GIB, 16 * GIB * 2 // 3), (64 * GIB, 48 * GIB)])
def test_apple_shares_its_memory(tmp_path: Path, memory: int, expected: int) -> None:
    engine(tmp_path, "libggml-metal.dylib")
    apple = sources(tmp_path, system="darwin", processor="arm64", total_memory=memory)
    assert measure(apple).gpus == (Gpu("Apple", expected),)
    assert measure(sources(tmp_path, system="darwin", processor="x86_64")).gpus == ()


def test_backends_are_told_by_the_engines_own_files(tmp_path: Path) -> None:
    engine(tmp_path, "libggml-base.so.0.25.3", "libggml-cpu-haswell.so", "ggml-vulkan.dll", "libllama.so")
    assert backends(tmp_path / "llama_cpp") == {"base", "cpu", "vulkan"}
    assert backends(None) == frozenset()
