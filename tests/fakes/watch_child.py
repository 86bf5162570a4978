"""A library in a process of its own, for faults that must not hit the tests' process: a signal, a limit, another namespace or user.

Run as `python -m tests.fakes.watch_child ROOT COOKIE_TIMEOUT_S`. Writes one JSON line whenever models or status differ; runs each line of its standard input as a shell command, in its own namespaces, and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from tests.fakes.library import QUICK, quick, watching
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.library import Watched

ROOT = Path(__file__).parents[2]
MOST_LISTED = 100


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def describe(watched: Watched) -> dict[str, Any]:
    status = watched.library.status
    return {
        "models": sorted(watched.models)[:MOST_LISTED],
        "count": len(watched.models),
        "mode": watched.mode(),
        "codes": sorted({problem.code for problem in status.problems}),
        "codes_so_far": sorted(watched.codes_so_far),
        "found": sorted({problem.code for scanned in watched.picture.values() for problem in scanned.problems}),
        "hints": sorted({problem.hint for problem in status.problems}),
        "offline": sorted(entry for label, entry in watched.picture if status.is_offline(label, entry)),
        "rebuilds": status.trees["models"].rebuilds,
        "equal": not watched.differences(),
    }


async def main(root: str, cookie_timeout_s: float) -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    # The limits of open files and inotify instances are the child's to run into, not the interpreter's.
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    vigilance = dataclasses.replace(QUICK, cookie_timeout_s=cookie_timeout_s)
    async with watching(Path(root), settings=quick(vigilance=vigilance)) as watched:
        listening = asyncio.ensure_future(_obey(reader))
        last: dict[str, Any] = {}
        while not listening.done():
            now = await asyncio.to_thread(describe, watched)
            if now != last:
                say(**now)
                last = now
            await asyncio.sleep(0.02)


async def _obey(reader: asyncio.StreamReader) -> None:
    while line := await reader.readline():
        done = await asyncio.to_thread(subprocess.run, line.decode(), shell=True, check=False)
        say(ran=line.decode().strip(), status=done.returncode)


class Child:
    """The other end: the last thing that the child said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.last: dict[str, Any] = {}
        self._ran = 0

    async def follow(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            facts = json.loads(line)
            if "ran" in facts:
                assert facts["status"] == 0, facts
                self._ran += 1
            else:
                self.last = facts

    async def run(self, command: str) -> None:
        """Run *command* in the child's namespaces."""
        assert self.process.stdin is not None
        before = self._ran
        self.process.stdin.write(f"{command}\n".encode())
        await until(lambda: self._ran > before, what=command)

    async def until(self, timeout_s: float = 5.0, **facts: Any) -> None:
        """Wait until the child says all of *facts*."""

        def said() -> bool:
            return all(self.last.get(name) == value for name, value in facts.items())

        try:
            await until(said, timeout_s)
        except AssertionError:
            message = f"waited {timeout_s} s for {facts}; the child said {self.last}"
            raise AssertionError(message) from None


@contextlib.asynccontextmanager
async def child(
    root: Path, *prefix: str, log: Path, cookie_timeout_s: float = QUICK.cookie_timeout_s
) -> AsyncIterator[Child]:
    """Run a child over *root*, started by *prefix*, until it has made its first scan and to the end of the block."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *prefix,
            sys.executable,
            "-m",
            "tests.fakes.watch_child",
            str(root),
            str(cookie_timeout_s),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    subject = Child(process)
    following = asyncio.ensure_future(subject.follow())
    try:
        await until(lambda: subject.last or process.returncode is not None, 8.0, what="the child's first words")
        assert process.returncode is None, log.read_text()
        yield subject
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            await asyncio.wait_for(process.wait(), 3.0)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
