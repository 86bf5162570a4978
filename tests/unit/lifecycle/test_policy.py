"""Who makes room for whom, and when what died may start again."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jand.lifecycle.policy import (
    CRASH_WINDOW_S,
    CRASHES_IN_LOOP,
    LONGEST_BACKOFF_S,
    Crashes,
    Refusal,
    Resident,
    Room,
    Wait,
    make_room,
    may_pass,
)


@st.composite
def houses(draw: st.DrawFn) -> tuple[int, int, list[Resident]]:
    """Draw a need, and a budget with residents that fit into it."""
    residents = [
        Resident(
            f"m{number}", draw(st.integers(0, 50)), draw(st.floats(0, 100)), draw(st.booleans()), draw(st.booleans())
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    budget = sum(resident.need for resident in residents) + draw(st.integers(0, 60))
    return draw(st.integers(0, 200)), budget, residents


@given(houses())
def test_a_busy_or_pinned_model_is_never_chosen_and_the_budget_never_exceeded(
    house: tuple[int, int, list[Resident]],
) -> None:
    need, budget, residents = house
    by_name = {resident.name: resident for resident in residents}
    decision = make_room(need, budget, residents)
    match decision:
        case Room(victims=victims):
            assert not any(by_name[name].busy or by_name[name].pinned for name in victims)
            stay = [resident for resident in residents if resident.name not in victims]
            assert sum(resident.need for resident in stay) + need <= budget
            for name in victims:
                assert sum(resident.need for resident in stay) + by_name[name].need + need > budget, (
                    "stopped for nothing"
                )
        case Wait(holders=holders):
            assert any(by_name[name].busy for name in holders)
            assert not any(by_name[name].pinned for name in holders)
            assert sum(resident.need for resident in residents if resident.pinned) + need <= budget
        case Refusal(free=free):
            assert need > free
            assert free == budget - sum(resident.need for resident in residents if resident.pinned)


@given(houses())
def test_waiting_ends_once_the_busy_ones_are_idle(house: tuple[int, int, list[Resident]]) -> None:
    need, budget, residents = house
    if isinstance(make_room(need, budget, residents), Wait):
        idle = [Resident(item.name, item.need, item.used_at, busy=False, pinned=item.pinned) for item in residents]
        assert isinstance(make_room(need, budget, idle), Room)


@given(houses(), st.integers(0, 60))
def test_who_passes_takes_free_memory_and_postpones_nobody(house: tuple[int, int, list[Resident]], need: int) -> None:
    """Whoever stops in whatever order: each set of those that stay leaves room for the head with the one that passed as without it, and only then it passes."""
    first, budget, residents = house
    fits = sum(resident.need for resident in residents) + need <= budget
    postpones = any(
        held + first <= budget < held + first + need
        for count in range(len(residents) + 1)
        for staying in itertools.combinations(residents, count)
        for held in [sum(resident.need for resident in staying)]
    )

    assert may_pass(need, first, budget, residents) is (fits and not postpones)


def test_among_very_many_residents_nobody_passes() -> None:
    assert not may_pass(1, 90, 100, [Resident(str(number), 2, 0.0) for number in range(13)])


def test_the_least_recently_used_goes_first() -> None:
    residents = [Resident("new", 10, used_at=2.0), Resident("old", 10, used_at=1.0)]

    assert make_room(10, 20, residents) == Room(("old",))


def test_what_was_not_needed_after_all_stays() -> None:
    residents = [Resident("small", 1, used_at=1.0), Resident("large", 10, used_at=2.0)]

    assert make_room(10, 11, residents) == Room(("large",))


def test_what_can_never_fit_is_refused_with_what_holds_the_rest() -> None:
    residents = [Resident("kept", 8, used_at=1.0, pinned=True)]

    assert make_room(5, 10, residents) == Refusal(2, ("kept",))
    assert make_room(11, 10, []) == Refusal(10)


def test_the_first_death_costs_no_time_and_each_further_one_twice_as_much() -> None:
    crashes = Crashes()
    waits = []
    for _ in range(8):
        crashes.note(100.0)
        waits.append(crashes.wait_s(100.0))

    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S]
    assert crashes.wait_s(100.0 + LONGEST_BACKOFF_S) == 0.0


def test_a_crash_loop_lasts_until_it_is_forgotten_and_deaths_far_apart_are_none() -> None:
    crashes = Crashes()
    for number in range(2 * CRASHES_IN_LOOP):
        crashes.note(number * CRASH_WINDOW_S / (CRASHES_IN_LOOP - 1))
    seen = [crashes.is_loop]
    for number in range(CRASHES_IN_LOOP):
        crashes.note(10_000.0 + number)
        seen.append(crashes.is_loop)
    crashes.note(20_000.0)
    seen.append(crashes.is_loop)
    crashes.forget()
    seen.append(crashes.is_loop)

    assert seen == [False] * CRASHES_IN_LOOP + [True, True, False]
