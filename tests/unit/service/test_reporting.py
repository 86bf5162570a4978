"""What a service manager is told, with a manager that does what a real one does only now and then."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from jand.library.status import Mode, TreeStatus, WatchStatus
from jand.lifecycle.events import EventLog
from jand.model.record import PublicState, Transition
from jand.model.state import Standing
from jand.service.notify import watchdog_period
from jand.service.reporting import NEGLECTED_S, Reporter, describe
from tests.fakes.records import make_record
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jand.model.record import Record

BEAT_S = 0.01


@dataclass
class Watch:
    status: WatchStatus = field(default_factory=WatchStatus)
    neglected_s: float = 0.0

    def unwatched_s(self) -> float:
        return self.neglected_s


class Manager:
    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.records: list[Record] = []
        self.events = EventLog(picture=self.list)
        self.watch = Watch()

    def list(self) -> list[Record]:
        return self.records

    def standings(self) -> Sequence[Standing]:
        return [Standing(record.id, record.state, record.transition) for record in self.records]

    def add(self, model_id: str, state: PublicState, transition: Transition | None = None) -> None:
        self.records.append(make_record(model_id, state=state, transition=transition))
        self.events.publish("model.registered", self.records[-1])


class Listener:
    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def send(self, *fields: str) -> None:
        self.told.append(fields)

    def all(self, name: str) -> list[str]:
        return [given.partition("=")[2] for fields in self.told for given in fields if given.startswith(f"{name}=")]


@dataclass
class Case:
    manager: Manager
    listener: Listener
    reporter: Reporter


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    manager, listener = Manager(), Listener()
    reporter = Reporter(manager, listener, beats=True, watchdog_s=BEAT_S)
    task = asyncio.create_task(reporter.run())
    yield Case(manager, listener, reporter)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_long_first_scan_asks_for_more_time_and_ready_comes_once_after_it(case: Case) -> None:
    await until(lambda: len(case.listener.all("EXTEND_TIMEOUT_USEC")) >= 3)
    assert case.listener.all("READY") == []
    case.manager.add("m", PublicState.DOWNLOADED)
    case.manager.ready.set()
    await until(lambda: case.listener.all("READY"))
    seen = len(case.listener.all("EXTEND_TIMEOUT_USEC"))
    watched = len(case.listener.all("WATCHDOG"))
    await until(lambda: len(case.listener.all("WATCHDOG")) > watched + 3)

    assert case.listener.all("READY") == ["1"]
    assert len(case.listener.all("EXTEND_TIMEOUT_USEC")) <= seen + 1
    assert case.listener.all("STATUS")[-1] == "1 model"


async def test_a_load_asks_for_more_time_and_is_named(case: Case) -> None:
    case.manager.ready.set()
    await until(lambda: case.listener.all("READY"))
    seen = len(case.listener.all("EXTEND_TIMEOUT_USEC"))
    case.manager.add("big", PublicState.DOWNLOADED, Transition.STARTING)
    await until(lambda: len(case.listener.all("EXTEND_TIMEOUT_USEC")) > seen + 1)

    assert case.listener.all("STATUS")[-1] == "1 model, starting big"


async def test_the_watchdog_is_fed_only_while_somebody_looks_after_the_watch(case: Case) -> None:
    case.manager.ready.set()
    await until(lambda: len(case.listener.all("WATCHDOG")) > 2)
    case.manager.watch.neglected_s = NEGLECTED_S + 1
    await until(lambda: case.reporter._neglected)
    fed = len(case.listener.all("WATCHDOG"))
    case.manager.add("m", PublicState.DOWNLOADED)
    await until(lambda: case.listener.all("STATUS")[-1] == "1 model")
    assert len(case.listener.all("WATCHDOG")) == fed, "the loop lives and reports, and the watchdog is not fed"
    case.manager.watch.neglected_s = 0.0
    await until(lambda: len(case.listener.all("WATCHDOG")) > fed)


async def test_who_wants_to_hear_of_ready_alone_hears_nothing_else() -> None:
    manager, listener = Manager(), Listener()
    manager.ready.set()
    await Reporter(manager, listener, beats=False).run()

    assert listener.told == [("READY=1",), ("STATUS=0 models",)]


def test_the_status_is_one_line_about_what_is_going_on() -> None:
    models = [Standing(f"m{number}", PublicState.DOWNLOADED, Transition.STARTING) for number in range(5)]
    models += [Standing("r", PublicState.RUNNING, None), Standing("d", PublicState.DOWNLOADING, None)]
    modes = WatchStatus({"models": TreeStatus(Mode.OFFLINE), "more": TreeStatus(Mode.EVENTS)}).modes

    assert (
        describe(models, modes)
        == "7 models, 1 running, 1 downloading, starting m0, m1, m2 and 2 more, models is offline"
    )


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.0),
        ({"WATCHDOG_USEC": "3000000"}, 1.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_period_is_that_of_our_process(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ, 7) == period
