"""The state table: what is shown, and that nothing gets stuck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.model.record import PublicState, Transition
from jand.model.state import TABLE, Happening, State, find_next, public


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        (State.DOWNLOADING, (PublicState.DOWNLOADING, None)),
        (State.DOWNLOADED, (PublicState.DOWNLOADED, None)),
        (State.STARTING, (PublicState.DOWNLOADED, Transition.STARTING)),
        (State.RUNNING, (PublicState.RUNNING, None)),
        (State.STOPPING, (PublicState.RUNNING, Transition.STOPPING)),
    ],
)
def test_public_state(state: State, shown: tuple[PublicState, Transition | None]) -> None:
    assert public(state) == shown


def test_what_runs_is_not_moved_by_the_disk() -> None:
    for state in (State.STARTING, State.RUNNING, State.STOPPING):
        assert find_next(state, Happening.WHOLE) is None
        assert find_next(state, Happening.NOT_WHOLE) is None


def test_every_state_can_be_left_and_reached() -> None:
    assert {state for state, _ in TABLE} == set(State)
    assert set(TABLE.values()) == set(State)


@given(st.lists(st.sampled_from(Happening)))
def test_a_model_that_is_whole_can_always_be_brought_to_running(happenings: list[Happening]) -> None:
    state = State.DOWNLOADING
    for happening in happenings:
        state = find_next(state, happening) or state
    way = [
        Happening.STOP,
        Happening.GONE,
        Happening.FAILED,
        Happening.DIED,
        Happening.WHOLE,
        Happening.START,
        Happening.READY,
    ]
    for happening in way:
        state = find_next(state, happening) or state

    assert state is State.RUNNING
