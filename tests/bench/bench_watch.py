"""How long from the last rename or close until a daemon sends `model.registered`, and until the library tells of it, beside a bare inotify loop on the same files.

Run as `python -m tests.bench.bench_watch [--folders 1000] [--samples 200]`. Prints the medians and their ratio; the bare loop does nothing but read the kernel's queue, so it is the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import shutil
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.daemon import DaemonProcess
from tests.fakes.gguf_files import bare_header
from tests.fakes.library import add_model, watching
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.library.findings import EntryScan
    from tests.fakes.library import Watched

IN_MOVED_TO, IN_CREATE, IN_CLOSE_WRITE = 0x80, 0x100, 0x08
LIBC = ctypes.CDLL(None, use_errno=True)


class BareLoop:
    """Watches one directory, and those that appear in it, and notes when each name was heard of last."""

    def __init__(self, root: Path) -> None:
        self.heard: dict[str, float] = {}
        self._descriptor: int = LIBC.inotify_init1(os.O_CLOEXEC)
        self._root = root
        self._names: dict[int, str] = {}
        self._watch(root, "")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _watch(self, folder: Path, name: str) -> None:
        mask = IN_MOVED_TO | IN_CREATE | IN_CLOSE_WRITE
        self._names[LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)] = name

    def _read(self) -> None:
        while True:
            data = os.read(self._descriptor, 65536)
            now = time.perf_counter()
            offset = 0
            while offset < len(data):
                number, mask, _, length = struct.unpack_from("iIII", data, offset)
                name = data[offset + 16 : offset + 16 + length].rstrip(b"\0").decode()
                offset += 16 + length
                self.heard[self._names[number] or name] = now
                if mask & IN_CREATE and not self._names[number]:
                    self._watch(self._root / name, name)


class Told:
    """Notes when a whole model of each entry was told first."""

    def __init__(self, watched: Watched) -> None:
        self.at: dict[str, float] = {}
        self.came = asyncio.Event()
        watched.listeners.append(self.note)

    def note(self, found: EntryScan) -> None:
        if found.models and all(model.whole for model in found.models):
            self.at.setdefault(found.entry, time.perf_counter())
            self.came.set()

    async def wait(self, entry: str) -> float:
        while entry not in self.at:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 10)
        return self.at[entry]


class Listener:
    """Notes when a daemon's `model.registered` of each model was read first; a model is called as its folder is here."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.at: dict[str, float] = {}
        self.came = asyncio.Event()
        self._daemon = daemon

    async def listen(self) -> None:
        async with self._daemon.session.get("http://jand/v1/events") as response:
            registered = False
            async for line in response.content:
                if line.startswith(b"event:"):
                    registered = line.strip().endswith(b"model.registered")
                elif registered and line.startswith(b"data:"):
                    self.at.setdefault(json.loads(line[5:])["id"], time.perf_counter())
                    self.came.set()

    async def wait(self, name: str) -> float:
        while name not in self.at:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 10)
        return self.at[name]


def fill(root: Path, folders: int) -> None:
    for number in range(folders):
        add_model(root / f"other-{number}")


def make_model(folder: Path, name: str = "phi.json") -> None:
    folder.mkdir()
    (folder / name).write_text('{"origin": "someone/phi"}')
    bare_header(folder / "phi.gguf", size=1_000_000)


async def measure(
    bare: BareLoop, told: Told | Listener, arrive: Callable[[str], float], names: list[str]
) -> tuple[list[float], list[float]]:
    ours, floor = [], []
    for name in names:
        finished_at = await asyncio.to_thread(arrive, name)
        ours.append((await told.wait(name) - finished_at) * 1e3)
        await until(lambda: name in bare.heard)  # noqa: B023 - it is awaited here
        floor.append((bare.heard[name] - finished_at) * 1e3)
        await asyncio.sleep(0.02)
    return ours, floor


async def run(folders: int, samples: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        root, outside = Path(base) / "models", Path(base) / "outside"
        root.mkdir()
        outside.mkdir()
        fill(root, folders)
        make_model(outside / "source")

        def by_rename(name: str) -> float:
            shutil.copytree(outside / "source", outside / name)
            finished_at = time.perf_counter()
            (outside / name).rename(root / name)
            return finished_at

        def by_copy(name: str) -> float:
            (root / name).mkdir()
            shutil.copyfile(outside / "source" / "phi.json", root / name / "phi.json")
            with (root / name / "phi.gguf").open("wb", buffering=0) as stream:
                stream.write((outside / "source" / "phi.gguf").read_bytes())
                return time.perf_counter()

        async with watching(root) as watched:
            bare = BareLoop(root)
            told = Told(watched)
            say(f"{folders} other folders, {samples} samples each, milliseconds from the last rename or close")
            for what, arrive in (("rename", by_rename), ("copy", by_copy)):
                names = [f"{what}-{number}" for number in range(samples)]
                ours, floor = await measure(bare, told, arrive, names)
                ratio = statistics.median(ours) / statistics.median(floor)
                say(
                    f"{what:7} told: {describe(ours)}   bare inotify loop: {describe(floor)}   ratio of medians: {ratio:.1f}"
                )


async def run_daemon(folders: int, samples: int) -> None:
    """Measure until the event is read from the socket; the JSON is called `model.json`, so that the folder's name is the id."""
    with tempfile.TemporaryDirectory() as base:
        models, outside = Path(base) / "root" / "models", Path(base) / "outside"
        models.mkdir(parents=True)
        outside.mkdir()
        fill(models, folders)
        make_model(outside / "source", "model.json")

        def by_rename(name: str) -> float:
            shutil.copytree(outside / "source", outside / name)
            finished_at = time.perf_counter()
            (outside / name).rename(models / name)
            return finished_at

        def by_copy(name: str) -> float:
            # The registration is that of the JSON, and the binary is there by then.
            (models / name).mkdir()
            shutil.copyfile(outside / "source" / "phi.gguf", models / name / "phi.gguf")
            with (models / name / "model.json").open("wb", buffering=0) as stream:
                stream.write((outside / "source" / "model.json").read_bytes())
                return time.perf_counter()

        async with DaemonProcess(models.parent, "--log-level", "info") as daemon:
            told = Listener(daemon)
            listening = asyncio.create_task(told.listen())
            bare = BareLoop(models)
            await asyncio.sleep(1)
            for what, arrive in (("rename", by_rename), ("copy", by_copy)):
                ours, floor = await measure(bare, told, arrive, [f"{what}-{number}" for number in range(samples)])
                say(f"{what:7} event: {describe(ours)}   bare inotify loop: {describe(floor)}")
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def describe(values: list[float]) -> str:
    ordered = sorted(values)
    return (
        f"median {statistics.median(ordered):6.2f}  p90 {ordered[int(len(ordered) * 0.9)]:6.2f}  max {ordered[-1]:7.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    asyncio.run(run(options.folders, options.samples))
    asyncio.run(run_daemon(options.folders, options.samples))


if __name__ == "__main__":
    main()
