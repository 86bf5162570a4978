"""Bringing what a model lacks: one task for each model that is `downloading`, which waits, plans, fetches, and tries again when it is worth it.

Fetching waits until the model's folder is settled, because a JSON often lands before its binary. What is fetched is registered by the scan like any airdrop: nothing here changes a model's
state.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from jand.errors import DownloadError, GgufError, JandError, NotPossibleError
from jand.model.problem import ErrorNote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jand.download.downloader import Downloader
    from jand.download.plan import Plan
    from jand.library.findings import Found, Tree
    from jand.library.library import Library
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.notes import Notes
    from jand.lifecycle.reusing import Reusing
    from jand.tasks import TaskSet

log = structlog.get_logger(__name__)

CHOSEN: Final = "chosen"
"""The section of the notes with the files that a plan chose for a JSON: a later change of memory does not fetch again."""

RETRY_S: Final = 900.0
"""When a failure that names no time of its own is tried again."""

SWEEP_S: Final = 3600.0


class Fetching:
    """The downloads of all models. *entry_of* tells in which tree and entry an actor's JSON lies; *reusing* looks on this machine before, None where nobody wants that."""

    def __init__(
        self,
        downloader: Downloader,
        library: Library,
        notes: Notes,
        tasks: TaskSet,
        entry_of: Callable[[Actor], tuple[Tree, str]],
        reusing: Reusing | None = None,
    ) -> None:
        self._downloader = downloader
        self._library = library
        self._notes = notes
        self._tasks = tasks
        self._entry_of = entry_of
        self._reusing = reusing
        self._jobs: dict[Actor, _Job] = {}

    def consider(self, actor: Actor) -> None:
        """Begin, leave alone or end the fetching for *actor*, as its findings ask. Idempotent; called whenever they may have changed."""
        if self._reusing is not None:
            self._reusing.recall(actor)
            if self._reusing.may_be_dead(actor.found):
                self._tasks.spawn(self._remove_dead(self._reusing, actor), name=f"look for dead links of {actor.id}")
        job = self._jobs.get(actor)
        if job is not None and (job.wish != _wish(actor.found) or not _lacks(actor.found)):
            self._end(actor)
            job = None
        if job is not None or not _lacks(actor.found):
            return
        if actor.found.linked or not self._entry_of(actor)[0].writable:
            actor.remark(error=_not_ours(actor))
        else:
            self._jobs[actor] = _Job(
                _wish(actor.found), self._tasks.start(self._attend(actor), name=f"fetch for {actor.id}")
            )

    def forget(self, actor: Actor) -> None:
        """End what was begun for a model that is gone; its partials stay for a day, in case it comes back."""
        self._end(actor)
        self._downloader.forget(actor.found.path)

    async def discard(self, actor: Actor) -> None:
        """End what was begun for a model that is being deleted, and remove its partials."""
        job = self._jobs.get(actor)
        self._end(actor)
        if job is not None:
            await asyncio.gather(job.task, return_exceptions=True)
        await self._downloader.discard(actor.found.directory, actor.found.path)
        if self._reusing is not None:
            self._reusing.forget(actor.found)

    def pause(self, actor: Actor) -> None:
        if actor not in self._jobs:
            message = f'cannot pause "{actor.id}": nothing is being downloaded for it'
            raise NotPossibleError(message, hint="`jand show` tells its state")
        self._downloader.pause(actor.found.path)
        actor.remark(paused=True)

    def resume(self, actor: Actor) -> None:
        """Go on with what was paused; a download that waits to be tried again is tried at once."""
        job = self._jobs.get(actor)
        if job is None:
            message = f'cannot resume "{actor.id}": nothing is being downloaded for it'
            raise NotPossibleError(message, hint="`jand show` tells its state")
        self._downloader.resume(actor.found.path)
        actor.remark(paused=False)
        job.again.set()

    async def sweep(self, trees: Sequence[Tree], owners: Callable[[], set[str]]) -> None:
        """Remove, from time to time, partials whose JSON went more than a day ago; until cancelled. To be begun after the first scan, when *owners* knows all paths."""
        while True:
            for tree in trees:
                if tree.writable:
                    for name in await self._downloader.sweep_tree(tree.path, owners()):
                        log.info("stale partial removed", tree=tree.label, name=name)
            await asyncio.sleep(SWEEP_S)

    def _end(self, actor: Actor) -> None:
        job = self._jobs.pop(actor, None)
        if job is not None:
            job.task.cancel()
            actor.remark(progress=None)

    async def _attend(self, actor: Actor) -> None:
        """Fetch until nothing is missing any more; failures are noted on the actor with the time of the next try."""
        tree, entry = self._entry_of(actor)
        # The job is entered in the table once this has been started.
        await asyncio.sleep(0)
        job = self._jobs[actor]
        while True:
            try:
                await self._library.wait_settled(tree.label, entry)
                await self._fetch(actor)
            except (DownloadError, GgufError) as error:
                await self._wait_for_retry(actor, job, error)
                continue
            actor.remark(progress=None)
            self._library.touch(tree.label, entry)
            # The scan that sees the files ends this task through `consider`; where it does not (something else is wrong), trying again is not urgent.
            await job.wait_again(RETRY_S)

    async def _fetch(self, actor: Actor) -> None:
        found = actor.found
        present = {binary.name: binary.size for binary in found.binaries if binary.present}
        stem = found.path.rpartition("/")[2].removesuffix(".json")
        kept = self._notes.find(CHOSEN, found.path) or ()
        plan, failure = await self._plan(found, present, stem=stem, kept=kept)
        # Before the files come: the scan that sees the last of them ends this task.
        if plan.chosen:
            self._notes.note(CHOSEN, found.path, list(plan.chosen))
        actor.remark(choice={"chosen_quantization": plan.quantization, "chosen_because": plan.reason or None})
        if self._reusing is not None and plan.files:
            plan = await self._reusing.take(actor, plan)
        if failure is not None and plan.files:
            self._notes.note(CHOSEN, found.path, list(kept) or None)
            actor.remark(choice={})
            raise failure
        if plan.files:
            actor.remark(error=None)
            log.info("fetching", model=actor.id, files=[file.name for file in plan.files], bytes=plan.bytes_to_fetch)
            await self._downloader.fetch(
                plan, found.directory, owner=found.path, on_progress=lambda progress: actor.remark(progress=progress)
            )
            log.info("fetched", model=actor.id, files=[file.name for file in plan.files])

    async def _plan(
        self, found: Found, present: Mapping[str, int], *, stem: str, kept: Sequence[str]
    ) -> tuple[Plan, DownloadError | None]:
        """Return the hub's plan; where it gives none, one of what this machine has, with what kept the hub from it."""
        try:
            plan = await self._downloader.plan(found.spec, found.directory, present, stem=stem, kept=kept)
        except DownloadError as error:
            here = None
            if self._reusing is not None:
                here = await self._reusing.find_plan(found, present, stem=stem, kept=kept)
            if here is None:
                raise
            return here, error
        return plan, None

    async def _remove_dead(self, reusing: Reusing, actor: Actor) -> None:
        """Take away links of ours that lead nowhere any more; the scan that follows finds the binaries missing, and fetches them."""
        if await reusing.remove_dead(actor.found):
            tree, entry = self._entry_of(actor)
            self._library.touch(tree.label, entry)

    async def _wait_for_retry(self, actor: Actor, job: _Job, error: JandError) -> None:
        wait_s = error.retry_after_s if error.retry_after_s is not None else RETRY_S
        now = time.time()
        actor.remark(progress=None)
        actor.remark(error=ErrorNote(error.code, error.message, error.hint, at=now, retry_at=now + wait_s))
        log.warning("not fetched", model=actor.id, reason=error.message, retry_in_s=round(wait_s))
        await job.wait_again(wait_s)


class _Job:
    """The fetching for one model; *wish* is what of its findings it was begun for."""

    def __init__(self, wish: object, task: asyncio.Task[None]) -> None:
        self.wish = wish
        self.task = task
        self.again = asyncio.Event()

    async def wait_again(self, seconds: float) -> None:
        """Return after *seconds*, or when somebody asks for another try."""
        self.again.clear()
        try:
            await asyncio.wait_for(self.again.wait(), seconds)
        except TimeoutError:
            return


def _not_ours(actor: Actor) -> ErrorNote:
    return ErrorNote(
        "read-only-folder",
        f'cannot fetch what "{actor.id}" lacks: jand does not write to {actor.found.folder}',
        "put the binary there yourself, or copy the JSON into the models folder",
        at=time.time(),
    )


def _lacks(found: Found) -> bool:
    """Whether something is to be fetched: a person's own incomplete or broken file is theirs to mend, and never fetched over."""
    return not found.spec.is_remote and found.error is None and (bool(found.missing) or found.unresolved)


def _wish(found: Found) -> object:
    """Return what of a JSON decides about what is fetched."""
    spec = found.spec
    init = spec.parameters.init
    return (
        spec.origin,
        spec.import_format,
        spec.download_url,
        spec.metadata,
        init.ctx_len,
        init.n_parallel,
        found.place,
    )
