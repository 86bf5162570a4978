"""Bringing what a model lacks: one task for each model that is `downloading`, which waits, plans, fetches, and tries again when it is worth it.

Fetching waits until the model's folder is settled, because a JSON often lands before its binary. What is fetched is registered by the scan like any airdrop: nothing here changes a model's
state.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypedDict

import structlog

from jand.errors import DownloadError, GgufError, JandError, NotPossibleError, ShuttingDownError
from jand.lifecycle.job import Job, lacks, not_ours, not_recognised, wish_of
from jand.model.problem import ErrorNote
from jand.model.record import FileRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jand.download.downloader import Downloader
    from jand.download.plan import Plan
    from jand.library.findings import Tree
    from jand.library.library import Library
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.notes import Notes
    from jand.lifecycle.reusing import Reusing
    from jand.tasks import TaskSet

log = structlog.get_logger(__name__)

CHOSEN: Final = "chosen"
"""The section of the notes with what a plan chose for a JSON, and why: a later change of memory does not fetch again."""

COMING: Final = "coming"
"""The section of the notes with the names of all files of a plan that is not carried out yet."""

PAUSED: Final = "paused"
"""The section of the notes with the JSONs whose download a person halted: a restart does not go on with it."""

RETRY_S: Final = 900.0
"""When a failure that names no time of its own is tried again."""

HEAD_START_S: Final = 2.0
"""How long a hub may take to say what a model needs before this machine's own files are used without it: one that is out of reach takes most of a minute to be given up."""

SWEEP_S: Final = 3600.0


class Fetching:
    """The downloads of all models. *place_of* tells in which tree and entry an actor's JSON lies; *reusing* looks on this machine before, None where nobody wants that."""

    def __init__(
        self,
        downloader: Downloader,
        library: Library,
        notes: Notes,
        tasks: TaskSet,
        place_of: Callable[[Actor], tuple[Tree, str]],
        reusing: Reusing | None = None,
    ) -> None:
        self._downloader = downloader
        self._library = library
        self._notes = notes
        self._tasks = tasks
        self._place_of = place_of
        self._reusing = reusing
        self._jobs: dict[Actor, Job] = {}
        self._begun: set[Actor] = set()
        self._ending: dict[Actor, asyncio.Task[None]] = {}
        self._abandoned: set[Actor] = set()

    # What the scans tell.

    def consider(self, actor: Actor) -> None:
        """Begin, leave alone or end the fetching for *actor*, as its findings ask. Idempotent; called whenever they may have changed."""
        whole = actor.whole
        if self._reusing is not None:
            self._reusing.recall(actor)
            if not whole and self._reusing.may_be_dead(actor.found):
                self._tasks.spawn(self._remove_dead(self._reusing, actor), name=f"look for dead links of {actor.id}")
        job = self._jobs.get(actor)
        if job is not None and (job.wish != wish_of(actor.found) or not lacks(actor)):
            self._end(actor)
            job = None
        if whole and actor in self._begun:
            self._complete(actor)
        elif not whole and job is None and actor not in self._abandoned and lacks(actor):
            self._begin(actor)

    def _begin(self, actor: Actor) -> None:
        job = self._jobs[actor] = Job(wish_of(actor.found))
        if actor.found.linked or not self._place_of(actor)[0].writable:
            job.note_error(actor, not_ours(actor))
            return
        if self._notes.find(PAUSED, actor.found.path):
            self._downloader.pause(actor.found.path)
            actor.remark(paused=True)
        self._begun.add(actor)
        job.task = self._tasks.start(self._attend(actor, job), name=f"fetch for {actor.id}")

    def _end(self, actor: Actor) -> Job | None:
        job = self._jobs.pop(actor, None)
        if job is not None:
            if job.task is not None:
                job.task.cancel()
                self._ending[actor] = job.task
            job.clear_error(actor)
            actor.remark(progress=None)
        return job

    def _complete(self, actor: Actor) -> None:
        """Leave nothing behind of a download that is done, by us or by somebody else."""
        self._begun.discard(actor)
        self._note_coming(actor, ())
        self._unpause(actor)
        self._downloader.forget(actor.found.path)
        self._tasks.spawn(self._tidy(actor), name=f"discard partials of {actor.id}")

    async def _tidy(self, actor: Actor) -> None:
        if (task := self._ending.pop(actor, None)) is not None:
            await asyncio.wait([task])
        await self._downloader.discard(actor.found.directory, actor.found.path)

    def _unpause(self, actor: Actor) -> None:
        self._downloader.resume(actor.found.path)
        self._notes.note(PAUSED, actor.found.path, None)
        if actor.paused:
            actor.remark(paused=False)

    def recall(self, actor: Actor) -> None:
        """Know again what was chosen for *actor* in an earlier life of the daemon, and what of that has not come yet."""
        known = self._recall(actor.found.path)
        if known is not None:
            actor.remark(choice=_choice(known.get("quantization"), known.get("reason", "")))
        coming = self._notes.find(COMING, actor.found.path)
        if isinstance(coming, list) and all(isinstance(name, str) for name in coming):
            self._await(actor, tuple(coming))

    def _note_coming(self, actor: Actor, names: tuple[str, ...]) -> None:
        self._notes.note(COMING, actor.found.path, list(names) or None)
        self._await(actor, names)

    @staticmethod
    def _await(actor: Actor, names: tuple[str, ...]) -> None:
        """Let *actor* be whole when all files of *names* are there, or with none when a scan says so."""
        actor.remark(awaited=names)
        actor.look_at_disk()

    def forget(self, actor: Actor) -> None:
        """End what was begun for a model that is gone; its partials stay for a day, in case it comes back."""
        self._end(actor)
        for known in (self._begun, self._abandoned):
            known.discard(actor)
        self._ending.pop(actor, None)
        self._downloader.forget(actor.found.path)
        for section in (CHOSEN, COMING, PAUSED):
            self._notes.note(section, actor.found.path, None)

    # What people ask.

    async def abandon(self, actor: Actor) -> tuple[str, ...]:
        """End what was begun for a model that is being deleted, remove its partials, and begin nothing more for it before `readmit`.

        Returns the names of the files that were being fetched: one that was completed just now is not known to any scan.
        """
        self._abandoned.add(actor)
        job = self._end(actor)
        await self._tidy(actor)
        if self._reusing is not None:
            self._reusing.forget(actor.found)
        return () if job is None or job.plan is None else tuple(file.name for file in job.plan.files)

    def readmit(self, actor: Actor) -> None:
        """Take back `abandon`: the model could not be deleted."""
        self._abandoned.discard(actor)
        self.consider(actor)

    def pause(self, actor: Actor) -> None:
        self._get_job(actor, "pause").clear_error(actor)
        self._downloader.pause(actor.found.path)
        self._notes.note(PAUSED, actor.found.path, True)
        actor.remark(paused=True)

    def resume(self, actor: Actor) -> None:
        """Go on with what was paused; a download that waits to be tried again is tried at once."""
        job = self._get_job(actor, "resume")
        self._unpause(actor)
        job.again.set()

    def _get_job(self, actor: Actor, verb: str) -> Job:
        job = self._jobs.get(actor)
        if job is None or job.task is None:
            message = f'cannot {verb} "{actor.id}": nothing is being downloaded for it'
            raise NotPossibleError(message, hint=f"see its state: jand show {actor.id}")
        return job

    def needed(self, actor: Actor) -> tuple[str, ...]:
        """Return the names of the files that an unfinished download is to bring, and of those beside them that it does not; empty where there is no plan yet."""
        job = self._jobs.get(actor)
        return () if job is None or job.plan is None else (*job.plan.present, *(file.name for file in job.plan.files))

    async def plan_again(self, actor: Actor) -> Plan:
        """Return what the hub says would be fetched for *actor* if it were asked for now."""
        return await self._downloader.plan(actor.found.spec, actor.found.directory, **self._facts(actor))

    # Partials that nobody wants any more.

    async def sweep(self, trees: Iterable[Tree], actors: Callable[[], Iterable[Actor]]) -> None:
        """Remove, from time to time, partials whose JSON went more than a day ago, or lacks nothing any more; until cancelled. Not to be begun before the first scan."""
        writable = [tree.path for tree in trees if tree.writable]
        while True:
            wanting = {actor.found.path for actor in actors() if not actor.whole}
            for path in writable:
                for name in await self._downloader.sweep_tree(path, wanting):
                    log.info("stale partial removed", name=name)
            await asyncio.sleep(SWEEP_S)

    # One job.

    async def _attend(self, actor: Actor, job: Job) -> None:
        """Fetch until nothing is missing any more; failures are noted on the actor with the time of the next try."""
        while True:
            try:
                await self._try(actor, job)
            except ShuttingDownError:
                return
            except (DownloadError, GgufError) as error:
                await self._wait_for_retry(actor, job, error)
            except Exception as error:
                log.exception("fetching failed unexpectedly", model=actor.id)
                unexpected = DownloadError(f'cannot download for "{actor.id}": {error}', hint="the log has more")
                await self._wait_for_retry(actor, job, unexpected)

    async def _try(self, actor: Actor, job: Job) -> None:
        """Fetch what is missing. Always raises: the scan that sees the files whole ends this task through `consider`."""
        tree, entry = self._place_of(actor)
        await self._library.wait_settled(tree.label, entry)
        await self._fetch(actor, job)
        self._library.touch(tree.label, entry)
        await self._library.wait_settled(tree.label, entry)
        # What no scan takes for a binary of the model was fetched all the same, and is not waited for.
        self._note_coming(actor, ())
        self.consider(actor)
        # Where that was all, this task was just cancelled, which is to be felt before anything is called an error.
        await asyncio.sleep(0)
        raise not_recognised(actor, job)

    async def _fetch(self, actor: Actor, job: Job) -> None:
        facts = self._facts(actor)
        asking = asyncio.ensure_future(self._downloader.plan(actor.found.spec, actor.found.directory, **facts))
        try:
            if not await self._do_without_hub(actor, job, asking):
                await self._carry_out(actor, job, await asking)
        finally:
            if asking.cancel():
                await asyncio.wait([asking])
            elif not asking.cancelled():
                asking.exception()
        actor.remark(progress=None)

    async def _do_without_hub(self, actor: Actor, job: Job, asking: asyncio.Future[Plan]) -> bool:
        """Complete *actor* with what this machine has, where the hub that is being asked fails or is slow; return whether that was all it lacked."""
        if self._reusing is None:
            return False
        await asyncio.wait([asking], timeout=HEAD_START_S)
        if asking.done() and not isinstance(asking.exception(), DownloadError):
            return False
        facts = self._facts(actor)
        present = facts["binaries_present"]
        plan = await self._reusing.find_plan(actor.found, present, stem=facts["stem"], kept=facts["kept"])
        if plan is None or (asking.done() and asking.exception() is None):
            return False
        before = self._recall(actor.found.path)
        if not (await self._begin_plan(actor, job, plan)).files:
            return True
        job.plan = None
        self._notes.note(CHOSEN, actor.found.path, before)
        self._note_coming(actor, ())
        actor.remark(choice={}, wanted=(), progress=None)
        return False

    async def _begin_plan(self, actor: Actor, job: Job, plan: Plan) -> Plan:
        """Note what *plan* brings, and link what this machine has of it; return the plan for the rest."""
        job.plan = plan
        # Before the files come: the scan that sees the last of them ends this task.
        self._note_choice(actor, plan)
        if not plan.files:
            return plan
        self._note_coming(actor, (*plan.present, *(file.name for file in plan.files)))
        return plan if self._reusing is None else await self._reusing.take(actor, plan)

    async def _carry_out(self, actor: Actor, job: Job, whole: Plan) -> None:
        plan = await self._begin_plan(actor, job, whole)
        if not plan.files:
            return
        job.clear_error(actor)
        log.info("fetching", model=actor.id, files=[file.name for file in plan.files], bytes=plan.bytes_to_fetch)
        await self._downloader.fetch(
            plan,
            actor.found.directory,
            owner=actor.found.path,
            on_progress=lambda progress: actor.remark(progress=progress),
            on_trouble=lambda error, wait_s: job.note_trouble(actor, error, wait_s),
        )
        log.info("fetched", model=actor.id, files=[file.name for file in plan.files])

    def _facts(self, actor: Actor) -> _Facts:
        """Return what a plan for *actor* is made from, beside its spec."""
        found = actor.found
        known = self._recall(found.path)
        return {
            "binaries_present": {binary.name: binary.size for binary in found.binaries if binary.present},
            "stem": found.path.rpartition("/")[2].removesuffix(".json"),
            "kept": known["files"] if known is not None else (),
        }

    async def _remove_dead(self, reusing: Reusing, actor: Actor) -> None:
        """Take away links of ours that lead nowhere any more; the scan that follows finds the binaries missing, and fetches them."""
        if await reusing.remove_dead(actor.found):
            tree, entry = self._place_of(actor)
            self._library.touch(tree.label, entry)

    def _note_choice(self, actor: Actor, plan: Plan) -> None:
        """Keep what *plan* chose; of a choice that was kept, the reason that it was once made for."""
        path = actor.found.path
        known = self._recall(path)
        if plan.chosen and (known is None or known["files"] != list(plan.chosen)):
            known = {"files": list(plan.chosen), "quantization": plan.quantization, "reason": plan.reason}
            self._notes.note(CHOSEN, path, known)
        reason = known.get("reason", "") if plan.chosen and known is not None else plan.reason
        wanted = tuple(FileRecord(file.name, file.size, present=False, sha256=file.sha256) for file in plan.files)
        actor.remark(choice=_choice(plan.quantization, reason), wanted=wanted)

    def _recall(self, path: str) -> dict[str, Any] | None:
        """Find what was chosen for the JSON at *path*; anybody may have written into the notes."""
        known = self._notes.find(CHOSEN, path)
        if not isinstance(known, dict):
            return None
        files = known.get("files")
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            return None
        texts = {name: value for name in ("quantization", "reason") if isinstance(value := known.get(name), str)}
        return {"files": files, **texts}

    async def _wait_for_retry(self, actor: Actor, job: Job, error: JandError) -> None:
        wait_s = error.retry_after_s if error.retry_after_s is not None else RETRY_S
        now = time.time()
        actor.remark(progress=None)
        job.note_error(actor, ErrorNote(error.code, error.message, error.hint, at=now, retry_at=now + wait_s))
        log.warning("not fetched", model=actor.id, reason=error.message, retry_in_s=round(wait_s))
        await job.wait_again(wait_s)


class _Facts(TypedDict):
    """What `Downloader.plan` takes by these names."""

    binaries_present: Mapping[str, int]
    stem: str
    kept: Sequence[str]


def _choice(quantization: str | None, reason: str) -> dict[str, str | None]:
    return {"chosen_quantization": quantization, "chosen_because": reason} if reason else {}
