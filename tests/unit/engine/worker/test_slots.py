"""Which slot a prompt gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.slots import Slot, are_scattered, choose_exchange, choose_slot, common_prefix

if TYPE_CHECKING:
    from jand.engine.worker.slots import Work

BUSY = cast("Work", object())


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_common_prefix_is_where_both_first_differ(held: list[int], wanted: list[int]) -> None:
    count = common_prefix(held, wanted)
    assert held[:count] == wanted[:count]
    assert count == min(len(held), len(wanted)) or held[count] != wanted[count]


@pytest.mark.parametrize(
    ("slots", "chosen"),
    [
        ([Slot(0), Slot(1)], 0),
        ([Slot(0, [9, 9], used_at=1), Slot(1)], 1),
        ([Slot(0, [9, 9], used_at=2), Slot(1, [8], used_at=1)], 1),
        ([Slot(0), Slot(1, [1, 2], used_at=5)], 1),
        ([Slot(0, [1, 2, 3], work=BUSY), Slot(1, [1, 2]), Slot(2)], 1),
        ([Slot(0, [1], work=BUSY)], None),
        ([Slot(0), Slot(1), Slot(2, [8], work=BUSY), Slot(3)], 1),
        ([Slot(0, [1, 2], used_at=1), Slot(1, [1, 2], used_at=2), Slot(2, [8], work=BUSY)], 1),
        ([Slot(0, [1, 2], used_at=2), Slot(1, [1, 2], used_at=1), Slot(2)], 1),
    ],
)
def test_slot_that_holds_most_else_empty_else_longest_idle(slots: list[Slot], chosen: int | None) -> None:
    slot = choose_slot(slots, [1, 2, 3, 4])
    assert (None if slot is None else slot.number) == chosen


def test_a_few_common_tokens_do_not_cost_another_conversation_its_memory() -> None:
    slots = [Slot(0, [1, *range(50)], used_at=2), Slot(1)]
    chosen = choose_slot(slots, [1, *range(100, 200)])
    assert chosen is slots[1]


def test_another_conversation_is_not_dropped_for_what_all_begin_with() -> None:
    prompt = [*range(20), *range(100, 120)]
    slots = [Slot(0, [*range(20), *range(200, 1200)], used_at=2), Slot(1, [*range(20), *range(300, 330)], used_at=1)]
    assert choose_slot([*slots, Slot(2)], prompt) is slots[1]
    empty = Slot(2)
    assert choose_slot([slots[0], empty], prompt) is empty


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=9))
def test_exchanges_close_every_gap_by_the_fewest_moves(given: list[tuple[bool, int]]) -> None:
    slots = [Slot(number, [0] * held, work=BUSY if busy else None) for number, (busy, held) in enumerate(given)]
    busy = [slot.number for slot in slots if slot.work]
    windows = [range(start, start + len(busy)) for start in range(len(slots) - len(busy) + 1)]
    for _ in range(len(busy) - max(sum(number in window for number in busy) for window in windows)):
        assert are_scattered(slots)
        moved, free = choose_exchange(slots)
        assert moved.work is not None
        assert free.work is None
        moved.number, free.number = free.number, moved.number
        slots.sort(key=lambda slot: slot.number)
    assert not are_scattered(slots)
