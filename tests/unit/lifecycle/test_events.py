"""The event log: order, resumption, filters, slow readers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jand.lifecycle.events import EventLog, ProblemRecord
from jand.model.problem import Problem
from tests.fakes.records import make_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.lifecycle.events import Event


def problem(number: int) -> ProblemRecord:
    return ProblemRecord(Problem(f"models/{number}.json", "bad-json", "cannot read it"), 0.0)


async def take(events: AsyncIterator[Event], count: int) -> list[int]:
    return [(await anext(events)).id for _ in range(count)]


async def test_a_subscriber_sees_what_comes_after_it_subscribed() -> None:
    log = EventLog(picture=list)
    log.publish("problem.found", problem(1))
    events = log.subscribe()
    reading = asyncio.create_task(take(events, 2))
    await asyncio.sleep(0)
    log.publish("problem.found", problem(2))
    log.publish("problem.found", problem(3))

    assert await reading == [2, 3]


async def test_resuming_gives_exactly_what_was_missed() -> None:
    log = EventLog(picture=list)
    for number in range(5):
        log.publish("problem.found", problem(number))

    assert await take(log.subscribe(after_id=2), 3) == [3, 4, 5]


async def test_one_who_fell_behind_the_ring_gets_the_present_picture_and_goes_on() -> None:
    record = make_record("a")
    log = EventLog(picture=lambda: [record], ring=2)
    for number in range(10):
        log.publish("problem.found", problem(number))
    events = log.subscribe(after_id=1)
    first = await anext(events)
    log.publish("problem.cleared", problem(1))
    second = await anext(events)

    assert (first.type, first.data, first.id) == ("model.updated", record, 10)
    assert (second.type, second.id) == ("problem.cleared", 11)


async def test_an_id_of_another_life_gets_the_present_picture() -> None:
    record = make_record("a")
    log = EventLog(picture=lambda: [record], first_id=1000)

    assert (await anext(log.subscribe(after_id=5_000))).data == record
    assert (await anext(log.subscribe(after_id=5))).data == record


async def test_model_filter() -> None:
    log = EventLog(picture=list)
    events = log.subscribe(after_id=0, model="b")
    for name in ("a", "b", "c"):
        log.publish("model.registered", make_record(name))

    assert (await anext(events)).model == "b"


async def test_closing_ends_subscriptions_after_what_they_have_not_read() -> None:
    log = EventLog(picture=list)
    log.publish("problem.found", problem(1))
    log.close()

    assert [event.id async for event in log.subscribe(after_id=0)] == [1]
