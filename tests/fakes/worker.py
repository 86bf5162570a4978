"""A worker without a model: it speaks the protocol and the HTTP of the real one and fails on order.

Use `command(...)` as the *command* of `Worker.start`. As a program it takes its switches before the four arguments that the daemon appends:

    --tokens N --pace S        what a completion streams: N tokens, one every S seconds (a request's max_tokens lowers N)
    --load-steps N --load-s S  how loading reports and how long it takes
    --hang load|warm|answer    never come past that point
    --die load|warm|answer     end there by --signal (default SIGSEGV) or with --status N
    --only-with-extra-bufts    die only where use_extra_bufts is on
    --fail MESSAGE             report `failed` with MESSAGE and end
    --ignore-sigterm           SIGTERM does nothing
    --ignore-stop              a stop command does nothing
    --step-age S               say in each heartbeat that the last step was S seconds ago
    --memory N                 hold N MiB
    --log LINE                 print LINE first (repeatable)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def command(*switches: str) -> tuple[str, ...]:
    """Return the command that starts this fake with *switches*."""
    return (sys.executable, str(Path(__file__).resolve()), *switches)


class Fake:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.control = socket.socket(fileno=options.control)
        self.lines = self.control.makefile("rb")
        self.config: dict[str, Any] = {}
        self.active: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()
        self.requests = 0
        self.cancelled = 0
        self.hold = bytearray(options.memory << 20)
        self.hold[::4096] = b"x" * len(self.hold[::4096])

    def report(self, **message: object) -> None:
        self.control.sendall(json.dumps(message).encode() + b"\n")

    def pass_point(self, point: str) -> None:
        """Hang or die here, where that was ordered."""
        if self.options.hang == point:
            time.sleep(3600)
        if self.options.die != point or (self.options.only_with_extra_bufts and not self.config["use_extra_bufts"]):
            return
        if self.options.status is not None:
            os._exit(self.options.status)
        number = signal.Signals[self.options.signal]
        if number is not signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def load(self) -> None:
        self.config = json.loads(self.lines.readline())
        for line in self.options.log:
            os.write(1, line.encode() + b"\n")
        if self.options.fail:
            self.report(type="failed", code="bad-model", message=self.options.fail, hint="")
            sys.exit(1)
        for step in range(self.options.load_steps):
            self.report(type="loading", progress=step / self.options.load_steps)
            time.sleep(self.options.load_s / self.options.load_steps)
        self.pass_point("load")
        self.report(type="loading", progress=1.0)
        self.report(type="warming")
        self.pass_point("warm")

    async def serve(self) -> None:
        path = self.config["socket"]
        previous = os.umask(0o177)
        server = await asyncio.start_unix_server(self.answer, path)
        os.umask(previous)
        threading.Thread(target=self.obey, args=(asyncio.get_running_loop(),), daemon=True).start()
        slots = self.config["init"].get("n_parallel") or 1
        self.report(
            type="ready",
            details={
                "slots": slots,
                "context": self.config["init"].get("ctx_len") or 2048,
                "warnings": [],
                "fake": True,
            },
        )
        beating = asyncio.create_task(self.beat())
        await self.stopping.wait()
        server.close()
        if self.active:
            await asyncio.wait(self.active)
        beating.cancel()
        os._exit(0)

    async def beat(self) -> None:
        while True:
            self.report(type="heartbeat", active=len(self.active), queued=0, step_age_s=self.options.step_age)
            await asyncio.sleep(self.config["heartbeat_s"])

    def obey(self, loop: asyncio.AbstractEventLoop) -> None:
        for line in self.lines:
            message = json.loads(line)
            if message["type"] == "stop" and not self.options.ignore_stop:
                if message["force"]:
                    os._exit(0)
                loop.call_soon_threadsafe(self.stopping.set)
            if message["type"] == "runtime":
                self.config["runtime"] = message["runtime"]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection until it closes."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                length = next(
                    (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0
                )
                body = await reader.readexactly(length)
                await self.respond(lines[0].split(" ")[:2], body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def respond(
        self, request: list[str], body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        method, target = request
        if method == "GET":
            facts = {
                "status": "ok",
                "active": len(self.active),
                "requests": self.requests,
                "cancelled": self.cancelled,
                "runtime": self.config["runtime"],
            }
            return await whole(writer, 200, facts)
        wanted = json.loads(body or b"{}")
        if wanted.get("bad"):
            error = {
                "message": "cannot take that: it is bad",
                "type": "invalid_request_error",
                "param": "bad",
                "code": "bad-request",
            }
            return await whole(writer, 400, {"error": error})
        self.requests += 1
        task = asyncio.current_task()
        assert task is not None
        self.active.add(task)
        gone = asyncio.create_task(reader.read(1))  # a client that waits for its answer sends nothing more
        work = asyncio.create_task(self.complete(target, wanted, writer))
        try:
            await asyncio.wait([gone, work], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.cancelled += 1
                work.cancel()
                raise ConnectionError
            work.result()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        finally:
            self.active.discard(task)
        return None

    async def complete(self, target: str, wanted: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        limit = wanted.get("max_tokens") or self.config["runtime"].get("token_limit") or self.options.tokens
        count = min(self.options.tokens, limit)
        if target.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}
            return await whole(
                writer, 200, {"object": "list", "data": [vector], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
            )
        base = {"id": f"fake-{self.requests}", "created": int(time.time()), "model": self.config["model_id"]}
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": count + 3}
        if not wanted.get("stream"):
            await asyncio.sleep(count * self.options.pace)
            self.pass_point("answer")
            message = {"role": "assistant", "content": "".join(token(index) for index in range(count))}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return await whole(writer, 200, {**base, "object": "chat.completion", "choices": [choice], "usage": usage})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head)
        for index in range(count):
            choice = {"index": 0, "delta": {"content": token(index)}, "finish_reason": None}
            await event(writer, {**base, "object": "chat.completion.chunk", "choices": [choice]})
            await asyncio.sleep(self.options.pace)
            if index == count // 2:
                self.pass_point("answer")
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        await event(writer, {**base, "object": "chat.completion.chunk", "choices": [choice], "usage": usage})
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return None


def token(index: int) -> str:
    return f"word{index} "


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def event(writer: asyncio.StreamWriter, value: object) -> None:
    writer.write(chunk(b"data: " + json.dumps(value).encode() + b"\n\n"))
    await writer.drain()


async def whole(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    data = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--load-steps", type=int, default=2)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--hang", choices=("load", "warm", "answer"))
    parser.add_argument("--die", choices=("load", "warm", "answer"))
    parser.add_argument("--signal", default="SIGSEGV")
    parser.add_argument("--status", type=int)
    parser.add_argument("--only-with-extra-bufts", action="store_true")
    parser.add_argument("--fail")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--ignore-stop", action="store_true")
    parser.add_argument("--step-age", type=float, default=0.0)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--log", action="append", default=[])
    parser.add_argument("control", type=int)
    parser.add_argument("lifeline", type=int)
    parser.add_argument("parent", type=int)
    parser.add_argument("model")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse(sys.argv[1:])
    sys.path.insert(0, str(ROOT))
    from jand.engine.worker import lifeline  # the real one: what ends a worker with its daemon is not faked

    lifeline.bind_to(options.parent)
    lifeline.watch(options.lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    async def run() -> None:
        fake = Fake(options)
        fake.load()
        await fake.serve()

    asyncio.run(run())


if __name__ == "__main__":
    main()
