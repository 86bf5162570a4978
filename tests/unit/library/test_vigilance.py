"""When the watch is tried out, and what a try means, with a clock made of numbers."""

from __future__ import annotations

import itertools

import pytest

from jand.library.vigilance import Audit, CookieProbe, Gaps, Pauses, Vigilance

VIGILANCE = Vigilance(cookie_s=5.0, cookie_idle_s=60.0, cookie_timeout_s=3.0, pause_s=0.1, longest_pause_s=30.0)


def test_a_new_watch_is_tried_at_once() -> None:
    probe = CookieProbe(VIGILANCE)
    probe.begin(100.0)
    assert probe.is_due(100.0)


def test_a_cookie_that_does_not_come_back_in_time_is_overdue() -> None:
    probe = CookieProbe(VIGILANCE)
    probe.begin(100.0)
    probe.plan_next(100.0)
    probe.placed("cookie", 100.0)
    assert not probe.is_due(200.0)
    assert not probe.is_overdue(103.0)
    assert probe.is_overdue(103.1)
    probe.came_back({"another"})
    assert probe.is_overdue(103.1)
    probe.came_back({"cookie"})
    assert not probe.is_overdue(1000.0)


def test_an_event_may_come_before_its_cookie_is_noted() -> None:
    probe = CookieProbe(VIGILANCE)
    probe.plan_next(100.0)
    probe.came_back({"cookie"})
    probe.placed("cookie", 100.0)
    assert not probe.is_overdue(1000.0)


def test_an_idle_tree_gets_fewer_cookies_up_to_a_bound_and_an_active_one_gets_them_soon() -> None:
    """Every cookie is a write that keeps a disk awake."""
    probe = CookieProbe(VIGILANCE)
    probe.begin(0.0)
    placed_at, now = [], 0.0
    while now < 600.0:
        if probe.is_due(now):
            probe.plan_next(now)
            placed_at.append(now)
        now += 0.5
    pauses = [later - earlier for earlier, later in itertools.pairwise(placed_at)]
    assert pauses[0] == VIGILANCE.cookie_s
    assert pauses[-1] == VIGILANCE.cookie_idle_s
    assert pauses == sorted(pauses)
    probe.note_activity(600.0)
    assert probe.is_due(605.0)
    probe.hurry(601.0)
    assert probe.is_due(601.0)


def test_the_first_failure_costs_no_pause_and_quick_ones_longer_and_longer_pauses() -> None:
    pauses = Pauses(VIGILANCE)
    assert pauses.left(0.0) == 0.0
    now, lengths = 0.0, []
    for _ in range(12):
        pauses.note(now)
        lengths.append(pauses.left(now))
        now += pauses.left(now)
    assert lengths[0] == pytest.approx(0.1)
    assert lengths[1] == pytest.approx(0.2)
    assert lengths[-1] == VIGILANCE.longest_pause_s


def test_a_watch_that_lasted_makes_the_next_pause_short_again() -> None:
    pauses = Pauses(VIGILANCE)
    for _ in range(5):
        pauses.note(10.0)
    pauses.note(200.0)
    assert pauses.left(200.0) == pytest.approx(0.1)


def test_only_what_is_missing_twice_is_a_gap() -> None:
    audit = Audit(VIGILANCE)
    assert audit.sift(frozenset({"a", "b"})) == set()
    assert audit.sift(frozenset({"b", "c"})) == {"b"}
    assert audit.sift(frozenset()) == set()


def test_a_suspicion_is_looked_into_soon_and_a_clean_tree_rarely() -> None:
    audit = Audit(VIGILANCE)
    audit.begin(0.0)
    assert not audit.is_due(0.0)
    audit.sift(frozenset({"a"}))
    audit.plan_next(10.0, Gaps())
    assert audit.is_due(10.0 + VIGILANCE.check_s)
    audit.plan_next(20.0, Gaps(frozenset({"a"})))
    assert not audit.is_due(20.0 + VIGILANCE.check_s)
    assert audit.is_due(20.0 + VIGILANCE.audit_s)
    audit.hurry(30.0)
    assert audit.is_due(30.0 + VIGILANCE.check_s)
