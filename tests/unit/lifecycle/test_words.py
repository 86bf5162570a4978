"""What workers wrote is kept for a while, within bounds, and without secrets."""

from __future__ import annotations

import asyncio
import contextlib

from jand.lifecycle import words as words_module
from jand.lifecycle.words import MOST_CHARS, MOST_LINES, MOST_MODELS, Words
from jand.log import SECRETS


def texts(words: Words, model: str, most: int = 10_000) -> list[str]:
    return [line.text for line in words.last(model, most)]


async def test_the_last_lines_are_kept_in_order() -> None:
    words = Words()
    for number in range(MOST_LINES + 5):
        words.add("m", str(number))

    assert texts(words, "m")[:2] == ["5", "6"]
    assert texts(words, "m", 2) == [str(MOST_LINES + 3), str(MOST_LINES + 4)]
    assert texts(words, "m", 0) == []
    assert texts(words, "other") == []


async def test_long_lines_and_many_models_stay_within_bounds() -> None:
    words = Words()
    for _ in range(3 * MOST_CHARS // 1000):
        words.add("m", "x" * 1000)
    for number in range(2 * MOST_MODELS):
        words.add(f"model {number}", "y")

    assert sum(map(len, texts(words, f"model {2 * MOST_MODELS - 1}"))) == 1
    assert texts(words, "m") == [], "the one that was silent for longest is forgotten"
    for _ in range(3 * MOST_CHARS // 1000):
        words.add("m", "x" * 1000)
    assert MOST_CHARS - 1000 <= sum(map(len, texts(words, "m"))) <= MOST_CHARS


async def test_secrets_are_masked() -> None:
    SECRETS.add(["sk-of-a-worker"])
    words = Words()
    words.add("m", "header: sk-of-a-worker")

    assert texts(words, "m") == ["header: ***"]


async def test_who_follows_gets_what_is_kept_and_then_what_comes_once_each() -> None:
    words = Words()
    words.add("m", "before")
    words.add("m", "kept")
    (first, _) = words.last("m", 2)
    seen: list[str] = []

    async def listen() -> None:
        async for line in words.follow("m", first.number):
            seen.append(line.text)  # noqa: PERF401 - it is looked at before the loop ends

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    words.add("other", "not this one")
    words.add("m", "later")
    words.add("m", "again")
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert seen == ["kept", "later", "again"]


def test_numbers_go_on_growing_over_a_restart() -> None:
    first = Words()
    first.add("m", "x")
    later = words_module.Words()
    later.add("m", "y")

    assert later.last("m", 1)[0].number >= first.last("m", 1)[0].number
