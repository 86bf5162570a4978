"""The number of threads follows what the machine has free, at little cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jand.engine.worker.threads import LONGEST_PAUSE_S, UNHINDERED_PAUSE_S, ThreadChoice, Threads

if TYPE_CHECKING:
    from collections.abc import Callable


Cost = tuple[float, float]


def run(choice: ThreadChoice, cost: Callable[[int], Cost], seconds: float, start: float = 0.0) -> tuple[int, float]:
    """Step through *seconds* of simulated time; return how many steps were done and when it ended."""
    now, steps = start, 0
    while now < start + seconds:
        taken, share = cost(choice.count())
        now += taken
        choice.record(taken, now, share=share)
        steps += 1
    return steps, now


def free(cores: int) -> Callable[[int], Cost]:
    """Return what a step takes where *cores* are free, and its share of the processor: threads share the work, one too many stalls all."""
    return lambda threads: (0.02 / threads, 0.9) if threads <= cores else (0.2, 0.5)


@pytest.mark.parametrize(
    ("most", "cores", "best"), [(2, 2, 2), (2, 1, 1), (8, 8, 8), (8, 5, 4), (8, 1, 1), (1, 1, 1), (3, 2, 2)]
)
def test_number_settles_on_what_is_free(most: int, cores: int, best: int) -> None:
    choice = ThreadChoice(most)
    run(choice, free(cores), 20)
    assert choice.settled == best


@pytest.mark.parametrize("cores", [1, 2])
def test_trying_costs_little(cores: int) -> None:
    choice = ThreadChoice(2)
    _, now = run(choice, free(cores), 30)
    steps, _ = run(choice, free(cores), 60, now)
    assert steps * free(cores)(cores)[0] > 0.95 * 60


def test_nothing_is_tried_while_all_threads_have_the_processor() -> None:
    """A machine on which fewer threads are faster all the same is found out once in a while."""
    choice, now, tried = ThreadChoice(2), 0.0, 0
    while now < 0.99 * UNHINDERED_PAUSE_S:
        taken = 0.01 if now % 1 > 0.1 else 0.05
        now += taken
        choice.record(taken, now, share=0.9)
        tried += choice.count() != 2
    assert tried == 0
    while now < 2 * UNHINDERED_PAUSE_S:
        taken = 0.01 / (3 - choice.count())
        now += taken
        choice.record(taken, now, share=0.9)
    assert choice.settled == 1


def test_number_follows_a_change_within_seconds() -> None:
    choice = ThreadChoice(2)
    _, now = run(choice, free(2), 60)
    _, now = run(choice, free(1), 3, now)
    assert choice.settled == 1
    _, now = run(choice, free(2), 2 * LONGEST_PAUSE_S, now)
    assert choice.settled == 2


def test_steps_of_different_kinds_are_not_compared() -> None:
    choice = ThreadChoice(4)
    now = 0.0
    for step in range(2000):
        kind = 1 if step % 100 < 50 else 8
        taken, share = free(4)(choice.count())
        taken *= 1 if kind == 1 else 7
        now += taken
        choice.record(taken, now, share=share, kind=kind)
    assert choice.settled == 4


@pytest.mark.parametrize(("cores", "best"), [(2, 2), (1, 1)])
def test_reading_keeps_threads_that_generation_does_without(cores: int, best: int) -> None:
    """A small model generates faster on one thread; whether it reads faster on two is another question."""
    threads, now = Threads(2, 2), 0.0
    for _ in range(200):
        taken = 0.01 * threads.counts(0)[0]
        now += taken
        threads.record(taken, now, processor_s=taken, generated=1, read=0)
    assert threads.counts(0)[0] == 1
    for _ in range(60):
        count = threads.counts(32)[1]
        taken, share = free(cores)(count)
        now += 32 * taken
        threads.record(32 * taken, now, processor_s=32 * taken * count * share, generated=1, read=32)
    assert threads.counts(512)[1] == best


def test_reading_is_tried_on_fewer_threads_after_a_minute_of_its_own() -> None:
    """Its steps are compared by the token, and counted whole."""
    threads, now = Threads(2, 2), 0.0
    for _ in range(200):
        taken = 0.01 * threads.counts(0)[0]
        now += taken
        threads.record(taken, now, processor_s=taken, generated=1, read=0)
    read_s = 0.0
    while threads.counts(64)[1] == 2:
        read_s += 0.5
        threads.record(0.5, now + read_s, processor_s=0.9, generated=1, read=64)
    assert read_s == pytest.approx(UNHINDERED_PAUSE_S, abs=5)


def test_prompts_are_read_with_all_while_answers_are_generated_with_all() -> None:
    assert Threads(2, 4).counts(0) == (2, 2)
    assert Threads(2, 4).counts(15) == (2, 2)
    assert Threads(2, 4).counts(16) == (2, 4)
    assert Threads(2, 4).counts(2048) == (2, 4)
