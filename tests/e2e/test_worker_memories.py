"""Models whose memory is not a Llama's: what is kept of a conversation never changes what is said next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from jand.engine.protocol import WorkerConfig
from tests.fakes import gguf_files, gguf_memories
from tests.fakes.asking import TEXT, Asker, said, streamed
from tests.fakes.workers import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from jand.engine.process import Worker

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

LONG = 3 * gguf_memories.WINDOW
WRITERS: dict[str, Callable[[Path], Path]] = {
    "gemma": gguf_memories.tiny_gemma,
    "mamba": gguf_memories.tiny_mamba,
    "llama": lambda path: gguf_files.tiny_llama(path)[0],
}
PARALLEL = 3
WHOLE = 300
"""Tokens of an answer that still flows when another, however late it is asked for, has ended."""


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["gemma", "mamba", "llama"])
async def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    folder = tmp_path_factory.mktemp(request.param)
    init = {"ctx_len": 512, "n_parallel": PARALLEL, "n_threads": 1, "n_batch": 64}
    config = WorkerConfig(
        request.param, (str(WRITERS[request.param](folder / "m.gguf")),), str(folder / "w.sock"), init=init
    )
    async with running(config) as started:
        assert started.details["prefix_reuse"] is (request.param != "mamba")
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def ask(worker: Worker) -> AsyncIterator[Asker]:
    async with Asker(worker.socket) as asker:
        yield asker


async def answer(ask: Asker, prompt: list[int], **more: Any) -> tuple[str, int]:
    """Return what is said after *prompt* and how many of its tokens were known."""
    wanted = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, **more}
    found = await ask.ok(TEXT, prompt=prompt, **wanted)
    return said(found), found["usage"]["prompt_tokens_details"]["cached_tokens"]


def numbers(seed: int, count: int = LONG) -> list[int]:
    return [1, *(3 + (seed * 31 + 7 * at + at * at) % 250 for at in range(count - 1))]


async def test_conversation_that_goes_on_is_not_read_again(ask: Asker) -> None:
    prompt = numbers(1)
    await answer(ask, prompt, max_tokens=1)
    longer = [*prompt, 9, 8, 7]
    known = await answer(ask, longer)
    assert known[1] == len(prompt)
    assert known[0] == (await answer(ask, longer, cache_prompt=False))[0]


@pytest.mark.parametrize("shared", [1, LONG // 2, LONG - 3])
async def test_conversation_that_turns_elsewhere_forgets_what_it_must(worker: Worker, ask: Asker, shared: int) -> None:
    """The window may have let go of what the next token would look at, and a recurrent state holds what is to be forgotten: nothing would report it."""
    first = numbers(2)
    await answer(ask, first)
    other = [*first[:shared], *numbers(100 + shared, 40)[1:]]
    known = await answer(ask, other)
    assert known[0] == (await answer(ask, other, cache_prompt=False))[0]
    if shared > 1:  # for a single token no slot is preferred
        assert known[1] == (shared if worker.details["prefix_reuse"] else 0)
    same = await answer(ask, other)
    assert same[0] == known[0]


async def test_conversations_side_by_side_do_not_disturb_one_another(ask: Asker) -> None:
    prompts = [numbers(number, 20 + 23 * number) for number in range(3, 3 + 2 * PARALLEL)]
    alone = [(await answer(ask, prompt, cache_prompt=False))[0] for prompt in prompts]
    assert len(set(alone)) > PARALLEL
    together = await asyncio.gather(*(answer(ask, prompt) for prompt in prompts))
    assert [text for text, _ in together] == alone


async def test_several_answers_to_one_prompt_agree(ask: Asker) -> None:
    found = await ask.ok(TEXT, prompt=numbers(50), n=PARALLEL, max_tokens=10, temperature=0, ignore_eos=True)
    assert len({choice["text"] for choice in found["choices"]}) == 1


async def test_answers_that_lie_scattered_change_places_and_lose_nothing(ask: Asker) -> None:
    """The middle one of three ends first; the last takes its place, for neighbours are decoded together. Both go on as they would alone, and the middle one's prompt is still known."""
    prompts = [numbers(60 + number, 40 + number) for number in range(PARALLEL)]
    alone = [(await answer(ask, prompt, cache_prompt=False, max_tokens=WHOLE))[0] for prompt in prompts]
    held = (await ask.get("/health"))["cached_tokens"]
    middle = held[1] - (WHOLE - 1) - 40  # which of them lies there
    lengths = [12 if number == middle else WHOLE for number in range(PARALLEL)]
    texts = [
        streamed(events)
        for events in await asyncio.gather(
            *(
                ask.stream(TEXT, prompt=prompt, max_tokens=length, temperature=0, ignore_eos=True)
                for prompt, length in zip(prompts, lengths, strict=True)
            )
        )
    ]
    assert all(whole.startswith(text) for whole, text in zip(alone, texts, strict=True))
    assert [text == whole for whole, text in zip(alone, texts, strict=True)] == [length == WHOLE for length in lengths]
    known = len(prompts[middle]) + 12 - 1
    assert (await ask.get("/health"))["cached_tokens"] == [held[0], held[2], known]
    assert (await answer(ask, prompts[middle]))[0] == texts[middle]


async def test_what_another_conversation_holds_is_copied_and_means_the_same(worker: Worker, ask: Asker) -> None:
    """Copied while its donor goes on: the beginning of three prompts is read once, also where layers see no more than a window of it."""
    shared = numbers(80)
    prompts = [[*shared, 9 + number, 7] for number in range(PARALLEL)]
    alone = [(await answer(ask, prompt, cache_prompt=False))[0] for prompt in prompts]
    await answer(ask, shared, max_tokens=1)
    found = await asyncio.gather(*(answer(ask, prompt) for prompt in prompts))
    assert [text for text, _ in found] == alone
    if worker.details["prefix_reuse"]:
        assert all(known >= len(shared) - 1 for _, known in found)
