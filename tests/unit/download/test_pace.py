"""Places, pauses and bandwidth, each on its own; time passes by itself in these tests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.download.pace import Bandwidth, Pauses
from jand.download.slots import Slots

pytestmark = pytest.mark.looptime


async def test_a_limit_is_kept_to_within_two_percent() -> None:
    limiter = Bandwidth(5_000_000)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def take(count: int) -> None:
        for _ in range(count):
            await limiter.take(100_000)

    await asyncio.gather(take(100), take(300), take(100))
    assert loop.time() - began == pytest.approx(10, rel=0.02)


async def test_a_pause_in_taking_is_not_saved_up() -> None:
    limiter = Bandwidth(1_000_000)
    loop = asyncio.get_running_loop()
    await limiter.take(1000)
    await asyncio.sleep(100)
    began = loop.time()
    await limiter.take(1_000_000)
    assert loop.time() - began == pytest.approx(1)


async def test_no_limit_costs_no_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await Bandwidth(None).take(10**12)
    assert loop.time() == began


@given(st.integers(1, 10**12))
def test_one_piece_keeps_others_waiting_for_at_most_a_twentieth_of_a_second_where_pieces_are_not_tiny(
    rate: int,
) -> None:
    assert Bandwidth(rate).most / rate <= 0.05 or Bandwidth(rate).most == 16 << 10


async def test_a_pause_holds_for_its_quota_alone_and_can_grow() -> None:
    pauses = Pauses()
    loop = asyncio.get_running_loop()
    began = loop.time()
    pauses.set("https://h.example/u/r/resolve/main/x", 5)
    await pauses.wait("https://h.example/api/models/u/r")
    await pauses.wait("https://other.example/x")
    assert loop.time() == began
    loop.call_later(3, pauses.set, "https://h.example/y", 10)
    await pauses.wait("https://h.example/z")
    assert loop.time() - began == pytest.approx(13)
    await pauses.wait("https://h.example/z")
    assert loop.time() - began == pytest.approx(13)


async def serve(slots: Slots, owner: str, served: list[str], seconds: float = 1) -> None:
    async with slots.hold(owner):
        served.append(owner)
        await asyncio.sleep(seconds)


async def test_a_place_goes_to_the_owner_with_the_fewest() -> None:
    slots = Slots(2)
    served: list[str] = []
    tasks = [asyncio.ensure_future(serve(slots, owner, served)) for owner in ["large"] * 6 + ["small"]]
    await asyncio.gather(*tasks)
    assert served[:3] == ["large", "large", "small"]


async def test_owners_take_turns() -> None:
    slots = Slots(1)
    served: list[str] = []
    tasks = [asyncio.ensure_future(serve(slots, owner, served)) for owner in ["a"] * 3 + ["b"] * 3 + ["c"] * 3]
    await asyncio.gather(*tasks)
    assert "".join(served) == "abcabcabc"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=20), st.integers(1, 3))
def test_no_place_is_lost_whoever_gives_up(waiters: list[tuple[str, bool]], most: int) -> None:
    async def scenario() -> None:
        slots = Slots(most)
        served: list[str] = []
        tasks = [asyncio.ensure_future(serve(slots, owner, served, 0.001)) for owner, _ in waiters]
        await asyncio.sleep(0)
        for task, (_, gives_up) in zip(tasks, waiters, strict=True):
            if gives_up:
                task.cancel()
        await asyncio.wait(tasks)
        await asyncio.wait_for(asyncio.gather(*(serve(slots, "late", served, 0) for _ in range(most))), 1)
        assert served.count("late") == most

    asyncio.run(scenario())
