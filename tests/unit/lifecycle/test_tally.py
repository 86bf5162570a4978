"""Numbers of what happened: they add up over workers, never fall, and go with their model."""

from __future__ import annotations

import pytest

from jand.lifecycle.tally import Histogram, Meter, Tally


def test_what_several_workers_of_a_model_did_is_added_up() -> None:
    tally = Tally()
    first, second = Meter(tally, "a"), Meter(tally, "a")
    first.heard(processing=2, queued=1, work={"generated_tokens": 10})
    first.heard(processing=1, queued=0, work={"generated_tokens": 25})
    first.ended()
    assert (tally.of("a").processing, tally.of("a").queued) == (0, 0)
    second.heard(processing=1, queued=3, work={"generated_tokens": 5, "steps": 2})

    assert dict(tally.of("a").work) == {"generated_tokens": 30, "steps": 2}
    assert (tally.of("a").processing, tally.of("a").queued) == (1, 3)


def test_a_start_counts_as_a_restart_only_after_a_death() -> None:
    tally = Tally()
    for _ in range(2):
        tally.loaded("a", 1.0)
    tally.died("a")
    tally.load_failed("a")
    for _ in range(2):
        tally.loaded("a", 1.0)

    counted = tally.of("a")
    assert (counted.deaths, counted.restarts, counted.failed_loads, counted.loads.sum) == (1, 1, 1, 4.0)


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (99.0, 2)])
def test_a_value_on_a_bound_is_below_it(value: float, place: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)

    assert histogram.counts == [int(index == place) for index in range(3)]


def test_errors_are_counted_and_not_timed() -> None:
    tally = Tally()
    tally.answered("a", status=200, stream=True, first_byte_s=0.3)
    tally.answered("a", status=429, stream=False, first_byte_s=0.001)

    assert tally.of("a").answers == {200: 1, 429: 1}
    assert list(tally.of("a").first_byte) == [True]


def test_a_model_that_is_gone_leaves_nothing() -> None:
    tally = Tally()
    tally.evicted("a")
    tally.forget("a")
    tally.forget("b")

    assert tally.models == {}
