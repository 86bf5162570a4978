"""Broken inputs by the hundred thousand: the reader of JSONs, the reader of GGUFs and the HTTP routes never crash, take no second, and little memory.

`make soak` runs a million over all three, in parts of some minutes.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from jand.api.routes import ROUTES
from tests.fakes import json_mutations
from tests.fakes.daemon import DaemonProcess
from tests.fakes.fuzz_child import MEMORY_BYTES, scramble
from tests.fakes.models_tree import ModelsTree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
PARTS: Final = (("json", 1), ("json", 2), ("gguf", 3), ("gguf", 4))
MOST_S: Final = 1.0
PATIENCE_S: Final = 5.0
"""How long an answer is waited for; a request that lacks its end gets none."""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "seed"), PARTS)
def test_no_input_breaks_a_reader_or_costs_much(kind: str, seed: int, *, soak: bool) -> None:
    count = {"json": 175_000, "gguf": 275_000}[kind] if soak else 1500
    command = [sys.executable, "-m", "tests.fakes.fuzz_child", kind, str(seed), str(count)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1700)

    assert ended.returncode == 0, ended.stderr[-6000:]
    told = json.loads(ended.stdout)
    assert told["inputs"] == count
    assert told["slowest_s"] < MOST_S, told


PATHS = [route.path for route in ROUTES if not route.endless]
IDS = (
    "m",
    "none",
    "a%2Fb",
    "%00",
    "..",
    "%2e%2e",
    "%ff%fe",
    "x" * 300,
    "\u00e4".encode().decode("latin-1"),
    "m%0d%0aX: y",
    "'",
    "{id}",
)
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "G\x00T", "")
QUERIES = (
    "",
    "?state=all",
    "?state=%00",
    "?wait=maybe",
    "?dry_run=1&dry_run=0",
    "?q=" + "x" * 5000,
    "?%",
    "?=&&=",
    "?keep_files=true",
)
HEADERS = (
    "Content-Type: application/json",
    "Content-Type: text/plain; charset=\x80",
    "Accept: */*",
    "Last-Event-ID: x",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Expect: 100-continue",
    "Range: bytes=0-",
    "Upgrade: websocket",
    "Connection: Upgrade, HTTP2-Settings",
    "Authorization: Bearer \x01",
    "X: " + "y" * 9000,
    "Cookie: " + "a=b; " * 500,
    "no colon here",
)


def make_request(dice: random.Random, body: bytes) -> bytes:
    """Return a request that is mostly right, with one or two things wrong."""
    method = dice.choice(METHODS) if dice.random() < 0.3 else dice.choice(METHODS[:5])
    path = re.sub(r"\{\w+\}", lambda _: dice.choice(IDS), dice.choice(PATHS)) + dice.choice(QUERIES)
    lines = [
        f"{method} {path} {'HTTP/1.1' if dice.random() < 0.95 else dice.choice(('HTTP/1.0', 'HTTP/9.9', 'X', ''))}",
        "Host: jand",
        "Connection: close",
    ]
    lines += dice.sample(HEADERS, dice.randrange(3))
    if dice.random() < 0.1:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif dice.random() < 0.95:
        lines.append(f"Content-Length: {len(body)}")
    else:
        lines.append(f"Content-Length: {dice.choice(('-1', '9' * 30, 'x', '', len(body) + 5))}")
    raw = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
    return scramble(raw, dice) if dice.random() < 0.15 else raw


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    tree = ModelsTree(tmp_path / "models")
    tree.spec("m/m.json", download_url="m.gguf")
    async with DaemonProcess(tmp_path, "--no-reuse", "--log-level", "warning") as process:
        yield process


async def exchange(socket: Path, raw: bytes) -> bytes:
    """Send *raw* and return all that comes back; nothing where the daemon waits for more, or lets go."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(raw)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def judge(answer: bytes, raw: bytes) -> None:
    """Hold each answer to what a client may see: an HTTP head, no fault of ours, and JSON where it is an error."""
    if not answer:
        return
    head, _, content = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/\d\.\d (\d{3}) ", head)
    assert status, (raw, answer[:500])
    assert int(status[1]) < 500 or int(status[1]) in {503, 507}, (raw[:2000], answer[:1000])
    if int(status[1]) >= 400 and content.startswith(b"{"):
        error: Any = json.JSONDecoder().raw_decode(content.decode())[0]
        assert set(error["error"]) == {"message", "type", "param", "code"}, (raw, answer)


@pytest.mark.timeout(1800)
async def test_no_request_breaks_the_daemon_or_costs_much(daemon: DaemonProcess, *, soak: bool) -> None:
    """A hundred thousand in the soak. Those that took long by the clock of a loaded machine are sent once more, alone, and their processor time is measured."""
    count = 100_000 if soak else 1200
    process = psutil.Process(daemon.pid)
    before = process.memory_info().rss
    turns = asyncio.Semaphore(64)
    slow: list[bytes] = []
    answered = 0

    async def one(number: int, body: bytes) -> None:
        nonlocal answered
        raw = make_request(random.Random(f"http {number}"), body)
        async with turns:
            began = time.monotonic()
            answer = await exchange(daemon.socket, raw)
            if answer and time.monotonic() - began > MOST_S:
                slow.append(raw)
        answered += bool(answer)
        judge(answer, raw)

    bodies = json_mutations.mutations(5, count)
    for start in range(0, count, 400):
        part = [one(number, next(bodies)[1][:50_000]) for number in range(start, min(start + 400, count))]
        await asyncio.gather(*part)
        assert process.memory_info().rss - before < MEMORY_BYTES
    for raw in slow[:20]:
        cpu = sum(process.cpu_times()[:2])
        await exchange(daemon.socket, raw)
        assert sum(process.cpu_times()[:2]) - cpu < MOST_S, raw[:2000]
    assert answered > count * 0.7
    faults = [event for event in daemon.log_events() if event["level"] == "error"]
    assert not faults, json.dumps(faults[:2], indent=1)
