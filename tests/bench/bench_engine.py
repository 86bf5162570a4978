"""jand's engine, asked through the daemon's socket, beside its peers: same model, threads, context and build flags, in one run, round by round in turns.

    python -m tests.bench.bench_engine [--only SECTION ...] [--rounds N] [--tokens N] [--cache DIR] [--all-peers]

Each figure is a median over the rounds, each ratio a median of the ratios within a round, so that a machine that slows down meanwhile slows both. The sections:
*streams* 1, 4 and 8 answers at once; *busy* the same with a busy process on each core; *prefix* the time to the first token behind 1,000 tokens that are
known; *gap* how long a stream halts while a prompt of 2,000 tokens arrives; *start* a model's start beside a bare script; *relay* what the daemon adds to a token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.bench import peers, streams
from tests.bench.peers import Load, Place
from tests.fakes import gguf_files, tiny_models
from tests.fakes.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

JAND: Final = "jand"
SERVER: Final = "llama-server"
MODEL: Final = "smollm2"
WORD: Final = "the quick brown fox jumps over the lazy dog and then "
TURNS: Final = 8
"""How often worker and daemon are asked in each round."""
BUSY: Final = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
BARE: Final = """
import sys
import llama_cpp as lib
lib.llama_backend_init()
model = lib.llama_model_load_from_file(sys.argv[1].encode(), lib.llama_model_default_params())
wanted = lib.llama_context_default_params()
wanted.n_ctx, wanted.n_seq_max, wanted.n_threads, wanted.n_threads_batch = int(sys.argv[2]), int(sys.argv[3]), 2, 2
context = lib.llama_init_from_model(model, wanted)
tokens = (lib.llama_token * 2)(1, 1)
assert lib.llama_decode(context, lib.llama_batch_get_one(tokens, 2)) == 0
lib.llama_synchronize(context)
print("ready", flush=True)
"""


class Table:
    """What was measured: by line and server, a value for each round."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.kept = True

    def add(self, line: str, name: str, value: float) -> None:
        """Take a value, and show it at once on standard error: a run that is cut short was not for nothing."""
        self._values[line][name].append(value)
        print(f"  {line}: {name} {value:.1f}", file=sys.stderr, flush=True)

    def show(
        self, line: str, unit: str, *, least: float | None = None, most: float | None = None, base: str = SERVER
    ) -> None:
        """Print medians, and jand's ratio to *base* with the bound that it must keep."""
        values = self._values[line]
        figures = "  ".join(f"{name} {statistics.median(each):.1f}" for name, each in values.items())
        ratios = sorted(mine / theirs for mine, theirs in zip(values[JAND], values[base], strict=True))
        ratio = statistics.median(ratios)
        kept = (least is None or ratio >= least) and (most is None or ratio <= most)
        self.kept = self.kept and kept
        wanted = f">= {least}" if least is not None else f"<= {most}"
        print(
            f"{line:<34} {unit:<9} {figures}   ratio {ratio:.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), wanted {wanted}: "
            f"{'kept' if kept else 'NOT KEPT'}",
            flush=True,
        )


class Bench:
    def __init__(self, given: argparse.Namespace, daemon: DaemonProcess, load: Load, tiny: Path) -> None:
        self.rounds: int = given.rounds
        self.tokens: int = given.tokens
        self.daemon = daemon
        self.load = load
        self.cache: Path = given.cache
        self.all_peers: bool = given.all_peers
        self.tiny = tiny
        self.table = Table()
        self._seed = 0

    def number(self) -> int:
        """Return one that no other request had."""
        self._seed += 1
        return self._seed

    @property
    def jand(self) -> Place:
        return Place(JAND, path=str(self.daemon.socket), model=MODEL)

    @contextlib.contextmanager
    def servers(self, *more: Callable[..., contextlib.AbstractContextManager[Place]]) -> Iterator[list[Place]]:
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(start(self.load, self.cache)) for start in (peers.llama_server, *more)]
            yield [self.jand, *started]

    # -- streams ------------------------------------------------------------------------------------------------------

    async def measure_streams(self, label: str, places: Sequence[Place], counts: Sequence[int], rounds: int) -> None:
        for turn in range(rounds):
            for count in counts:
                numbers = [self.number() for _ in range(count)]
                for place in places if turn % 2 else places[::-1]:
                    bodies = [streams.story(number, self.tokens) for number in numbers]
                    total = streams.summarise(await streams.at_once(place, bodies))
                    self.table.add(f"{count} streams{label}", place.name, total.rate)
                    self.table.add(f"first of {count}{label}", place.name, total.first_s * 1000)

    async def streams(self) -> None:
        others = [peers.xllamacpp] if self.all_peers else []
        with self.servers(*others) as places:
            for place in places:
                await streams.stream(place, streams.story(self.number(), 16))
            await self.measure_streams("", places, (1, 4, 8), self.rounds)
        for count, least in ((1, 0.97), (4, 0.95), (8, 0.95)):
            self.table.show(f"{count} streams", "tokens/s", least=least)
        self.table.show("first of 4", "ms", most=1.2)
        if self.all_peers:
            with peers.llama_cpp_server(self.load, self.cache) as place:
                await streams.stream(place, streams.story(self.number(), 16))
                await self.measure_streams(", alone", [place, self.jand], (1, 4), max(1, self.rounds // 3))
            for count in (1, 4):
                self.table.show(f"{count} streams, alone", "tokens/s", least=1, base="llama_cpp.server")
            self.table.show("first of 4, alone", "ms", most=1, base="llama_cpp.server")

    async def busy(self) -> None:
        with self.servers() as places, busy_cores():
            await self.measure_streams(", busy cores", places, (1, 4), self.rounds)
        self.table.show("1 streams, busy cores", "tokens/s", least=1.0)
        self.table.show("4 streams, busy cores", "tokens/s", least=1.0)

    # -- latencies ----------------------------------------------------------------------------------------------------

    async def prefix(self) -> None:
        """Ask behind the same 1,000 tokens again and again, each time something else."""
        system = {"role": "system", "content": WORD * 91}
        with self.servers() as places:
            for turn in range(-1, 4 * self.rounds):
                question = {"role": "user", "content": f"{self.number()}: what does the fox do?"}
                body = {"messages": [system, question], "max_tokens": 4, "ignore_eos": True}
                for place in places if turn % 2 else places[::-1]:
                    answer = await streams.stream(place, body)
                    if turn >= 0:
                        self.table.add("first behind 1,000 known", place.name, answer.first_s * 1000)
        self.table.show("first behind 1,000 known", "ms", most=1.1)

    async def gap(self) -> None:
        """Let a prompt of 2,000 tokens that nobody has seen arrive while an answer flows."""
        with self.servers() as places:
            for turn in range(self.rounds):
                number = self.number()
                prompt = {"messages": [{"role": "user", "content": f"{number} " + WORD * 181}], "max_tokens": 1}
                for place in places if turn % 2 else places[::-1]:
                    flowing = asyncio.Event()
                    running = asyncio.create_task(
                        streams.stream(place, streams.story(number, 6 * self.tokens), flowing)
                    )
                    await flowing.wait()
                    await asyncio.sleep(0.3)
                    arrived = time.perf_counter()
                    arriving = await streams.stream(place, prompt)
                    answer = await running
                    gaps = [b - a for a, b in zip(answer.times, answer.times[1:], strict=False) if b > arrived]
                    self.table.add("longest gap, 2,000 arriving", place.name, max(gaps) * 1000)
                    self.table.add("first of those 2,000", place.name, arriving.first_s * 1000)
        self.table.show("longest gap, 2,000 arriving", "ms", most=1.0)
        self.table.show("first of those 2,000", "ms", most=1.5)  # what it may cost that the answer flows on

    # -- start and relay ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        load = self.load
        for _ in range(self.rounds):
            await self.daemon.call("PUT", f"/v1/models/{MODEL}/stop")
            began = time.perf_counter()
            await self.daemon.call("PUT", f"/v1/models/{MODEL}/start")
            self.table.add("start", JAND, (time.perf_counter() - began) * 1000)
            arguments = [str(load.weights), str(load.ctx_len * load.parallel), str(load.parallel)]
            began = time.perf_counter()
            with subprocess.Popen(
                [sys.executable, "-c", BARE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                self.table.add("start", "bare script", (time.perf_counter() - began) * 1000)
        self.table.show("start", "ms", most=1.3, base="bare script")

    async def relay(self) -> None:
        """Ask worker and daemon in turns; the first with a model whose tokens take next to nothing, so that the difference shows.

        The machine drifts within seconds by more than what is looked for: short turns, and many.
        """
        for model, tokens in (("tiny", 1500), (MODEL, self.tokens)):
            direct, relayed = await self.worker_of(model), Place("relayed", path=str(self.daemon.socket), model=model)
            added = []
            for turn in range(TURNS * self.rounds):
                taken, number = {}, self.number()
                for place in (direct, relayed) if turn % 2 else (relayed, direct):
                    answer = await streams.stream(place, streams.story(number, tokens, cache_prompt=False))
                    taken[place.name] = (answer.times[-1] - answer.times[0]) / (len(answer.times) - 1) * 1000
                added.append(taken["relayed"] - taken["direct"])
            kept = statistics.median(added) <= 0.3
            self.table.kept = self.table.kept and kept
            print(
                f"the daemon adds to a token of {model:<16} ms        {statistics.median(added):.3f} "
                f"(of {len(added)} turns, {min(added):.2f} to {max(added):.2f}), wanted <= 0.3: {'kept' if kept else 'NOT KEPT'}",
                flush=True,
            )

    async def worker_of(self, model: str) -> Place:
        """Find the worker's own socket among what its process listens on."""
        await self.daemon.call("PUT", f"/v1/models/{model}/start")
        (worker,) = [each for each in self.daemon.workers() if each.cmdline()[-1] == model]
        (listening,) = {each.laddr for each in worker.net_connections("unix") if str(each.laddr).endswith(".sock")}
        return Place("direct", path=str(listening), model=model, pid=worker.pid)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core that we may use busy."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY, str(core)]) for core in sorted(os.sched_getaffinity(0))]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


SECTIONS: Final = ("streams", "busy", "prefix", "gap", "start", "relay")


@contextlib.asynccontextmanager
async def prepared(given: argparse.Namespace) -> AsyncIterator[Bench]:
    """Start a daemon with the model running, as its users would have it."""
    load = Load(gguf_files.smollm2(), threads=given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        folder = root / "models" / MODEL
        folder.mkdir(parents=True)
        (folder / load.weights.name).symlink_to(load.weights)
        init: dict[str, Any] = {"ctx_len": load.ctx_len, "n_parallel": load.parallel, "n_threads": load.threads}
        tiny_models.write_spec(folder / f"{MODEL}.json", init=init, download_url=load.weights.name)
        tiny = tiny_models.install(root / "models", "tiny", init={"ctx_len": 2048, "n_threads": 1})
        async with DaemonProcess(root, "--log-level", "warning") as daemon:
            await daemon.until_state(MODEL, "downloaded", 30)
            await daemon.call("PUT", f"/v1/models/{MODEL}/start")
            yield Bench(given, daemon, load, tiny)


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--cache", type=Path, default=peers.CACHE, help="where the peers are built and installed")
    parser.add_argument("--all-peers", action="store_true", help="measure xllamacpp and llama_cpp.server too")
    given = parser.parse_args()
    peers.end_in_order()
    peers.build_llama_server(given.cache)
    async with prepared(given) as bench:
        print(f"load {psutil.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {bench.load.threads} threads", flush=True)
        for section in given.only:
            await getattr(bench, section)()
    return 0 if bench.table.kept else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
