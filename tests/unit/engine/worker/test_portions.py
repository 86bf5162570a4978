"""How much of the prompts a step reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.portions import FIRST_CHUNK, LEAST_CHUNK, STEP_S, YOUNG_CHUNKS, Portions

CAPACITY = 2048


def read_all(prompts: list[int], portions: Portions, *, young: bool = True) -> list[list[int]]:
    """Return which prompts each step ends."""
    left, steps, flowing = list(prompts), [], 0
    while any(left):
        shares = portions.share(left, flowing=flowing, young=young)
        assert 0 < sum(shares) <= CAPACITY - flowing
        ended = [number for number, share in enumerate(shares) if share and share == left[number]]
        left = [tokens - share for tokens, share in zip(left, shares, strict=True)]
        assert min(left) >= 0
        flowing += len(ended)
        steps.append(ended)
    return steps


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("length", [46, 47, 100])
def test_what_comes_together_is_read_in_two_passes_half_each(count: int, length: int) -> None:
    half = count // 2
    portions = Portions(CAPACITY)
    portions.chunk = 200

    assert read_all([length] * count, portions) == [list(range(half)), list(range(half, count))]


def test_short_prompts_are_read_at_once() -> None:
    assert read_all([16] * 8, Portions(CAPACITY)) == [list(range(8))]


def test_one_prompt_alone_has_the_whole_batch() -> None:
    assert Portions(CAPACITY).share([10_000], flowing=0, young=True) == [CAPACITY]
    assert Portions(CAPACITY).share([1_000], flowing=0, young=True) == [1_000]


def test_beside_an_answer_that_flows_little_is_read_and_beside_one_that_begins_more() -> None:
    portions = Portions(CAPACITY)

    assert portions.share([100, 1_000, 1_000], flowing=1, young=False) == [100, FIRST_CHUNK - 100, 0]
    assert sum(portions.share([2_000], flowing=1, young=True)) == YOUNG_CHUNKS * FIRST_CHUNK


@pytest.mark.parametrize("token_s", [1e-5, 0.0005, 0.005])
def test_steps_come_to_take_as_long_as_they_may(token_s: float) -> None:
    portions = Portions(CAPACITY)
    for _ in range(50):
        portions.record(portions.chunk, portions.chunk * token_s)

    fitting = max(LEAST_CHUNK, min(CAPACITY, STEP_S / token_s))
    assert portions.chunk == pytest.approx(fitting, rel=0.05)


@given(
    st.lists(st.integers(1, 5_000), min_size=1, max_size=8),
    st.integers(LEAST_CHUNK, CAPACITY),
    st.booleans(),
)
def test_every_prompt_is_read_to_its_end(prompts: list[int], chunk: int, young: bool) -> None:
    portions = Portions(CAPACITY)
    portions.chunk = chunk

    ended = read_all(prompts, portions, young=young)

    assert sorted(number for step in ended for number in step) == list(range(len(prompts)))
