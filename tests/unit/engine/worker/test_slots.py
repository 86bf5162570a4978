"""Which slot a prompt gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.slots import Slot, choose_slot, common_prefix

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
    ],
)
def test_slot_that_holds_most_else_empty_else_longest_idle(slots: list[Slot], chosen: int | None) -> None:
    slot = choose_slot(slots, [1, 2, 3, 4])
    assert (None if slot is None else slot.number) == chosen


def test_a_few_common_tokens_do_not_cost_another_conversation_its_memory() -> None:
    slots = [Slot(0, [1, *range(50)], used_at=2), Slot(1)]
    chosen = choose_slot(slots, [1, *range(100, 200)])
    assert chosen is slots[1]
