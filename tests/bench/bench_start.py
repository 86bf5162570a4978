"""A start with many folders: cold and warm, beside a plain Python loop over the same files in the same run, and what it keeps in memory and takes when quiet.

What an interpreter and its imports take is measured with an empty root and taken off. Usage: python -m tests.bench.bench_start [FOLDERS]
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess

RUNS = 3


def lay_out(models: Path, folders: int) -> None:
    """Make *folders* folders, each a JSON and a GGUF, one in a hundred with the real header of SmolLM2 (49,152 tokens) over a sparse body."""
    models.mkdir(parents=True)
    plain = models.parent / "plain.gguf"
    gguf_files.bare_header(plain, size=40_000)
    smollm2 = gguf_files.smollm2()
    with smollm2.open("rb") as stream:
        header = stream.read(2_000_000)
    size = smollm2.stat().st_size
    for number in range(folders):
        folder = models / f"m{number:05}"
        folder.mkdir()
        (folder / f"m{number:05}.json").write_text(json.dumps({"origin": f"tests/m{number}", "metadata": {"tags": ["x"]}}))
        weights = folder / f"m{number:05}.gguf"
        if number % 100:
            shutil.copyfile(plain, weights)
        else:
            weights.write_bytes(header)
            os.truncate(weights, size)


def walk_and_stat(models: Path) -> float:
    began = time.perf_counter()
    for entry in os.scandir(models):
        for file in os.scandir(entry.path):
            file.stat()
    return time.perf_counter() - began


def walk_and_read(models: Path) -> float:
    began = time.perf_counter()
    for entry in os.scandir(models):
        for file in os.scandir(entry.path):
            file.stat()
            with open(file.path, "rb") as stream:  # noqa: PTH123 - the plain loop
                stream.read(65536)
    return time.perf_counter() - began


async def time_start(root: Path) -> tuple[float, DaemonProcess]:
    daemon = DaemonProcess(root, "--log-level", "warning")
    began = time.perf_counter()
    daemon.spawn()
    await daemon.ready(300)
    return time.perf_counter() - began, daemon


async def best_start(root: Path, *, cold: bool) -> float:
    taken = []
    for _ in range(RUNS):
        if cold:
            shutil.rmtree(root / ".jand", ignore_errors=True)
        seconds, daemon = await time_start(root)
        taken.append(seconds)
        await daemon.__aexit__(None, None, None)
    return sorted(taken)[RUNS // 2]


async def main() -> None:
    folders = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as scratch:
        root, empty = Path(scratch) / "root", Path(scratch) / "empty"
        lay_out(root / "models", folders)
        (empty / "models").mkdir(parents=True)
        nothing = await best_start(empty, cold=True)
        read = sorted(walk_and_read(root / "models") for _ in range(RUNS))[RUNS // 2]
        stat = sorted(walk_and_stat(root / "models") for _ in range(RUNS))[RUNS // 2]
        cold = await best_start(root, cold=True) - nothing
        warm = await best_start(root, cold=False) - nothing
        print(f"{folders} folders; a start with none takes {nothing:.2f} s")  # noqa: T201
        print(f"cold {cold:.2f} s, walk+stat+read loop {read:.2f} s: ratio {cold / read:.1f}")  # noqa: T201
        print(f"warm {warm:.2f} s, walk+stat loop {stat:.2f} s: ratio {warm / stat:.1f}")  # noqa: T201
        _, daemon = await time_start(root)
        process = psutil.Process(daemon.pid)
        await asyncio.sleep(10)
        before, began = process.cpu_times(), time.monotonic()
        await asyncio.sleep(60)
        after, took = process.cpu_times(), time.monotonic() - began
        cpu = (after.user + after.system - before.user - before.system) / took
        print(f"resident {process.memory_info().rss / 1e6:.0f} MB, CPU over a quiet minute {100 * cpu:.2f} %")  # noqa: T201
        await daemon.__aexit__(None, None, None)


if __name__ == "__main__":
    asyncio.run(main())
