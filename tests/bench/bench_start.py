"""A start with many folders: cold and warm, beside a plain Python loop over the same files in the same run, and what it keeps in memory and takes when quiet.

There are two such loops: one that walks, as anybody would write it, and a lean one that knows that there are two levels and never asks what a name is. Both run on the same files, in the same
state of the page cache. What an interpreter and its imports take is measured with an empty root and taken off. Usage: python -m tests.bench.bench_start [FOLDERS] [--rounds 5] [--quiet SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5


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
        (folder / f"m{number:05}.json").write_text(
            json.dumps({"origin": f"tests/m{number}", "metadata": {"tags": ["x"]}})
        )
        weights = folder / f"m{number:05}.gguf"
        if number % 100:
            shutil.copyfile(plain, weights)
        else:
            weights.write_bytes(header)
            os.truncate(weights, size)


def walk_and_stat(models: Path) -> None:
    for folder, _, names in os.walk(models):
        for name in names:
            os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - the plain loop


def walk_and_read(models: Path) -> None:
    for folder, _, names in os.walk(models):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - the plain loop
            os.stat(path)  # noqa: PTH116
            with open(path, "rb") as stream:  # noqa: PTH123
                stream.read(65536)


def list_and_stat(models: Path) -> None:
    for entry in os.scandir(models):
        for file in os.scandir(entry.path):
            file.stat()


def list_and_read(models: Path) -> None:
    for entry in os.scandir(models):
        for file in os.scandir(entry.path):
            file.stat()
            with open(file.path, "rb") as stream:  # noqa: PTH123 - the plain loop
                stream.read(65536)


@dataclass(frozen=True, slots=True, order=True)
class Cost:
    """Seconds of computing (user and system), and by the clock."""

    cpu: float
    wall: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.wall - other.wall)

    def beside(self, other: Cost) -> str:
        return f"CPU {self.cpu:.2f} s against {other.cpu:.2f} s: ratio {self.cpu / other.cpu:.1f}; wall {self.wall:.2f} s against {other.wall:.2f} s: ratio {self.wall / other.wall:.1f}"


def time_loop(loop: Callable[[Path], None], models: Path) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    loop(models)
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


async def time_start(root: Path) -> tuple[Cost, DaemonProcess]:
    """Start a daemon; what it took until it said that it is ready, by itself and without being asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, tempfile.TemporaryDirectory() as scratch:
        told.bind(f"{scratch}/notify")
        told.settimeout(300)
        daemon = DaemonProcess(root, "--log-level", "warning", environ={"NOTIFY_SOCKET": f"{scratch}/notify"})
        began = time.perf_counter()
        process = psutil.Process(daemon.spawn().pid)
        while b"READY=1" not in told.recv(4096):
            pass
        wall, used = time.perf_counter() - began, process.cpu_times()
        return Cost(used.user + used.system, wall), daemon


async def time_whole_start(root: Path, *, cold: bool) -> Cost:
    if cold:
        shutil.rmtree(root / ".jand", ignore_errors=True)
    cost, daemon = await time_start(root)
    await daemon.__aexit__(None, None, None)
    return cost


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.cpu for cost in costs), statistics.median(cost.wall for cost in costs))


LOOPS: Final = {
    "walk+stat+read": walk_and_read,
    "lean list+stat+read": list_and_read,
    "walk+stat": walk_and_stat,
    "lean list+stat": list_and_stat,
}


async def main(folders: int, *, rounds: int, quiet_s: float) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root, empty = Path(scratch) / "root", Path(scratch) / "empty"
        lay_out(root / "models", folders)
        (empty / "models").mkdir(parents=True)
        costs: dict[str, list[Cost]] = defaultdict(list)
        for _ in range(rounds):
            # Side by side, so that a machine that slows down slows all of them down.
            nothing = await time_whole_start(empty, cold=True)
            costs["nothing"].append(nothing)
            for name, loop in LOOPS.items():
                costs[name].append(time_loop(loop, root / "models"))
            costs["cold"].append(await time_whole_start(root, cold=True) - nothing)
            costs["warm"].append(await time_whole_start(root, cold=False) - nothing)
        found = {name: median(each) for name, each in costs.items()}
        say(f"{folders} folders, medians of {rounds} rounds; a start with none takes {found['nothing'].wall:.2f} s")
        for start, peers in (("cold", list(LOOPS)[:2]), ("warm", list(LOOPS)[2:])):
            for peer in peers:
                say(f"{start}, beside {peer}: {found[start].beside(found[peer])}")
        await watch_quiet(root, quiet_s)


async def watch_quiet(root: Path, quiet_s: float) -> None:
    """Say what a daemon keeps in memory and takes while nothing happens."""
    if not quiet_s:
        return
    _, daemon = await time_start(root)
    process = psutil.Process(daemon.pid)
    await asyncio.sleep(10)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(quiet_s)
    after, took = process.cpu_times(), time.monotonic() - began
    cpu = (after.user + after.system - before.user - before.system) / took
    say(f"resident {process.memory_info().rss / 1e6:.0f} MB, CPU over {quiet_s:.0f} quiet seconds {100 * cpu:.2f} %")
    await daemon.__aexit__(None, None, None)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=int, nargs="?", default=10_000)
    parser.add_argument("--quiet", type=float, default=60.0, help="how many seconds to watch it doing nothing")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    asyncio.run(main(given.folders, rounds=given.rounds, quiet_s=given.quiet))
