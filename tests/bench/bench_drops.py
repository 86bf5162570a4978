"""How long `GET /v1/models` takes while folders are dropped by the thousand.

Run as `python -m tests.bench.bench_drops [DROPS] [--beside FOLDERS] [--rounds 3]`. One client lists again and again, another reads all events, and the folders are moved in as fast as the disk allows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.test_scale import read_events, write_folders
from tests.fakes.daemon import DaemonProcess

GIVE_UP_S = 60.0


async def drop(drops: int, beside: int) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        names = [f"m{number:05}" for number in range(drops)]
        write_folders(base / "staged", names)
        write_folders(base / "models", [f"other-{number:05}" for number in range(beside)])

        def move() -> None:
            for name in names:
                (base / "staged" / name).rename(base / "models" / name)

        async with DaemonProcess(base, "--log-level", "info") as daemon:
            listening = asyncio.create_task(read_events(daemon, []))
            await daemon.call("GET", "/v1/models")
            began = time.perf_counter()
            moving = asyncio.create_task(asyncio.to_thread(move))
            taken = await list_until(daemon, drops + beside)
            listed_s = time.perf_counter() - began
            await moving
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    ordered = sorted(taken)
    p99 = ordered[int(len(ordered) * 0.99) - 1]
    return f"{drops} drops beside {beside}: all listed after {listed_s:.2f} s; {len(taken)} lists, median {statistics.median(taken):.1f} ms, p99 {p99:.1f} ms, slowest {ordered[-1]:.1f} ms"


async def list_until(daemon: DaemonProcess, count: int) -> list[float]:
    """List until *count* models are there; return the milliseconds that each list took."""
    taken = []
    give_up_at = time.perf_counter() + GIVE_UP_S
    while True:
        began = time.perf_counter()
        async with daemon.session.get("http://jand/v1/models") as response:
            body = await response.read()
        taken.append((time.perf_counter() - began) * 1e3)
        if body.count(b'"object":"model"') >= count:
            return taken
        assert time.perf_counter() < give_up_at, "they are not all listed"
        await asyncio.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("drops", type=int, nargs="?", default=1000)
    parser.add_argument("--beside", type=int, default=0, help="how many folders are there before")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for _ in range(given.rounds):
        sys.stdout.write(asyncio.run(drop(given.drops, given.beside)) + "\n")


if __name__ == "__main__":
    main()
