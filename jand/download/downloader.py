"""The queue of downloads: a few files at once, fair between models, one transfer for a file that several want, paused and gone on with, and ended by cancelling.

The door of this package for `lifecycle`. What is asked for here is finished, or fails with an error that says when to try again; nothing is retried behind the caller's back
for longer than its patience lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from jand.download import hardware, sweep
from jand.download.disk import Space
from jand.download.hub import Hub
from jand.download.pace import Bandwidth
from jand.download.planner import Planner
from jand.download.progress import Meter
from jand.download.seed import seed
from jand.download.settings import DownloadSettings
from jand.download.slots import Slots
from jand.download.threads import see_through
from jand.download.transfer import Means, Outcome, Transfer
from jand.download.upload import Received, Upload
from jand.download.web import Web
from jand.errors import ShuttingDownError
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from jand.download.plan import Plan, WantedFile
    from jand.download.planner import SearchHit
    from jand.download.recommend import Machine
    from jand.errors import DownloadError
    from jand.model.record import Progress
    from jand.model.spec import Spec

__all__ = ["DownloadSettings", "Downloader", "Received"]

log = structlog.get_logger(__name__)


class _PausedError(Exception):
    """The model was paused while its files were on their way."""


@dataclass(eq=False)
class _Shared:
    """One transfer and those who wait for it. *leaving*: all of them are gone, and it is being ended."""

    wanted: WantedFile
    directory: Path
    result: asyncio.Future[Outcome]
    owners: dict[object, str] = field(default_factory=dict)
    listeners: dict[object, Callable[[int, int | None, int], None]] = field(default_factory=dict)
    worried: dict[object, Callable[[DownloadError | None, float], None]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    transfer: Transfer | None = None
    leaving: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def tell(self, done: int, total: int | None, fresh: int) -> None:
        for listener in list(self.listeners.values()):
            listener(done, total, fresh)

    def worry(self, error: DownloadError | None, wait_s: float) -> None:
        for listener in list(self.worried.values()):
            listener(error, wait_s)

    def owner_names(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.owners.values())))


class Downloader:
    """Plans and fetches; made inside a running loop. *measure* looks at the machine, blocking, once."""

    def __init__(self, settings: DownloadSettings, *, measure: Callable[[], Machine] = hardware.measure) -> None:
        self._settings = settings
        self._web = Web(settings)
        self._planner = Planner(Hub(self._web, settings), settings, measure)
        self._space = Space(settings.min_free, retry_after_s=settings.retry.disk_full_s)
        self._bandwidth = Bandwidth(settings.bandwidth_limit)
        self._means = Means(self._web, settings, self._bandwidth, self._space)
        self._slots = Slots(settings.concurrency)
        self._tasks = TaskSet()
        self._shared: dict[tuple[Path, str], _Shared] = {}
        self._running: dict[str, asyncio.Event] = {}
        self._halted: dict[str, asyncio.Event] = {}
        self._closed = False

    @property
    def endpoint(self) -> str:
        """The hub's address."""
        return self._settings.endpoint

    def tune(self, *, concurrency: int, bandwidth_limit: int | None, min_free: int) -> None:
        """Let other limits count from now on; what is on its way goes on."""
        self._slots.resize(concurrency)
        self._bandwidth.limit(bandwidth_limit)
        self._space.min_free = min_free
        self._planner.min_free = min_free

    async def plan(
        self,
        spec: Spec,
        directory: Path,
        binaries_present: Mapping[str, int],
        *,
        stem: str = "",
        kept: Sequence[str] = (),
        roughly: bool = False,
    ) -> Plan:
        """Return which files *spec*, whose JSON is called *stem* and lies in *directory*, lacks, and where they come from.

        *binaries_present* maps the names of the files that are there to their sizes: nothing is planned over one. *kept* is the `chosen` of an earlier plan for the same
        spec, so that a choice stays when the machine changes. *roughly*: judge what fits by sizes alone, without some MB of a header. Asks the hub; raises DownloadError.
        """
        return await self._planner.plan(spec, directory, binaries_present, stem=stem, kept=kept, roughly=roughly)

    async def machine(self) -> Machine:
        """Return what this machine has room for, as plans take it."""
        return await self._planner.machine()

    async def search(self, words: str, limit: int = 10) -> list[SearchHit]:
        """Return repositories of the hub with GGUF files for *words*, each with what fits this machine."""
        return await self._planner.search(words, limit)

    async def fetch(
        self,
        plan: Plan,
        directory: Path,
        *,
        owner: str,
        on_progress: Callable[[Progress], None],
        on_trouble: Callable[[DownloadError | None, float], None] = lambda error, wait_s: None,
    ) -> None:
        """Fetch all files of *plan* into *directory*; return when each is there under its name, verified, or has arrived from elsewhere.

        *owner* names the model, for `pause` and for the notes beside partials. *on_progress* is called on the loop, at most ten times a second, *on_trouble* for what interrupts a
        transfer, with the seconds until it is tried again, and with None when bytes come again. Cancelling ends what nobody
        else waits for and keeps the partials. Raises DownloadError or GgufError, with `retry_after_s` set.
        """
        if self._closed:
            message = f"cannot download for {owner}: the daemon is shutting down"
            raise ShuttingDownError(message)
        meter = Meter(plan.files, plan.present, on_progress)
        try:
            while True:
                await self._event(self._running, owner, initially=True).wait()
                try:
                    await self._fetch_all(plan.files, directory, owner, meter, on_trouble)
                except _PausedError:
                    continue
                return
        finally:
            meter.close()

    async def receive(
        self,
        models: Path,
        folder: str,
        name: str,
        pieces: AsyncIterator[bytes],
        *,
        size: int | None = None,
        sha256: str | None = None,
    ) -> Received:
        """Take the file *name* into *folder* below *models* from somebody who sends it, within the same room on the disk as downloads; see `Upload`."""
        return await Upload(models, folder, name, self._means.space, size=size, sha256=sha256).take(pieces)

    def pause(self, owner: str) -> None:
        """Halt the model's transfers and those to come; partials are kept. Idempotent."""
        self._event(self._running, owner, initially=True).clear()
        self._event(self._halted, owner, initially=False).set()

    def resume(self, owner: str) -> None:
        """Go on with what `pause` halted, and try at once what waits for another attempt. Idempotent."""
        self._event(self._halted, owner, initially=False).clear()
        self._event(self._running, owner, initially=True).set()
        for shared in self._shared.values():
            if shared.transfer is not None and owner in shared.owners.values():
                shared.transfer.hurry()

    def forget(self, owner: str) -> None:
        """Forget whether a model that is gone was paused."""
        if owner in self._running:
            self.resume(owner)
            del self._running[owner], self._halted[owner]

    def is_paused(self, owner: str) -> bool:
        return owner in self._running and not self._running[owner].is_set()

    @property
    def under_way(self) -> tuple[Path, ...]:
        """The files whose transfers have begun and not ended, also those that wait for a place or another attempt."""
        return tuple(directory / name for directory, name in self._shared)

    async def sweep(self, directory: Path, owners: Collection[str], *, now: float | None = None) -> tuple[str, ...]:
        """Remove the partials in the model folder *directory* that none of *owners* has wanted for a day; return their names. To be called from time to time."""
        at = time.time() if now is None else now
        return await asyncio.to_thread(sweep.sweep, directory, owners, now=at, keep_s=self._settings.keep_partials_s)

    async def sweep_tree(self, tree: Path, owners: Collection[str], *, now: float | None = None) -> tuple[str, ...]:
        """Do as `sweep` does in every folder below *tree*, those without a model any more included."""
        removed: list[str] = []
        for directory in await asyncio.to_thread(sweep.folders_with_partials, tree):
            removed += await self.sweep(directory, owners, now=now)
        return tuple(removed)

    async def discard(self, directory: Path, owner: str) -> None:
        """Remove at once the partials that only *owner* wants, as a model that is deleted does; its `fetch` must have ended."""
        busy = [name for folder, name in self._shared if folder == directory]
        await asyncio.to_thread(sweep.discard, directory, owner, busy)

    async def close(self) -> None:
        """End all transfers, keeping their partials, and close the connections."""
        self._closed = True
        for shared in self._shared.values():
            shared.stop.set()
        await self._tasks.close()
        await self._web.close()

    @staticmethod
    def _event(events: dict[str, asyncio.Event], owner: str, *, initially: bool) -> asyncio.Event:
        if owner not in events:
            events[owner] = asyncio.Event()
            if initially:
                events[owner].set()
        return events[owner]

    async def _fetch_all(
        self,
        wanted: Sequence[WantedFile],
        directory: Path,
        owner: str,
        meter: Meter,
        on_trouble: Callable[[DownloadError | None, float], None],
    ) -> None:
        """Fetch all at once, as slots allow; the first error, or a pause, ends the others."""
        halted = self._event(self._halted, owner, initially=False)

        async def fetch_one(file: WantedFile) -> None:
            await self._join(file, directory, owner, meter, on_trouble)
            meter.complete(file.name)

        async def watch_for_pause() -> None:
            await halted.wait()
            raise _PausedError

        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(watch_for_pause())
                files = [group.create_task(fetch_one(file)) for file in wanted]
                await asyncio.gather(*files)
                watch.cancel()
        except ExceptionGroup as errors:
            causes = [error for error in errors.exceptions if not isinstance(error, _PausedError)]
            raise (causes or list(errors.exceptions))[0] from None

    async def _join(
        self,
        wanted: WantedFile,
        directory: Path,
        owner: str,
        meter: Meter,
        on_trouble: Callable[[DownloadError | None, float], None],
    ) -> None:
        """Wait for the transfer of *wanted*, together with whoever wants it too; the last who leaves ends it."""
        key = (directory, wanted.name)
        while (shared := self._shared.get(key)) is not None and shared.leaving:
            await asyncio.wait([shared.result])
        if shared is None:
            shared = self._start(key, wanted, directory, owner)
        me = object()
        shared.owners[me] = owner
        shared.listeners[me] = lambda done, total, fresh: meter.note(wanted.name, done, total, fresh)
        shared.worried[me] = on_trouble
        try:
            await asyncio.shield(shared.result)
        finally:
            del shared.owners[me], shared.listeners[me], shared.worried[me]
            if not shared.owners and not shared.result.done():
                shared.leaving = True
                await self._end(shared)

    def _start(self, key: tuple[Path, str], wanted: WantedFile, directory: Path, owner: str) -> _Shared:
        shared = _Shared(wanted, directory, asyncio.get_running_loop().create_future())
        self._shared[key] = shared
        shared.task = self._tasks.start(self._run(key, shared, owner), name=f"download {wanted.name}")
        return shared

    async def _end(self, shared: _Shared) -> None:
        """Cancel a transfer, because its last waiter was cancelled, and wait until it has let go of its files."""
        shared.stop.set()
        assert shared.task is not None
        shared.task.cancel()
        while not shared.task.done():
            # A task in a group that is cancelled is so twice: by what the group waits for, and by the group.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([shared.task])

    async def _run(self, key: tuple[Path, str], shared: _Shared, owner: str) -> None:
        try:
            await self._copy_from_twin(shared)
            shared.transfer = Transfer(
                shared.wanted,
                shared.directory,
                self._means,
                slot=lambda: self._slots.hold(owner),
                owners=lambda: shared.owner_names() or (owner,),
                on_bytes=shared.tell,
                on_trouble=shared.worry,
            )
            outcome = await shared.transfer.run()
        except asyncio.CancelledError:
            if self._closed:
                message = f"cannot download {shared.wanted.name}: the daemon is shutting down"
                shared.result.set_exception(ShuttingDownError(message))
                shared.result.exception()
            else:
                shared.result.cancel()
            raise
        except Exception as error:
            shared.result.set_exception(error)
            shared.result.exception()  # whoever waits gets it; nobody may wait any more
        else:
            shared.result.set_result(outcome)
        finally:
            del self._shared[key]

    async def _copy_from_twin(self, shared: _Shared) -> None:
        """Where another folder's transfer brings the same content already, wait for it and copy."""
        wanted = shared.wanted
        # Of those begun before this one, or two would wait for one another.
        earlier = itertools.takewhile(lambda other: other is not shared, self._shared.values())
        twin = next((other for other in earlier if other.wanted.sha256 == wanted.sha256), None)
        if wanted.sha256 is None or twin is None:
            return
        twin.listeners[shared] = lambda done, total, _: shared.tell(done, total, 0)
        try:
            await asyncio.wait([twin.result])
        finally:
            twin.listeners.pop(shared, None)
        # However it ended: the scan that sees the file ends the wish for it before the transfer can say that it is there.
        source = twin.directory / twin.wanted.name
        work = partial(seed, wanted, shared.directory, source, self._means.space, shared.stop)
        copying = asyncio.get_running_loop().run_in_executor(None, work)
        await see_through(copying, shared.stop.set)
