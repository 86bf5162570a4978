"""The actor: one start for many callers, stops that overtake starts, deaths, edits under a running model."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from jand.errors import (
    ModelDownloadingError,
    ModelNotRunningError,
    ModelRemovedError,
    NotPossibleError,
    QueueFullError,
    StartError,
)
from jand.lifecycle.actor import MOST_WAITING, Actor
from jand.model.record import PublicState, Transition
from tests.fakes.engine import FakeEngine
from tests.fakes.records import make_found
from tests.fakes.surroundings import Around
from tests.fakes.waiting import until


def make(engine: FakeEngine, *, whole: bool = True, start_on_request: bool = True) -> tuple[Actor, Around]:
    around = Around(engine, start_on_request=start_on_request)
    return Actor("a", make_found(whole=whole), (), around), around


async def test_many_callers_share_one_start() -> None:
    engine = FakeEngine()
    actor, around = make(engine)
    callers = [asyncio.create_task(actor.start()) for _ in range(5)]
    await until(lambda: engine.launched)
    engine.let_start()
    await asyncio.gather(*callers)

    assert len(engine.launched) == 1
    assert around.seen == [
        (PublicState.DOWNLOADED, None),
        (PublicState.DOWNLOADED, Transition.STARTING),
        (PublicState.RUNNING, None),
    ]


async def test_a_caller_that_goes_away_does_not_end_the_start() -> None:
    engine = FakeEngine()
    actor, _ = make(engine)
    caller = asyncio.create_task(actor.start())
    await until(lambda: engine.launched)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    engine.let_start()
    await actor.start()

    assert actor.record().state is PublicState.RUNNING


async def test_every_caller_of_a_failing_start_gets_its_reason() -> None:
    engine = FakeEngine()
    actor, _ = make(engine)
    callers = [asyncio.create_task(actor.start()) for _ in range(3)]
    await until(lambda: engine.launched)
    engine.fail_start(StartError('cannot start "a": no memory'))
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ['cannot start "a": no memory'] * 3
    record = actor.record()
    assert record.state is PublicState.DOWNLOADED
    assert record.error is not None
    assert record.error.code == "start-failed"


async def test_a_start_after_a_failure_is_a_new_one() -> None:
    engine = FakeEngine()
    actor, _ = make(engine)
    first = asyncio.create_task(actor.start())
    await until(lambda: engine.launched)
    engine.fail_start(StartError("cannot start"))
    with pytest.raises(StartError):
        await first
    second = asyncio.create_task(actor.start())
    await until(lambda: len(engine.launched) == 2)
    engine.let_start()
    await second

    assert actor.record().error is None


async def test_a_stop_overtakes_a_start() -> None:
    engine = FakeEngine()
    actor, around = make(engine)
    starting = asyncio.create_task(actor.start())
    await until(lambda: engine.launched)
    await actor.stop()

    assert engine.cancelled == 1
    with pytest.raises(NotPossibleError):
        await starting
    assert actor.record().state is PublicState.DOWNLOADED
    assert around.seen[-2:] == [(PublicState.RUNNING, Transition.STOPPING), (PublicState.DOWNLOADED, None)]


async def test_a_stop_overtakes_a_start_that_has_not_made_its_first_step() -> None:
    engine = FakeEngine(immediately=True)
    actor, around = make(engine)
    caller = asyncio.create_task(actor.start())
    # One step takes the caller to where it waits; the task of the start has not run yet.
    await asyncio.sleep(0)
    assert around.seen[-1] == (PublicState.DOWNLOADED, Transition.STARTING)
    assert engine.launched == []
    await asyncio.wait_for(actor.stop(), 5)

    assert actor.record().transition is None
    with pytest.raises(NotPossibleError):
        await caller
    await actor.start()
    assert actor.record().state is PublicState.RUNNING


async def test_stop_is_idempotent_and_starts_again_after() -> None:
    engine = FakeEngine(immediately=True)
    actor, _ = make(engine)
    await actor.stop()
    await actor.start()
    await asyncio.gather(actor.stop(), actor.stop())
    await actor.start()

    assert len(engine.launched) == 2
    assert engine.running[0].closed


async def test_a_forced_stop_overtakes_a_patient_one() -> None:
    engine = FakeEngine(immediately=True)
    engine.hold_stop = True
    actor, _ = make(engine)
    await actor.start()
    patient = asyncio.create_task(actor.stop())
    await until(lambda: engine.running[0].stops)
    await actor.stop(force=True)
    await patient

    assert engine.running[0].stops == [(30.0, False), (0.0, True)]


async def test_a_request_while_it_stops_waits_and_starts_it_again() -> None:
    engine = FakeEngine(immediately=True)
    engine.hold_stop = True
    actor, _ = make(engine)
    await actor.start()
    stopping = asyncio.create_task(actor.stop())
    await until(lambda: engine.running[0].stops)
    request = asyncio.create_task(actor.acquire())
    await asyncio.sleep(0)
    engine.running[0].die()
    await stopping
    running = await request

    assert running is engine.running[1]
    assert actor.in_flight == 1
    actor.release()
    assert actor.in_flight == 0


async def test_requests_may_not_start_it_where_that_is_turned_off() -> None:
    actor, _ = make(FakeEngine(immediately=True), start_on_request=False)
    with pytest.raises(ModelNotRunningError):
        await actor.acquire()
    await actor.start()
    await actor.acquire()


async def test_what_is_downloading_cannot_be_started() -> None:
    actor, _ = make(FakeEngine(), whole=False)
    with pytest.raises(ModelDownloadingError):
        await actor.start()
    record = actor.record()
    assert record.state is PublicState.DOWNLOADING
    assert record.progress is not None
    assert (record.progress.bytes_done, record.progress.bytes_total) == (50, 100)


async def test_a_death_is_an_error_of_the_model_and_the_next_request_starts_it() -> None:
    engine = FakeEngine(immediately=True)
    actor, _ = make(engine)
    await actor.start()
    engine.running[0].die("the worker was killed by SIGSEGV")
    await until(lambda: actor.record().state is PublicState.DOWNLOADED)
    error = actor.record().error
    assert error is not None
    assert error.code == "worker-died"
    assert "SIGSEGV" in error.message
    await actor.acquire()

    assert actor.record().state is PublicState.RUNNING
    assert actor.record().error is None


async def test_overrides_count_for_this_run() -> None:
    engine = FakeEngine(immediately=True)
    actor, _ = make(engine)
    await actor.start({"ctx_len": 512})

    assert engine.launched[0][1].parameters.init.ctx_len == 512
    assert actor.spec_in_force.parameters.init.ctx_len == 512
    await actor.start({"ctx_len": 512})
    with pytest.raises(NotPossibleError):
        await actor.start({"ctx_len": 1024})
    await actor.stop()
    assert actor.spec_in_force.parameters.init.ctx_len is None


async def test_an_edited_json_counts_at_once_or_says_that_a_restart_is_needed() -> None:
    engine = FakeEngine(immediately=True)
    actor, _ = make(engine)
    await actor.start()
    actor.found_again(make_found(parameters={"init": {}, "runtime": {"temperature": 0.1}}), "a", ())
    assert engine.running[0].runtime.parameters.runtime.temperature == 0.1
    assert not actor.record().restart_needed
    actor.found_again(make_found(parameters={"init": {"ctx_len": 99}}), "a", ())
    assert actor.record().restart_needed
    await actor.stop()
    assert not actor.record().restart_needed


async def test_a_binary_that_goes_while_it_runs_cuts_nothing() -> None:
    engine = FakeEngine(immediately=True)
    actor, _ = make(engine)
    await actor.start()
    actor.found_again(dataclasses.replace(make_found(), binaries=(), missing=("weights.gguf",)), "a", ())
    assert actor.record().state is PublicState.RUNNING
    await actor.stop()
    assert actor.record().state is PublicState.DOWNLOADING


async def test_removal_stops_it_and_tells_those_who_wait() -> None:
    engine = FakeEngine()
    actor, _ = make(engine)
    waiting = asyncio.create_task(actor.acquire())
    await until(lambda: engine.launched)
    await actor.remove()

    with pytest.raises(ModelRemovedError):
        await waiting
    assert engine.cancelled == 1


async def test_more_requests_than_may_wait_for_a_start_are_refused_and_the_others_answered() -> None:
    engine = FakeEngine()
    actor, _ = make(engine)
    waiting = [asyncio.create_task(actor.acquire()) for _ in range(MOST_WAITING)]
    await until(lambda: actor.waiting == MOST_WAITING)
    with pytest.raises(QueueFullError) as caught:
        await actor.acquire()
    engine.let_start()
    await asyncio.gather(*waiting)

    assert caught.value.retry_after_s
    assert (actor.waiting, actor.in_flight) == (0, MOST_WAITING)
    await actor.acquire()
