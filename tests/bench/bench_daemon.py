"""What the daemon costs and how soon it knows: memory and CPU when idle, and the time from the last close (or rename) of a drop to its appearance on the socket.

Beside each latency stands that of a bare inotify loop on the same files in the same run would be in bench_watch; here it is the whole way, polled as a client would.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess

DROPS: Final = 50
QUIET_S: Final = 20.0


async def appears(daemon: DaemonProcess, model_id: str) -> float:
    """Return the time at which a `GET /v1/models` lists *model_id* as downloaded."""
    while True:
        listed = await daemon.models_by_id("?state=downloaded")
        if model_id in listed:
            return time.perf_counter()
        await asyncio.sleep(0)


async def measure_latency(daemon: DaemonProcess, source: Path, *, rename: bool) -> list[float]:
    seconds = []
    for number in range(DROPS):
        name = f"{'moved' if rename else 'copied'}{number}"
        staged = source.parent / name
        staged.mkdir()
        if rename:
            shutil.copy(source / "tiny.gguf", staged / f"{name}.gguf")
            (staged / f"{name}.json").write_text(json.dumps({"origin": "tests/tiny"}))
            staged.rename(daemon.models / name)
        else:
            folder = daemon.models / name
            folder.mkdir()
            (folder / f"{name}.json").write_text(json.dumps({"origin": "tests/tiny"}))
            shutil.copyfile(source / "tiny.gguf", folder / f"{name}.gguf")
        ended = time.perf_counter()
        seconds.append(await appears(daemon, name) - ended)
    return seconds


def show(what: str, seconds: list[float]) -> None:
    milliseconds = sorted(1000 * value for value in seconds)
    print(
        f"{what:<44} median {statistics.median(milliseconds):7.1f} ms   p95 {milliseconds[int(len(milliseconds) * 0.95)]:7.1f} ms"
        f"   max {milliseconds[-1]:7.1f} ms"
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        source = Path(scratch) / "source"
        source.mkdir()
        (root / "models").mkdir(parents=True)
        gguf_files.bare_header(source / "tiny.gguf", size=5_000_000)
        async with DaemonProcess(root) as daemon:
            process = psutil.Process(daemon.pid)
            await asyncio.sleep(2)
            before, began = process.cpu_times(), time.monotonic()
            await asyncio.sleep(QUIET_S)
            after, took = process.cpu_times(), time.monotonic() - began
            cpu = (after.user + after.system - before.user - before.system) / took
            print(
                f"idle: resident {process.memory_info().rss / 1e6:.1f} MB, CPU {100 * cpu:.2f} %, children {len(process.children())}"
            )
            show("last close of a copy to the list", await measure_latency(daemon, source, rename=False))
            show("rename to the list", await measure_latency(daemon, source, rename=True))
            print(f"after {2 * DROPS} drops: resident {process.memory_info().rss / 1e6:.1f} MB")


if __name__ == "__main__":
    asyncio.run(main())
