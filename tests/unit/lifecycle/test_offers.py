"""What the catalogue says each entry would download: asked in the background, remembered, never waited for long."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from jand.download.plan import Plan
from jand.errors import NoNetworkError
from jand.lifecycle.catalog import Catalog, CatalogEntry
from jand.lifecycle.offers import AT_ONCE, FAILED_S, FRESH_S, Offers
from jand.tasks import TaskSet
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Hub:
    """Answers with a plan that tells the entry's origin, once `open` is set; *fails* are the ids for which it has none."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[str] = []
        self.fails: set[str] = set()
        self.at_once = self.most = 0

    async def __call__(self, entry: CatalogEntry) -> Plan:
        self.asked.append(entry.id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        if entry.id in self.fails:
            raise NoNetworkError("cannot reach the hub", hint="plug it in")
        return Plan(reason=entry.spec.origin)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(tmp_path, "a")
    put(tmp_path, "b")
    return tmp_path


def put(folder: Path, name: str, origin: str = "user/repo") -> None:
    (folder / f"{name}.json").write_text(json.dumps({"origin": origin}))


@pytest.fixture
async def tasks() -> AsyncIterator[TaskSet]:
    tasks = TaskSet()
    yield tasks
    await tasks.close()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(folder: Path, hub: Hub, tasks: TaskSet, *, patience_s: float = 5.0) -> tuple[Offers, Clock]:
    clock = Clock()
    return Offers(Catalog(folder, folder / "none"), hub, tasks, patience_s=patience_s, clock=clock), clock


async def test_each_entry_has_its_plan_or_the_reason_why_not(folder: Path, tasks: TaskSet) -> None:
    hub = Hub()
    hub.fails.add("b")
    offers, _ = make(folder, hub, tasks)

    first, second = await offers.list()

    assert (first.entry.id, first.plan, first.unknown) == ("a", Plan(reason="user/repo"), None)
    assert second.plan is None
    assert second.unknown is not None
    assert (second.unknown.code, second.unknown.hint) == ("no-network", "plug it in")


async def test_an_empty_catalogue_is_an_empty_list(tmp_path: Path, tasks: TaskSet) -> None:
    offers, _ = make(tmp_path, Hub(), tasks)

    assert list(await offers.list()) == []


async def test_a_slow_hub_is_not_waited_for_and_its_answer_is_there_the_next_time(folder: Path, tasks: TaskSet) -> None:
    hub = Hub()
    hub.open.clear()
    offers, _ = make(folder, hub, tasks, patience_s=0.05)

    waiting = await offers.list()
    hub.open.set()
    await until(lambda: hub.at_once == 0)
    known = await offers.list()

    assert [offer.unknown.code for offer in waiting if offer.unknown] == ["not-known-yet"] * 2
    assert [offer.plan for offer in known] == [Plan(reason="user/repo")] * 2
    assert sorted(hub.asked) == ["a", "b"]


async def test_a_plan_is_believed_for_an_hour_and_a_failure_for_half_a_minute(folder: Path, tasks: TaskSet) -> None:
    hub = Hub()
    hub.fails.add("b")
    offers, clock = make(folder, hub, tasks)
    await offers.list()
    clock.now += FAILED_S - 1
    await offers.list()
    assert sorted(hub.asked) == ["a", "b"]
    clock.now += 2
    await offers.list()
    assert sorted(hub.asked) == ["a", "b", "b"]
    clock.now += FRESH_S
    await offers.list()

    assert sorted(hub.asked) == ["a", "a", "b", "b", "b"]


async def test_an_edited_entry_is_asked_for_anew_and_one_that_went_is_forgotten(folder: Path, tasks: TaskSet) -> None:
    hub = Hub()
    offers, _ = make(folder, hub, tasks)
    await offers.list()
    put(folder, "a", "user/other")
    (folder / "b.json").unlink()
    (only,) = await offers.list()
    put(folder, "b")
    await offers.list()

    assert only.plan == Plan(reason="user/other")
    assert hub.asked.count("b") == 2


async def test_a_long_catalogue_does_not_storm_the_hub(tmp_path: Path, tasks: TaskSet) -> None:
    for number in range(20):
        put(tmp_path, f"m{number}")
    hub = Hub()
    hub.open.clear()
    offers, _ = make(tmp_path, hub, tasks, patience_s=0.05)
    await offers.list()

    assert len(hub.asked) == AT_ONCE
    hub.open.set()
    await until(lambda: len(hub.asked) == 20)
    assert hub.most == AT_ONCE


async def test_lists_at_the_same_time_ask_once(folder: Path, tasks: TaskSet) -> None:
    hub = Hub()
    offers, _ = make(folder, hub, tasks)
    await asyncio.gather(offers.list(), offers.list(), offers.list())

    assert sorted(hub.asked) == ["a", "b"]
