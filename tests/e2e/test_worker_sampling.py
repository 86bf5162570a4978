"""Every sampler that can be asked for does what it says, seen from the answers of a real worker with a model of random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from jand.engine.protocol import WorkerConfig
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, said, streamed, user
from tests.fakes.workers import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

LETTERS = b"abcdefghijklmnopqrstuvwxyz "
UNCLEAR = (0, 1, *range(259, 286), *(3 + letter for letter in LETTERS))
"""Letters of the tiny model and the byte tokens that make the same text: they are forbidden, so that a text says which token it was."""
BYTES: dict[str, Any] = {
    "messages": user("hello"),
    "ignore_eos": True,
    "logprobs": True,
    "logit_bias": [[token, False] for token in UNCLEAR],
}
HOT = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""A choice that is nearly free: what narrows it shows."""
FREE = 20
"""So many different tokens, and more, come first in 32 free choices."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ask(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    folder = tmp_path_factory.mktemp("sampling")
    (path,) = gguf_files.tiny_llama(folder / "tiny.gguf", vocab=())
    init = {"ctx_len": 256, "n_parallel": 16, "n_threads": 1}
    config = WorkerConfig("tiny", (str(path),), str(folder / "w.sock"), init=init)
    async with running(config) as started, Asker(started.socket) as asker:
        yield asker


async def likeliest(ask: Asker, count: int = 5) -> list[bytes]:
    """Return the tokens that the model itself finds likeliest first."""
    answer = await ask.ok(CHAT, **BYTES, max_tokens=1, temperature=0, top_logprobs=20)
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    found = [bytes(entry["bytes"]) for entry in top if len(entry["bytes"]) == 1 and entry["bytes"][0] not in LETTERS]
    return found[:count]


def tokens_of(choice: dict[str, Any]) -> list[bytes]:
    return [bytes(entry["bytes"]) for entry in choice["logprobs"]["content"]]


async def first_tokens(ask: Asker, **wanted: Any) -> list[bytes]:
    """Return the first token of 32 answers that differ in their seeds."""
    answer = await ask.ok(CHAT, **{**BYTES, "n": 32, "max_tokens": 1, "seed": 5, **HOT, **wanted})
    return [tokens_of(choice)[0] for choice in answer["choices"]]


async def tokens(ask: Asker, count: int = 40, **wanted: Any) -> list[bytes]:
    answer = await ask.ok(CHAT, **{**BYTES, "max_tokens": count, "temperature": 0, **wanted})
    found = tokens_of(answer["choices"][0])
    assert len(found) == count
    return found


async def test_free_choice_is_free(ask: Asker) -> None:
    assert len(set(await first_tokens(ask))) >= FREE


@pytest.mark.parametrize(
    "narrow",
    [
        {"temperature": 0},
        {"top_k": 1},
        {"top_p": 0.0001},
        {"min_p": 1.0},
        {"top_n_sigma": 0.001},
        {"temperature": 0.01},
        {"mirostat": 1, "mirostat_tau": 0.0, "temperature": 0.05},
        {"mirostat": 2, "mirostat_tau": 0.0},
    ],
    ids=str,
)
async def test_narrowest_choice_is_the_likeliest_token(ask: Asker, narrow: dict[str, Any]) -> None:
    assert set(await first_tokens(ask, **narrow)) == {(await likeliest(ask, 1))[0]}


@pytest.mark.parametrize("narrow", [{"top_k": 3}, {"top_p": 0.0001, "min_keep": 3}, {"min_p": 1.0, "min_keep": 3}])
async def test_cut_leaves_as_many_as_it_says(ask: Asker, narrow: dict[str, Any]) -> None:
    assert set(await first_tokens(ask, **narrow)) == set((await likeliest(ask))[:3])


async def test_xtc_leaves_the_likeliest_ones_out(ask: Asker) -> None:
    best = await likeliest(ask)
    found = await first_tokens(ask, top_k=5, xtc_probability=1.0, xtc_threshold=0.0001)
    assert set(found) == {best[4]}
    assert set(await first_tokens(ask, top_k=5, xtc_probability=0.0, xtc_threshold=0.0001)) == set(best[:5])


async def test_typical_cuts_what_is_not(ask: Asker) -> None:
    assert len(set(await first_tokens(ask, typical_p=0.01))) < FREE


@pytest.mark.parametrize("mirostat", [1, 2])
async def test_mirostat_follows_its_target(ask: Asker, mirostat: int) -> None:
    low = await first_tokens(ask, temperature=1, mirostat=mirostat, mirostat_tau=1.0)
    high = await first_tokens(ask, temperature=1, mirostat=mirostat, mirostat_tau=9.0)
    assert len(set(low)) < len(set(high))
    body = {"temperature": 1, "mirostat": mirostat, "seed": 3}
    assert await tokens(ask, 20, **body) == await tokens(ask, 20, **body)


async def test_dynamic_temperature_ranges_from_cold_to_hot(ask: Asker) -> None:
    """The model of random weights is as unsure as can be, so the upper end counts."""
    cold = await first_tokens(ask, temperature=0.2)
    warmed = await first_tokens(ask, temperature=0.2, dynatemp_range=5.0)
    assert len(set(warmed)) > len(set(cold))
    assert len(set(await first_tokens(ask, temperature=0.2, dynatemp_range=5.0, dynatemp_exponent=100))) <= len(
        set(warmed)
    )


@pytest.mark.parametrize(
    "penalty",
    [
        {"presence_penalty": 10},
        {"frequency_penalty": 10},
        {"repeat_penalty": 100},
        {"repeat_penalty": 100, "repeat_last_n": -1},
    ],
    ids=str,
)
async def test_penalised_tokens_do_not_come_again(ask: Asker, penalty: dict[str, Any]) -> None:
    plain = await tokens(ask)
    assert len(set(plain)) < len(plain)
    assert len(set(await tokens(ask, **penalty))) == 40


async def test_penalties_look_back_as_far_as_they_are_told(ask: Asker) -> None:
    found = await tokens(ask, presence_penalty=10, repeat_last_n=3)
    assert all(token not in found[max(0, at - 3) : at] for at, token in enumerate(found))
    assert len(set(found)) < len(found)
    assert await tokens(ask, presence_penalty=10, repeat_last_n=0) == await tokens(ask)


async def test_penalties_count_the_prompt(ask: Asker) -> None:
    prompt = [1, *range(3, 60)]
    wanted = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True, "repeat_last_n": -1}
    forced = {"logit_bias": {"20": 50, "80": 45}}
    assert said(await ask.ok(TEXT, **wanted, **forced)) == chr(17)
    assert said(await ask.ok(TEXT, **wanted, **forced, presence_penalty=10)) == chr(77)


def longest_repeat(found: list[bytes]) -> int:
    """Return the length of the longest run of tokens that stands in *found* twice."""
    return max(
        size
        for size in range(len(found))
        if size == 0
        or len({tuple(found[at : at + size]) for at in range(len(found) - size + 1)}) < len(found) - size + 1
    )


async def test_dry_breaks_what_repeats_itself(ask: Asker) -> None:
    plain = await tokens(ask, 120)
    assert longest_repeat(plain) > 10
    dry = {"dry_multiplier": 50.0, "dry_base": 4.0, "dry_allowed_length": 3, "dry_sequence_breakers": ["\u2400"]}
    assert longest_repeat(await tokens(ask, 120, **dry)) <= 4
    assert longest_repeat(await tokens(ask, 120, **dry, dry_penalty_last_n=0)) == longest_repeat(plain)


async def test_bias_forces_and_forbids(ask: Asker) -> None:
    best = await likeliest(ask)
    assert set(await first_tokens(ask, logit_bias={"8": 1000})) == {b"\x05"}
    assert best[0] not in await first_tokens(ask, logit_bias=[[3 + best[0][0], False]], top_k=2)


async def test_end_is_never_chosen_where_it_is_to_be_ignored(ask: Asker) -> None:
    ended = await ask.ok(TEXT, prompt="hello", max_tokens=30, logit_bias={"2": 1000})
    assert (said(ended), ended["choices"][0]["finish_reason"]) == ("", "stop")
    ignored = await ask.ok(TEXT, prompt="hello", max_tokens=30, logit_bias={"2": 1000}, ignore_eos=True)
    assert ignored["usage"]["completion_tokens"] == 30


async def test_logprobs_of_a_stream_are_those_of_the_whole(ask: Asker) -> None:
    wanted = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    whole = await ask.ok(CHAT, messages=user("hello"), logprobs=True, top_logprobs=4, **wanted)
    events = await ask.stream(CHAT, messages=user("hello"), logprobs=True, top_logprobs=4, **wanted)
    told = [event["choices"][0]["logprobs"] for event in events if event["choices"][0].get("logprobs")]
    parts = [entry for each in told for entry in each["content"]]
    assert [entry["token"] for entry in parts] == [
        entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]
    ]
    assert streamed(events) == said(whole)
    assert all(len(entry["top_logprobs"]) == 4 for entry in parts)
