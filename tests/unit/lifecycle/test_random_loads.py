"""Memory under loads that chance makes: whatever comes in whatever order, nobody is cut, the budget holds, and all who can be served are."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from jand.errors import NoRoomError
from jand.lifecycle.actor import Actor
from jand.lifecycle.admission import LEARNED, Admission
from jand.lifecycle.notes import Notes
from jand.lifecycle.tally import Tally
from jand.model.state import State
from jand.tasks import TaskSet
from tests.fakes.engine import FakeEngine
from tests.fakes.records import make_found

TURN_S = 0.002
BUDGET = 100
PATIENCE_S = 20.0


class Model(NamedTuple):
    need: int
    pinned: bool


class Ask(NamedTuple):
    """A request for a model by its number: when it comes and how long its answer takes, in steps of the loop."""

    model: int
    after: int
    lasts: int


MODELS = st.lists(st.builds(Model, need=st.integers(1, 110), pinned=st.sampled_from([False, False, True])), max_size=5)
ASKS = st.lists(
    st.builds(Ask, model=st.integers(0, 4), after=st.integers(0, 40), lasts=st.integers(0, 15)), max_size=30
)


class House:
    """Surroundings of one actor for each of *models*; looks at every change whether the budget is kept."""

    def __init__(self, folder: Path, models: list[Model]) -> None:
        self.tasks = TaskSet()
        self.start_on_request = True
        self.stop_timeout_s = 30.0
        self.keep_alive_s = -1.0
        self.launch = FakeEngine(immediately=True).launch
        self.tally = Tally()
        notes = Notes(folder / "state.json")
        self.admission = Admission(BUDGET, notes, turn_s=TURN_S)
        self.actors: list[Actor] = []
        for number, model in enumerate(models):
            path = f"models/{number}.json"
            notes.note(LEARNED, f"{path} None None 100", model.need)
            self.actors.append(Actor(str(number), make_found(path, metadata={"pinned": model.pinned}), (), self))

    def changed(self, actor: Actor) -> None:
        assert self.admission.reserved <= BUDGET
        if actor.state is State.STOPPING:
            assert actor.in_flight == 0, "cut while it answered"
            assert not actor.pinned


async def ask(house: House, wanted: Ask) -> bool:
    """Ask as *wanted*; return whether it was answered, and not refused for lack of room."""
    actor = house.actors[wanted.model]
    for _ in range(wanted.after):
        await asyncio.sleep(0)
    try:
        running = await actor.acquire()
    except NoRoomError:
        return False
    for _ in range(wanted.lasts):
        assert actor.running is running, "cut while it answered"
        assert house.admission.reserved <= BUDGET
        await asyncio.sleep(0)
    actor.release()
    return True


async def play(models: list[Model], asks: list[Ask]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), models)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answered = await asyncio.gather(*(ask(house, wanted) for wanted in asks))
            assert all(actor.in_flight == actor.waiting == 0 for actor in house.actors)
        finally:
            await house.tasks.close()
    for wanted, well in zip(asks, answered, strict=True):
        pinned = sum(model.need for number, model in enumerate(models) if model.pinned and number != wanted.model)
        if models[wanted.model].need + pinned <= BUDGET:
            assert well, f"{wanted} was refused, though no pinned model stood in its way"
        if models[wanted.model].need > BUDGET:
            assert not well


@given(models=MODELS, asks=ASKS)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_nobody_is_cut_and_the_budget_holds(models: list[Model], asks: list[Ask]) -> None:
    asyncio.run(play(models, [wanted for wanted in asks if wanted.model < len(models)]))
