"""What the relay adds to each token, and what a list of many models costs, each beside the direct way in the same run.

    python -m tests.bench.bench_relay [EVENTS]

A worker, the API and the client are three processes. *Flood*: events as fast as they can be written, one write each; the difference of wall time by event is what the relay costs, and events
may share a read then. *Paced*: 5,000 events a second, each with the time of its sending, by turns direct and relayed; the difference of the medians is what a token is late, and the API's processor
time says how many one core passes. Of several rounds the quietest counts: other programs on the machine delay the three processes by milliseconds, and never hasten them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager
from tests.fakes.upstream import DONE, FakeUpstream, chat_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from tests.fakes.upstream import Exchange

PATH = "/v1/chat/completions"
PACE_PER_S = 5_000
TARGET_MS = 0.3
ROUNDS = 3
PACED_ROUNDS = 8
CHUNK = chat_chunk("token")


async def stream(exchange: Exchange) -> None:
    """Be a worker: as many events as asked for, as fast as possible or paced, each paced one with the time of its sending."""
    asked = exchange.request.json
    await exchange.begin(headers={"Content-Type": "text/event-stream"})
    began = time.perf_counter()
    for number in range(asked["events"]):
        if not asked["paced"]:
            await exchange.send(CHUNK)
            continue
        while (early := began + number / PACE_PER_S - time.perf_counter()) > 0:
            await asyncio.sleep(early if early > 0.002 else 0)
        await exchange.send(b'data: {"at": %.9f, "padding": "%s"}\n\n' % (time.perf_counter(), b"x" * 180))
    await exchange.send(DONE)
    await exchange.end()


async def be_worker() -> None:
    async with FakeUpstream() as upstream:
        upstream.behave = stream
        await say_where_and_wait(upstream.socket)


async def be_api(worker: str, models: int) -> None:
    manager = FakeManager()
    for number in range(models):
        manager.add(f"model-{number:05d}", details={"architecture": "llama", "context_length": 4096})
    manager.serve_with(Path(worker))
    async with ServedApi(manager) as api:
        await say_where_and_wait(api.socket)


async def say_where_and_wait(socket: Path) -> None:
    print(socket, flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def child(*role: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run this file in another *role*; give its socket, and the process."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_relay", *role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), psutil.Process(process.pid)
        finally:
            # What it logs comes out at its end, and is of no use here.
            process.kill()


async def flood(socket: str, events: int) -> float:
    """Seconds for *events*, as fast as they come."""
    began = time.perf_counter()
    count = 0
    async with contextlib.aclosing(lines(socket, events, paced=False)) as received:
        async for _ in received:
            count += 1
    assert count == events + 1
    return time.perf_counter() - began


async def paced(socket: str, events: int) -> list[float]:
    """Milliseconds from the sending of each event to its arrival."""
    async with contextlib.aclosing(lines(socket, events, paced=True)) as received:
        late = [(time.perf_counter() - json.loads(line[6:])["at"]) * 1000 async for line in received if b'"at"' in line]
    assert len(late) == events
    return sorted(late)


async def lines(socket: str, events: int, *, paced: bool) -> AsyncGenerator[bytes]:
    """Yield the data lines of one stream, over a connection of its own and with as little in between as possible."""
    reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 20)
    body = json.dumps({"model": "model-00000", "stream": True, "events": events, "paced": paced}).encode()
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), len(body), body))
    try:
        await reader.readuntil(b"\r\n\r\n")
        while (line := await reader.readline()) != b"0\r\n":
            if line.startswith(b"data: "):
                yield line
    finally:
        writer.close()


async def list_seconds(socket: str) -> float:
    reader, writer = await asyncio.open_unix_connection(socket, limit=1 << 26)
    began = time.perf_counter()
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    content = await reader.read()
    took = time.perf_counter() - began
    writer.close()
    assert content.startswith(b"HTTP/1.1 200 ")
    return took


def report_relay(events: int) -> bool:
    with child("worker") as (worker, _), child("api", worker, "1") as (api, process):
        asyncio.run(flood(api, 1_000))
        floods = [(asyncio.run(flood(worker, events)), asyncio.run(flood(api, events))) for _ in range(ROUNDS)]
        direct, relayed = (min(times) / events * 1000 for times in zip(*floods, strict=True))
        print(
            f"flood of {events} events, ms an event: direct {direct:.4f}, relayed {relayed:.4f}, added {relayed - direct:.4f}"
        )
        held = report_paced(worker, api, process, min(events, PACE_PER_S))
    return held and relayed - direct < TARGET_MS


def report_paced(worker: str, api: str, process: psutil.Process, events: int) -> bool:
    """Return whether the relay adds less than it may to a token, and one core passes as many as it shall."""
    cpu_s = cpu_of(process)
    rounds = [(asyncio.run(paced(worker, events)), asyncio.run(paced(api, events))) for _ in range(PACED_ROUNDS)]
    cpu_s = (cpu_of(process) - cpu_s) / PACED_ROUNDS / events
    best: list[float] = []
    for name, late in zip(("direct", "relayed"), zip(*rounds, strict=True), strict=True):
        medians = sorted(statistics.median(one) for one in late)
        best.append(medians[0])
        print(
            f"paced at {PACE_PER_S}/s, ms late, {name}: median {medians[0]:.3f} in the quietest of {PACED_ROUNDS} rounds, "
            f"{statistics.median(medians):.3f} in the middle one, {medians[-1]:.3f} in the worst"
        )
    print(
        f"the API's process used {cpu_s * 1000:.3f} ms of CPU for a token: one core passes {1 / cpu_s:.0f} a second (target: {PACE_PER_S})"
    )
    print(f"a token is {best[1] - best[0]:.3f} ms later for the relay (target: under {TARGET_MS})")
    return best[1] - best[0] < TARGET_MS and cpu_s * PACE_PER_S <= 1


def cpu_of(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def report_list() -> None:
    for models in (1_000, 10_000):
        with child("api", "/nowhere", str(models)) as (api, _):
            first = asyncio.run(list_seconds(api))
            again = statistics.median([asyncio.run(list_seconds(api)) for _ in range(9)])
        print(
            f"list of {models} models, ms: first {first * 1000:.1f}, again {again * 1000:.1f} (target for 1,000: under 10)"
        )


def main() -> int:
    match sys.argv[1:]:
        case ["worker"]:
            asyncio.run(be_worker())
        case ["api", worker, models]:
            asyncio.run(be_api(worker, int(models)))
        case rest:
            kept = report_relay(int(rest[0]) if rest else 20_000)
            report_list()
            return 0 if kept else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
