"""Memory changes hands: idle models make room, busy ones are waited for, nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jand.errors import CrashLoopError, NoRoomError, StartError
from jand.lifecycle.actor import Actor
from jand.lifecycle.admission import LEARNED, LINGER, Admission, estimate
from jand.lifecycle.notes import Notes
from jand.lifecycle.policy import CRASHES_IN_LOOP
from jand.lifecycle.resumption import Resumption
from jand.lifecycle.tally import Tally
from jand.model.record import PublicState
from jand.tasks import TaskSet
from tests.fakes.engine import FakeEngine
from tests.fakes.records import make_found
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

NEED = estimate(make_found(), make_found().spec)
"""What each of the tests' models is thought to take."""


class Around:
    """Surroundings with memory for *models* models at once."""

    def __init__(self, tmp_path: Path, engine: FakeEngine, *, models: float, turn_s: float = 0.0) -> None:
        self.tasks = TaskSet()
        self.start_on_request = True
        self.stop_timeout_s = 30.0
        self.keep_alive_s = -1.0
        self.admission = Admission(int(NEED * models), Notes(tmp_path / "state.json"), turn_s=turn_s)
        self.tally = Tally()
        self.launch = engine.launch

    def changed(self, actor: Actor) -> None: ...

    def make(self, name: str, **fields: Any) -> Actor:
        return Actor(name, make_found(f"models/{name}/{name}.json", **fields), (), self)


async def test_an_idle_model_makes_room(tmp_path: Path) -> None:
    around = Around(tmp_path, FakeEngine(immediately=True), models=1)
    first, second = around.make("a"), around.make("b")
    await first.start()
    await second.start()

    assert first.record().state is PublicState.DOWNLOADED
    assert second.record().state is PublicState.RUNNING
    assert around.admission.reserved == NEED


async def test_a_busy_model_is_waited_for_and_never_cut(tmp_path: Path) -> None:
    engine = FakeEngine(immediately=True)
    around = Around(tmp_path, engine, models=1)
    first, second = around.make("a"), around.make("b")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    # The holder's turn is over: a further request for it stands in line behind the one that waits.
    for _ in range(20):
        await asyncio.sleep(0)
    behind = asyncio.create_task(first.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert engine.running[0].stops == []
    first.release()
    await waiting
    assert not behind.done()
    second.release()
    await behind

    assert [name for name, _ in engine.launched] == ["a", "b", "a"]


async def test_a_small_model_passes_one_that_waits_where_it_does_not_postpone_it(tmp_path: Path) -> None:
    """Of 10 parts a busy model has 6 and one waits for 8: what takes 2 runs meanwhile and stays, what takes 3 waits behind, since 7 would not be enough."""
    engine = FakeEngine(immediately=True)
    around = Around(tmp_path, engine, models=1)
    around.admission.budget = 10
    parts = {"busy": 6, "large": 8, "small": 2, "medium": 3, "pinned": 1}
    notes = Notes(tmp_path / "state.json")
    for name, need in parts.items():
        notes.note(LEARNED, f"models/{name}/{name}.json None None 100", need)
    around.admission._notes = notes
    models = {name: around.make(name, metadata={"pinned": name == "pinned"}) for name in parts}
    await models["busy"].acquire()
    large = asyncio.create_task(models["large"].acquire())
    medium = asyncio.create_task(models["medium"].acquire())
    pinned = asyncio.create_task(models["pinned"].acquire())
    await models["small"].acquire()
    assert around.admission.reserved == 8
    assert [task.done() for task in (large, medium, pinned)] == [False, False, False]

    models["busy"].release()
    await large
    assert around.admission.reserved == 10, "the small one need not stop for it"
    models["large"].release()
    models["small"].release()
    await medium
    await pinned
    assert [name for name, _ in engine.launched] == ["busy", "small", "large", "medium", "pinned"]


async def test_a_pinned_model_is_never_stopped(tmp_path: Path) -> None:
    around = Around(tmp_path, FakeEngine(immediately=True), models=1)
    first, second = around.make("a", metadata={"pinned": True}), around.make("b")
    await first.start()
    with pytest.raises(NoRoomError) as caught:
        await second.start()

    assert "a may not be stopped" in caught.value.message
    assert first.record().state is PublicState.RUNNING


async def test_what_it_really_took_counts_next_time(tmp_path: Path) -> None:
    engine = FakeEngine(immediately=True)
    engine.memory = 5
    around = Around(tmp_path, engine, models=1)
    first, second = around.make("a"), around.make("b")
    for actor in (first, second):
        await actor.acquire()
        actor.release()
    await second.stop()
    await first.start()
    await second.start()

    assert around.admission.reserved == 10
    assert Notes(tmp_path / "state.json").find("memory", "models/a/a.json None None 100") == 5


async def test_sixteen_clients_and_two_models_that_do_not_fit_together(tmp_path: Path, soak: bool) -> None:
    """Every request is answered, none cut, and memory changes hands no oftener than turns allow."""
    engine = FakeEngine(immediately=True)
    turn_s = 0.2
    around = Around(tmp_path, engine, models=1.5, turn_s=turn_s)
    actors = [around.make("a"), around.make("b")]
    random_numbers = random.Random(1)
    answered = 0
    over = False

    async def client() -> None:
        nonlocal answered, over
        for _ in range(500 if soak else 40):
            actor = random_numbers.choice(actors)
            running = await actor.acquire()
            await asyncio.sleep(random_numbers.random() * 0.01)
            assert running.stops == [], "cut while it answered"  # type: ignore[attr-defined]
            over = over or around.admission.reserved > around.admission.budget
            actor.release()
            answered += 1

    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.gather(*(client() for _ in range(16)))
    switches = len(engine.launched)

    assert answered == 16 * (500 if soak else 40)
    assert not over
    assert switches <= 2 + (loop.time() - began) / (LINGER * turn_s)


async def test_idle_models_are_stopped_after_their_time(tmp_path: Path) -> None:
    around = Around(tmp_path, FakeEngine(immediately=True), models=9)
    around.keep_alive_s = 0.01
    plain = around.make("plain")
    own = around.make("own", metadata={"keep_alive": -1})
    by_request = around.make("by-request", metadata={"keep_alive": -1})
    for actor in (plain, own):
        await actor.acquire()
        actor.release()
    await by_request.acquire(keep_alive_s=0)
    by_request.release()
    await until(lambda: plain.record().state is PublicState.DOWNLOADED)
    await until(lambda: by_request.record().state is PublicState.DOWNLOADED)

    assert own.record().state is PublicState.RUNNING


async def test_a_request_keeps_it_from_being_stopped_when_its_time_is_over(tmp_path: Path) -> None:
    around = Around(tmp_path, FakeEngine(immediately=True), models=9)
    around.keep_alive_s = 0.01
    actor = around.make("a")
    await actor.acquire()
    other = around.make("b")
    await other.start()
    await until(lambda: other.record().state is PublicState.DOWNLOADED)

    assert actor.record().state is PublicState.RUNNING


async def test_a_crash_loop_ends_the_tries_of_requests_until_somebody_starts_it(tmp_path: Path) -> None:
    engine = FakeEngine()
    around = Around(tmp_path, engine, models=9)
    actor = around.make("a")
    for _ in range(CRASHES_IN_LOOP):
        actor.crashes.note(time.monotonic())
    with pytest.raises(CrashLoopError):
        await actor.acquire()
    start = asyncio.create_task(actor.start())
    await until(lambda: engine.launched)
    engine.fail_start(StartError("cannot start"))
    with pytest.raises(StartError):
        await start
    again = asyncio.create_task(actor.acquire())
    await until(lambda: len(engine.launched) == 2)
    engine.let_start()
    await again


async def test_starts_that_fail_again_and_again_are_shown_as_a_crash_loop(tmp_path: Path) -> None:
    engine = FakeEngine()
    actor = Around(tmp_path, engine, models=9).make("a")
    for times, code in ((0, "start-failed"), (CRASHES_IN_LOOP - 1, "crash-loop")):
        start = asyncio.create_task(actor.start())
        await until(lambda: engine.launched)
        # What a person's start forgets has happened again by the time that this one fails.
        actor.crashes.times = [time.monotonic()] * times
        engine.launched.clear()
        engine.fail_start(StartError("cannot start"))
        with pytest.raises(StartError):
            await start
        error = actor.record().error
        assert error is not None
        assert error.code == code


async def test_what_a_model_takes_is_noted_again_only_when_it_differs(tmp_path: Path) -> None:
    around = Around(tmp_path, FakeEngine(), models=9)
    admission, actor, found = around.admission, around.make("a"), make_found()
    for taken, known in ((1000, 1000), (1015, 1000), (985, 1000), (1100, 1100), (900, 1100), (0, 1100)):
        await admission.reserve(actor, 1)
        admission.learn(actor, found, found.spec, taken)
        assert admission.need_of(found, found.spec) == known
    admission.release(actor)
    await admission.reserve(actor, 1)
    admission.learn(actor, found, found.spec, 900)

    assert admission.need_of(found, found.spec) == 900


async def test_what_a_model_takes_beyond_its_promise_is_made_room_for_by_idle_ones(tmp_path: Path) -> None:
    engine = FakeEngine(immediately=True)
    around = Around(tmp_path, engine, models=3)
    actors = {name: around.make(name) for name in ("old", "busy", "grows")}
    for actor in actors.values():
        await actor.acquire()
    actors["old"].release()
    engine.memory = int(NEED * 1.5)
    actors["grows"].release()
    await until(lambda: actors["old"].record().state is PublicState.DOWNLOADED, what="the idle one to make room")

    assert actors["busy"].record().state is actors["grows"].record().state is PublicState.RUNNING
    assert around.admission.reserved == NEED + int(NEED * 1.5) <= around.admission.budget


async def test_a_binary_that_is_replaced_under_a_running_model_does_not_inherit_what_that_took(tmp_path: Path) -> None:
    engine = FakeEngine(immediately=True)
    engine.memory = 5
    around = Around(tmp_path, engine, models=9)
    actor = around.make("a")
    before = actor.found
    await actor.acquire()
    after = replace(before, binaries=(replace(before.binaries[0], size=7_000),))
    actor.found_again(after, "a", ())
    actor.release()

    assert around.admission.need_of(before, before.spec) == 5
    assert around.admission.need_of(after, after.spec) == estimate(after, after.spec)


async def test_models_start_with_the_daemon_by_rank_and_none_is_stopped_for_a_later_one(tmp_path: Path) -> None:
    engine = FakeEngine(immediately=True)
    around = Around(tmp_path, engine, models=4.5)
    notes = Notes(tmp_path / "state.json")
    named: dict[str, dict[str, Any]] = {
        "a-ran": {},
        "b-ran-first": {"priority": 1},
        "c-auto": {"autostart": True},
        "d-auto-first": {"autostart": True, "priority": "2.5"},
        "e-auto-last": {"autostart": True, "priority": -1},
        "f-pinned": {"autostart": True, "pinned": True, "priority": -9},
        "g-stopped": {"priority": 99},
    }
    actors = [around.make(name, metadata=metadata) for name, metadata in named.items()]
    for name in ("a-ran", "b-ran-first"):
        notes.note("ran", f"models/{name}/{name}.json", True)
    await Resumption(notes, around.admission, restore=True).start(actors)

    assert [name for name, _ in engine.launched] == ["f-pinned", "d-auto-first", "c-auto", "e-auto-last"]
    assert sum(actor.record().state is PublicState.RUNNING for actor in actors) == 4
    around.admission.budget = NEED * 9
    await Resumption(notes, around.admission, restore=True).start(actors)
    assert [name for name, _ in engine.launched[4:]] == ["b-ran-first", "a-ran"]
