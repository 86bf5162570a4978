"""When entries are scanned and when they have settled, with a clock made of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.library.settle import Key, Pace, Settler

PACE = Pace(settle_s=2.0, debounce_s=0.002, burst=4, refill_s=0.1, flow_s=0.5, rest_factor=3.0, longest_rest_s=7.0)
A: Key = ("models", "a")
B: Key = ("models", "b")


def settler() -> Settler:
    return Settler(PACE, started_at=0.0)


def next_due(subject: Settler) -> float:
    due_at = subject.next_due_at()
    assert due_at is not None
    return due_at


def test_a_touch_is_answered_after_the_debounce_and_not_before() -> None:
    subject = settler()
    subject.touch(A, 10.0)

    assert subject.take_touched(10.001) is None
    assert subject.next_due_at() == pytest.approx(10.002)
    assert subject.take_touched(10.003) == A
    assert subject.take_touched(11.0) is None


def test_further_touches_do_not_put_the_answer_off() -> None:
    subject = settler()
    for number in range(20):
        subject.touch(A, 10.0 + number / 10_000)

    assert subject.take_touched(10.002) == A


def test_a_touch_during_a_scan_is_answered_by_another_scan() -> None:
    subject = settler()
    subject.touch(A, 10.0)
    assert subject.take_touched(10.01) == A
    subject.touch(A, 10.02)

    assert subject.take_touched(10.03) is None
    subject.done(A, 10.04)
    assert subject.take_touched(10.05) == A


def test_a_burst_is_answered_at_once_and_a_storm_once_in_every_refill() -> None:
    subject = settler()
    taken = []
    for step in range(2000):
        now = 10.0 + step / 1000
        subject.touch(A, now)
        if subject.take_touched(now) is not None:
            taken.append(now)
            subject.done(A, now)

    assert taken[PACE.burst - 1] < 10.1
    assert len(taken) <= PACE.burst + 2.0 / PACE.refill_s + 1


def test_growth_alone_is_answered_at_once_and_then_rarely() -> None:
    subject = settler()
    taken = []
    for step in range(2000):
        now = 10.0 + step / 1000
        subject.touch(A, now, flow=True)
        if subject.take_touched(now) is not None:
            taken.append(now)
            subject.done(A, now)

    assert taken[0] < 10.01
    assert len(taken) <= 1 + 2.0 / PACE.flow_s


def test_the_end_of_a_long_growth_is_answered_at_once() -> None:
    subject = settler()
    for step in range(100):
        now = 10.0 + step / 100
        subject.touch(A, now, flow=True)
        if subject.take_touched(now) is not None:
            subject.done(A, now)
    subject.touch(A, 11.0)

    assert next_due(subject) == pytest.approx(11.0 + PACE.debounce_s)


def test_an_entry_rests_in_proportion_to_what_its_scan_took() -> None:
    subject = settler()
    subject.touch(A, 10.0)
    assert subject.take_touched(10.1) == A
    subject.done(A, 12.0, cost_s=2.0)
    subject.touch(A, 12.1)

    assert next_due(subject) == pytest.approx(18.0)
    assert subject.take_touched(18.1) == A
    subject.done(A, 20.0, cost_s=100.0)
    subject.touch(A, 20.1)
    assert next_due(subject) == pytest.approx(27.0)


def test_a_recheck_comes_without_any_touch_and_is_no_change() -> None:
    subject = settler()
    subject.queue([A])
    assert subject.take_queued(10.0, 5) == [A]
    subject.done(A, 10.0, recheck_after_s=0.7)

    assert subject.next_due_at() == pytest.approx(10.7)
    assert subject.touched == 0
    assert subject.take_touched(10.71) == A
    assert subject.settled_at(A) == PACE.settle_s


def test_a_touch_takes_the_place_of_the_recheck() -> None:
    subject = settler()
    subject.queue([A])
    subject.take_queued(10.0, 5)
    subject.done(A, 10.0, recheck_after_s=5.0)
    subject.touch(A, 10.1)
    assert subject.take_touched(10.2) == A
    subject.done(A, 10.2)

    assert subject.next_due_at() is None


def test_touched_entries_are_taken_out_of_the_queue() -> None:
    subject = settler()
    subject.queue([A, B])
    subject.touch(B, 10.0)

    assert subject.take_touched(10.1) == B
    assert subject.take_queued(10.1, 5) == [A]


def test_what_is_queued_while_it_is_in_hand_is_scanned_once_more() -> None:
    subject = settler()
    subject.queue([A])
    assert subject.take_queued(10.0, 5) == [A]
    subject.queue([A])

    assert subject.take_queued(10.1, 5) == []
    subject.done(A, 10.2)
    assert subject.is_queued(A)
    assert subject.take_queued(10.3, 5) == [A]


def test_what_is_given_back_is_queued_again() -> None:
    subject = settler()
    subject.touch(A, 10.0)
    assert subject.take_touched(10.1) == A
    subject.touch(A, 10.11)
    subject.give_back(A)

    assert subject.take_touched(20.0) is None
    assert subject.take_queued(20.0, 5) == [A]


def test_an_entry_settles_after_quiet_and_never_before_the_start_has_settled() -> None:
    subject = Settler(PACE, started_at=100.0)
    assert subject.settled_at(A) == 102.0
    subject.touch(A, 150.0, flow=True)
    assert subject.settled_at(A) == 152.0
    subject.note_change(A, 151.0)
    assert subject.settled_at(A) == 153.0


def test_a_collapse_forgets_the_touches_of_one_tree_and_no_recheck() -> None:
    subject = settler()
    other: Key = ("/elsewhere", "a")
    subject.queue([B])
    subject.take_queued(9.0, 1)
    subject.done(B, 9.0, recheck_after_s=1.5)
    subject.touch(A, 10.0)
    subject.touch(other, 10.0)
    subject.collapse("models")

    assert subject.touched == 1
    assert subject.take_touched(11.0) == other
    assert subject.take_touched(11.0) == B


def test_quiet_entries_are_forgotten_and_busy_ones_are_not() -> None:
    subject = settler()
    subject.touch(A, 10.0)
    subject.touch(B, 10.0)
    assert subject.take_touched(10.1) is not None
    subject.forget_quiet(1000.0)

    assert subject.busy(A)
    assert subject.busy(B)
    subject.done(A, 1000.0)
    subject.done(B, 1000.0)
    subject.forget_quiet(2000.0)
    assert not subject.busy(A)
    assert subject.settled_at(A) == PACE.settle_s


@dataclass
class Simulation:
    """A settler, a clock, and scans that each take *cost_s*."""

    subject: Settler = field(default_factory=settler)
    now: float = 0.0
    hand: dict[Key, tuple[float, float]] = field(default_factory=dict)
    touched_at: dict[Key, float] = field(default_factory=dict)
    scanned_at: dict[Key, float] = field(default_factory=dict)

    def act(self, key: Key, action: str) -> None:
        if action == "queue":
            self.subject.queue([key])
        elif action != "wait":
            self.subject.touch(key, self.now, flow=action == "flow")
            self.touched_at[key] = self.now
            assert self.subject.settled_at(key) == self.now + PACE.settle_s

    def work(self, seconds: float, cost_s: float) -> None:
        """Begin and end scans as they are due."""
        until = self.now + seconds
        while (moment := self._next_moment()) <= until:
            self.now = moment
            for key in [key for key, (_, end) in self.hand.items() if end <= self.now]:
                self.scanned_at[key] = self.hand.pop(key)[0]
                self.subject.done(key, self.now, cost_s=cost_s)
            taken = self.subject.take_touched(self.now)
            for key in [taken] if taken is not None else self.subject.take_queued(self.now, 1):
                assert key not in self.hand
                self.hand[key] = (self.now, self.now + cost_s)
        self.now = until

    def _next_moment(self) -> float:
        ends = [end for _, end in self.hand.values()]
        due_at = self.subject.next_due_at()
        queued = [self.now] if self.subject.queued else []
        return max(self.now, min([*ends, *queued, math.inf if due_at is None else due_at]))


plans = st.lists(
    st.tuples(
        st.sampled_from([A, B]),
        st.sampled_from(["touch", "flow", "queue", "wait"]),
        st.floats(0.0, 0.3, allow_nan=False),
        st.floats(0.0001, 0.05, allow_nan=False),
    ),
    max_size=60,
)


@given(plans)
def test_every_touch_is_answered_by_a_scan_that_begins_after_it(plan: list[tuple[Key, str, float, float]]) -> None:
    """Whatever is touched whenever, one entry is in one hand at a time, and the last scan of it began after its last touch."""
    simulation = Simulation()
    for key, action, pause_s, cost_s in plan:
        simulation.work(pause_s, cost_s)
        simulation.act(key, action)
    simulation.work(100.0, 0.01)

    assert simulation.subject.touched == 0
    assert simulation.subject.queued == 0
    for key, touched_at in simulation.touched_at.items():
        assert simulation.scanned_at[key] >= touched_at


@given(st.lists(st.floats(0.0, 0.05, allow_nan=False), min_size=1, max_size=200))
def test_scans_of_one_entry_are_bounded_by_burst_and_refill(pauses: list[float]) -> None:
    subject = settler()
    now, scans = 0.0, 0
    for pause_s in pauses:
        now += pause_s
        subject.touch(A, now)
        if subject.take_touched(now) is not None:
            scans += 1
            subject.done(A, now)

    assert scans <= PACE.burst + now / PACE.refill_s + 1
