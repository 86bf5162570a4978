"""What the API asks and the library tells: the registry, its actors, and everything that concerns more than one model.

Joins library and engine, which do not know one another. A model whose JSON went is out of the registry at once and leaves in its own time: `close` waits for those too.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import structlog

from jand.errors import NotPossibleError, ShuttingDownError
from jand.library import adopt
from jand.library.library import Library, LibrarySettings
from jand.lifecycle import deletion, overview
from jand.lifecycle.adoption import Adoption
from jand.lifecycle.events import EventLog, ProblemRecord
from jand.lifecycle.fetching import Fetching
from jand.lifecycle.intake import SEEN_TIMEOUT_S, Intake, Preview
from jand.lifecycle.offers import Offer, Offers
from jand.lifecycle.overview import Load
from jand.lifecycle.problems import ProblemBook
from jand.lifecycle.records import Records
from jand.lifecycle.registry import Registry
from jand.lifecycle.resumption import Resumption
from jand.lifecycle.reusing import Reusing
from jand.lifecycle.trees import Trees
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from jand.download.downloader import Downloader, Received
    from jand.download.planner import SearchHit
    from jand.download.reuse import Reuse
    from jand.library.findings import EntryScan, Tree
    from jand.library.headers import HeaderCache
    from jand.library.status import WatchStatus
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.admission import Admission
    from jand.lifecycle.catalog import Catalog
    from jand.lifecycle.notes import Notes
    from jand.lifecycle.running import Launch, Upstream
    from jand.lifecycle.tally import Tally
    from jand.model.record import PublicState, Record
from jand.model.state import Standing, public

log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ManagerSettings:
    """Times in seconds. *sandbox* says what confines workers here, for people to see."""

    start_on_request: bool = True
    stop_timeout_s: float = 300.0
    adopt: bool = True
    keep_alive_s: float = 300.0
    restore: bool = True
    sandbox: Mapping[str, str] = dataclasses.field(default_factory=dict)
    library: LibrarySettings = dataclasses.field(default_factory=LibrarySettings)


class Manager:
    """Everything about models that a daemon can be asked. Belongs to the event loop's thread."""

    def __init__(
        self,
        trees: Sequence[Tree],
        settings: ManagerSettings,
        *,
        headers: HeaderCache,
        notes: Notes,
        launch: Launch,
        downloader: Downloader,
        catalog: Catalog,
        admission: Admission,
        tally: Tally,
        reuse: Reuse | None = None,
    ) -> None:
        self.tasks = TaskSet()
        self.start_on_request = settings.start_on_request
        self.stop_timeout_s = settings.stop_timeout_s
        self.keep_alive_s = settings.keep_alive_s
        self.admission = admission
        self.tally = tally
        self.launch = launch
        self._sandbox = settings.sandbox
        self.ready = asyncio.Event()
        self.events = EventLog(picture=self.list, first_id=int(time.time() * 1000))
        self._trees = Trees(trees)
        self._problems = ProblemBook(self.events.publish, time.time)
        self.report = self._problems.replace  # what others than the library find wrong
        self._registry = Registry(self, self, lambda problems: self._problems.replace("ids", problems))
        self._records = Records()
        self._leaving: set[Actor] = set()
        self._closing = False
        self._library = Library(
            trees, settings.library, headers=headers, on_scan=self._scanned, on_status=self._watch_status_changed
        )
        self.watch = self._library
        self._notes = notes
        self._adoption = Adoption(self._library, self.tasks, notes) if settings.adopt else None
        self._resumption = Resumption(notes, admission, restore=settings.restore)
        self._downloader = downloader
        reusing = None if reuse is None else Reusing(reuse, downloader, notes)
        self._fetching = Fetching(downloader, self._library, notes, self.tasks, self._place_of, reusing)
        self._intake = Intake(
            self._trees.own, self._library, self._registry, self._fetching, downloader, catalog, self._place_of
        )
        self._offers = Offers(catalog, self._intake.plan_entry, self.tasks)

    # Life.

    async def run(self) -> None:
        """Watch and register until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._library.run(), name="library")
            group.create_task(self._announce_ready(), name="first scan")

    async def _announce_ready(self) -> None:
        """Say that the first scan is done, then do what can wait until then."""
        await self._library.ready.wait()
        self._registry.flush()
        self.ready.set()
        # Who waits for it is told before what can wait begins.
        await asyncio.sleep(0)
        log.info("first scan done", models=len(self._registry), problems=len(self._problems.all()))
        self.tasks.spawn(self._records.make_all(), name="make records of what the first scan found")
        self.tasks.spawn(self._resumption.start(self._registry), name="start with the daemon")
        await self._library.save()
        # Not before: until the first scan is done, every partial looks as if nobody wanted it.
        await self._fetching.sweep(self._trees, lambda: self._registry)

    async def close(self, *, grace_s: float, force: bool = False) -> None:
        """Stop every model, running answers within *grace_s* seconds, and wait until all processes are gone.

        Called once more with *force* it cuts short the first call.
        """
        self._closing = True
        actors = {*self._registry, *self._leaving}
        await asyncio.gather(*(actor.stop(grace_s=grace_s, force=force) for actor in actors), return_exceptions=True)
        self.events.close()
        await self.tasks.close()
        await self._downloader.close()
        await self._library.save()

    # What the library tells.

    def _scanned(self, scan: EntryScan) -> None:
        key = (scan.tree.label, scan.entry)
        if scan.bare and not scan.tree.writable:
            # Nothing is written there, so a bare GGUF is the model that its JSON would make it.
            unwritten = [adopt.as_found(bare) for bare in scan.bare]
            scan = dataclasses.replace(scan, models=(*scan.models, *filter(None, unwritten)))
        self._registry.absorb(scan)
        self._problems.replace(key, scan.problems)
        if self._adoption is not None and scan.tree.writable:
            self._adoption.consider(scan)
        if self.ready.is_set():  # those of the first scan are turned into actors all together
            self._registry.flush_soon()

    def _watch_status_changed(self, status: WatchStatus) -> None:
        self._problems.replace("watch", status.problems)
        for actor in self._registry:
            tree, entry = self._place_of(actor)
            offline = status.is_offline(tree.label, entry)
            if offline is not actor.offline:
                actor.remark(offline=offline)

    def _place_of(self, actor: Actor) -> tuple[Tree, str]:
        return self._trees.place_of(actor.found.path)

    # What actors tell.

    def changed(self, actor: Actor) -> None:
        """Publish what is different in the record of *actor* since the last time."""
        if not self.ready.is_set() or actor not in self._records:
            return
        before = self._records.find(actor)
        after = self._records.make(actor)
        if after is before:
            return
        # Of one that was found by the first scan and that nobody has seen yet, only the present is known.
        if before is None or (after.state, after.transition) != (before.state, before.transition):
            kind = "model.state"
            if not self._closing:
                self._resumption.note(after)
        elif dataclasses.replace(after, progress=None) == dataclasses.replace(before, progress=None):
            kind = "model.progress"
        else:
            kind = "model.updated"
        self.events.publish(kind, after)

    def registered(self, actor: Actor) -> None:
        self._fetching.recall(actor)
        if self.ready.is_set():
            record = self._records.make(actor)
            self.events.publish("model.registered", record)
            log.info("model registered", model=actor.id, path=actor.found.path, state=record.state)
        else:
            # Nobody can ask before the first scan is done, nor listen: the record is made later, and one line tells how many there are.
            self._records.expect(actor)
        self._fetching.consider(actor)
        self._intake.registered(actor)

    def found_again(self, actor: Actor) -> None:
        self._fetching.consider(actor)

    def removed(self, actor: Actor) -> None:
        record = self._records.drop(actor)
        self._fetching.forget(actor)
        self._resumption.forget(record)
        self.events.publish("model.removed", record)
        log.info("model removed", model=actor.id, path=actor.found.path)
        self._leaving.add(actor)
        self.tasks.spawn(self._see_off(actor), name=f"remove {actor.id}")

    async def _see_off(self, actor: Actor) -> None:
        try:
            await actor.remove()
        finally:
            self._leaving.discard(actor)
            if self._registry.find(actor.id) is None:
                self.tally.forget(actor.id)

    # What the API asks.

    def list(self, state: PublicState | None = None) -> list[Record]:
        """Every model, by id; those in *state* alone if it is given."""
        return self._records.all(state)

    def standings(self) -> Sequence[Standing]:
        """Return how every model stands, without the making of records that nobody has asked for yet."""
        return [Standing(actor.id, *public(actor.state)) for actor in self._registry]

    def get(self, model_id: str) -> Record:
        """Return the record as it is this moment (memory of the worker included)."""
        return self._registry.get(model_id).record()

    async def start(
        self, model_id: str, init_overrides: Mapping[str, Any] | None = None, *, wait: bool = True
    ) -> Record:
        """Start it; with *wait* return when it runs, else as soon as the start has begun."""
        self._refuse_when_closing()
        actor = self._registry.get(model_id)
        if wait:
            await actor.start(init_overrides)
        else:
            actor.check_start(init_overrides)
            self.tasks.spawn(self._start_quietly(actor, init_overrides), name=f"start {actor.id} without waiting")
            await asyncio.sleep(0)
        return actor.record()

    async def _start_quietly(self, actor: Actor, init_overrides: Mapping[str, Any] | None) -> None:
        with contextlib.suppress(Exception):  # the actor keeps the reason in its record and has logged it
            await actor.start(init_overrides)

    async def stop(self, model_id: str, *, force: bool = False) -> Record:
        actor = self._registry.get(model_id)
        await actor.stop(force=force)
        return actor.record()

    async def register(self, body: Mapping[str, Any]) -> Record:
        """Write the model JSON that *body* asks for into the root's own tree; return the model once the scan has registered it."""
        return (await self._intake.register(body)).record()

    async def preview(self, body: Mapping[str, Any]) -> Preview:
        """Say what `register` would do; asks the hub."""
        return await self._intake.preview(body)

    async def copy(self, model_id: str, body: Mapping[str, Any]) -> Record:
        """Write beside a model's JSON another one that shares its binaries; return the new model once it is registered."""
        return (await self._intake.copy(self._registry.get(model_id), body)).record()

    async def receive(self, folder: str, name: str, pieces: AsyncIterator[bytes], **announced: Any) -> Received:
        """Take a file that somebody sends into a folder below `models/`; *announced* are its `size` and `sha256`."""
        return await self._intake.receive(folder, name, pieces, **announced)

    async def offers(self) -> Sequence[Offer]:
        """Return the catalogue, each entry with what it would download as far as the hub has said."""
        return await self._offers.list()

    async def search(self, words: str, limit: int) -> Sequence[SearchHit]:
        """Ask the hub for repositories with GGUF files, each with what fits this machine."""
        return await self._downloader.search(words, limit)

    async def pause(self, model_id: str) -> Record:
        actor = self._registry.get(model_id)
        self._fetching.pause(actor)
        return actor.record()

    async def resume(self, model_id: str) -> Record:
        actor = self._registry.get(model_id)
        self._fetching.resume(actor)
        return actor.record()

    def running_parameters(self, model_id: str) -> dict[str, Any]:
        """Return the `init` and `runtime` in force, what the engine chose itself included, secrets masked."""
        actor = self._registry.get(model_id)
        parameters = actor.spec_in_force.masked().get("parameters") or {}
        chosen = {} if actor.running is None else actor.running.init_in_force()
        return {"init": {**(parameters.get("init") or {}), **chosen}, "runtime": parameters.get("runtime") or {}}

    async def delete(self, model_id: str, *, keep_files: bool = False) -> deletion.Deletion:
        """Stop the model, remove what a DELETE removes, and return when it is out of the registry."""
        actor = self._registry.get(model_id)
        tree, entry = self._place_of(actor)
        if not tree.writable:
            message = f'cannot delete "{actor.id}": {tree.path} is only read by jand'
            raise NotPossibleError(message, hint="remove the files yourself; the model goes with them")
        await actor.stop()
        fetched = await self._fetching.abandon(actor)
        others = [found for found in self._registry.found() if found.path != actor.found.path]
        planned = await asyncio.to_thread(
            deletion.plan, actor.found, others, tree.path, keep_files=keep_files, fetched=fetched
        )
        if self._adoption is not None:
            # What a DELETE leaves would be adopted, and the model be back.
            self._adoption.decline(actor.found, links_alone=not keep_files)
        stamp = actor.found.stamp
        try:
            done = await asyncio.to_thread(deletion.carry_out, actor.id, planned)
            self._library.touch(tree.label, entry)
            await asyncio.wait_for(actor.gone(stamp), SEEN_TIMEOUT_S)
        finally:
            if self._registry.find_path(actor.found.path) is actor:
                # It could not be deleted, or was dropped again at once.
                self._fetching.readmit(actor)
        log.info("model deleted", model=actor.id, removed=done.removed, kept=[kept.name for kept in done.kept])
        return done

    def problems(self) -> Sequence[ProblemRecord]:
        return self._problems.all()

    async def rescan(self) -> dict[str, Any]:
        """Scan everything now; return how many entries were scanned, how many had changed, and the seconds it took."""
        result = await self._library.rescan()
        self._registry.flush()
        return dataclasses.asdict(result)

    @contextlib.asynccontextmanager
    async def use(self, model_id: str, *, keep_alive_s: float | None = None) -> AsyncIterator[Upstream]:
        """Give what serves *model_id* for one request, starting it where needed; it is not stopped while the request lasts.

        *keep_alive_s*: see `Actor.acquire`.
        """
        self._refuse_when_closing()
        actor = self._registry.get(model_id)
        running = await actor.acquire(keep_alive_s=keep_alive_s)
        try:
            yield running.upstream
        finally:
            actor.release()

    def loads(self) -> Sequence[Load]:
        """Return what each model takes now that runs, starts or is waited for."""
        return [
            Load(
                actor.id,
                in_flight=actor.in_flight,
                waiting=actor.waiting,
                reserved=self.admission.reserved_for(actor),
                resident=actor.running.memory() if actor.running is not None else 0,
            )
            for actor in (*self._registry, *self._leaving)
            if actor.running is not None or actor.waiting or self.admission.reserved_for(actor)
        ]

    def overview(self) -> dict[str, Any]:
        """Return what `jand status` shows."""
        actors = [*self._registry, *self._leaving]
        return {
            "folder": str(self._trees.own.path),
            "problems": len(self._problems.all()),
            "downloads": len(self._downloader.under_way),
            **overview.describe(
                (each.state for each in self._records.all()), actors, self.admission, self.watch.status
            ),
            "sandbox": dict(self._sandbox),
        }

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise ShuttingDownError(
                "cannot start anything: the daemon is stopping", hint="try again in a moment", retry_after_s=5
            )
