"""An in-memory manager for tests of the API: models are added, changed and refused by verbs; nothing runs but what a test put upstream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import difflib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from jand.download.downloader import Received
from jand.download.plan import Plan
from jand.engine.line import WorkerClient
from jand.errors import JandError, ModelExistsError, ModelNotFoundError
from jand.lifecycle.events import EventLog, ProblemRecord
from jand.lifecycle.intake import Preview
from jand.lifecycle.overview import Load
from jand.lifecycle.running import Upstream
from jand.lifecycle.tally import Tally
from jand.model.problem import Problem
from jand.model.record import PublicState, Record
from tests.fakes.records import make_record, make_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from pathlib import Path

    from jand.download.planner import SearchHit
    from jand.lifecycle.events import Event
    from jand.lifecycle.offers import Offer
    from jand.model.spec import Spec


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Deletion:
    id: str
    removed: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass
class Asked:
    """What the API asked for: the verb, the model, and what came with it."""

    verb: str
    model: str
    arguments: dict[str, Any] = field(default_factory=dict)


class CountingLog(EventLog):
    """*listeners* counts those who have begun to listen."""

    listeners = 0

    @override
    async def subscribe(self, after_id: int | None = None, model: str | None = None) -> AsyncIterator[Event]:
        self.listeners += 1
        async for event in super().subscribe(after_id, model):
            yield event


class FakeManager:
    """Satisfies `api.ports.Manager`. *asked* lists the calls; *in_flight* counts requests within `use`."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.events: EventLog = CountingLog(picture=self.list, first_id=100)
        self.tally = Tally()
        self.asked: list[Asked] = []
        self.in_flight = 0
        self.kept: tuple[Kept, ...] = ()
        self.plan = Plan()
        self.catalog: list[Offer] = []
        self.hits: list[SearchHit] = []
        self.upstream_name: str | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self._records: dict[str, Record] = {}
        self._problems: list[ProblemRecord] = []
        self._refusals: dict[str, BaseException] = {}
        self._worker: WorkerClient | None = None

    # What a test does.

    def add(self, model_id: str, **changes: Any) -> Record:
        record = self._records[model_id] = make_record(model_id, **changes)
        self.events.publish("model.registered", record)
        return record

    def change(self, model_id: str, kind: str = "model.updated", **changes: Any) -> Record:
        record = self._records[model_id] = dataclasses.replace(self._records[model_id], **changes)
        self.events.publish(kind, record)
        return record

    def remove(self, model_id: str) -> None:
        self.events.publish("model.removed", self._records.pop(model_id))

    def refuse(self, verb: str, error: BaseException) -> None:
        """Let *verb* raise *error* from now on."""
        self._refusals[verb] = error

    def complain(self, path: str, **facts: Any) -> ProblemRecord:
        problem = ProblemRecord(Problem(path, "bad-json", "expected a comma", **facts), since=1_700_000_000.5)
        self._problems.append(problem)
        self.events.publish("problem.found", problem)
        return problem

    def serve_with(self, socket: Path) -> None:
        """Let every model be served by what listens on *socket*."""
        self._worker = WorkerClient(str(socket))

    async def close(self) -> None:
        self.events.close()
        if self._worker is not None:
            self._worker.close()

    # What the API asks.

    def _asked(self, verb: str, model: str = "", **arguments: Any) -> None:
        self.asked.append(Asked(verb, model, arguments))
        if verb in self._refusals:
            raise self._refusals[verb]

    def list(self, state: PublicState | None = None) -> list[Record]:
        self._asked("list")
        return [record for record in self._records.values() if state is None or record.state is state]

    def get(self, model_id: str) -> Record:
        for record in self._records.values():
            if model_id == record.id or model_id in record.aliases:
                return record
        near = difflib.get_close_matches(model_id, self._records, n=3)
        raise ModelNotFoundError(f'cannot find model "{model_id}"', near=near)

    async def start(
        self, model_id: str, init_overrides: Mapping[str, Any] | None = None, *, wait: bool = True
    ) -> Record:
        record = self.get(model_id)
        self._asked("start", record.id, init_overrides=init_overrides, wait=wait)
        if init_overrides:
            record = self.change(record.id, spec=record.spec.with_init(init_overrides))
        if not wait:
            return record
        await self.hold.wait()
        return self.change(record.id, "model.state", state=PublicState.RUNNING)

    async def stop(self, model_id: str, *, force: bool = False) -> Record:
        record = self.get(model_id)
        self._asked("stop", record.id, force=force)
        return self.change(record.id, "model.state", state=PublicState.DOWNLOADED)

    async def delete(self, model_id: str, *, keep_files: bool = False) -> Deletion:
        record = self.get(model_id)
        self._asked("delete", record.id, keep_files=keep_files)
        self.remove(record.id)
        return Deletion(record.id, removed=(f"{record.id}.json",), kept=self.kept)

    async def register(self, body: Mapping[str, Any]) -> Record:
        self._asked("register", **body)
        model_id = id_of(body)
        if model_id in self._records:
            raise ModelExistsError(f'cannot register "{model_id}": there is one already', param="id")
        return self.add(model_id, spec=spec_of(body), state=PublicState.DOWNLOADING)

    async def preview(self, body: Mapping[str, Any]) -> Preview:
        self._asked("preview", **body)
        model_id = id_of(body)
        path = f"models/{model_id}/{model_id}.json"
        return Preview(model_id, path, spec_of(body), self.plan, exists=model_id in self._records)

    async def copy(self, model_id: str, body: Mapping[str, Any]) -> Record:
        record = self.get(model_id)
        self._asked("copy", record.id, **body)
        return self.add(body["id"], spec=record.spec)

    async def receive(
        self, folder: str, name: str, pieces: AsyncIterator[bytes], *, size: int | None, sha256: str | None
    ) -> Received:
        content = b"".join([piece async for piece in pieces])
        self._asked("receive", folder, name=name, content=content, size=size)
        return Received(name, len(content), sha256 or "0" * 64)

    async def pause(self, model_id: str) -> Record:
        record = self.get(model_id)
        self._asked("pause", record.id)
        return self.change(record.id, paused=True)

    async def resume(self, model_id: str) -> Record:
        record = self.get(model_id)
        self._asked("resume", record.id)
        return self.change(record.id, paused=False)

    async def offers(self) -> Sequence[Offer]:
        self._asked("offers")
        return self.catalog

    async def search(self, words: str, limit: int) -> Sequence[SearchHit]:
        self._asked("search", words=words, limit=limit)
        return self.hits[:limit]

    def problems(self) -> Sequence[ProblemRecord]:
        self._asked("problems")
        return self._problems

    def report(self, source: str, problems: Collection[Problem], /) -> None:
        self._asked("report", source=source, problems=tuple(problems))

    async def rescan(self) -> dict[str, Any]:
        self._asked("rescan")
        return {"scanned": 3, "changed": 1, "seconds": 0.01}

    def running_parameters(self, model_id: str) -> dict[str, Any]:
        parameters = self.get(model_id).spec.plain().get("parameters") or {}
        return {"init": parameters.get("init") or {}, "runtime": parameters.get("runtime") or {}}

    def overview(self) -> dict[str, Any]:
        states = [record.state for record in self._records.values()]
        return {
            "models": {state.value: states.count(state) for state in PublicState},
            "folder": "/",
            "problems": len(self._problems),
            "watch": {"models": "events"},
            "memory": {"budget": 1 << 30, "reserved": 0},
            "at": time.time(),
        }

    def loads(self) -> Sequence[Load]:
        running = [record.id for record in self._records.values() if record.state is PublicState.RUNNING]
        return [Load(model_id, in_flight=self.in_flight, waiting=0, reserved=200, resident=100) for model_id in running]

    @contextlib.asynccontextmanager
    async def use(self, model_id: str, *, keep_alive_s: float | None = None) -> AsyncIterator[Upstream]:
        record = self.get(model_id)
        self._asked("use", record.id, keep_alive_s=keep_alive_s)
        await self.hold.wait()
        if self._worker is None:
            raise JandError("no upstream in this test")
        self.in_flight += 1
        try:
            yield Upstream(self._worker.ask, self.upstream_name or record.id)
        finally:
            self.in_flight -= 1


def id_of(body: Mapping[str, Any]) -> str:
    return str(body.get("id") or body.get("catalog") or "new")


def spec_of(body: Mapping[str, Any]) -> Spec:
    return make_spec(**{name: value for name, value in body.items() if name not in {"id", "catalog"}})
