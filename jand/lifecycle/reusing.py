"""Between a model that lacks binaries and the other programs of this machine that may have them: what is looked for when, and what is remembered of it.

A file that was linked belongs to the model like any that a person linked; beyond that only one thing is done to it: a symbolic link whose target its program has deleted goes, so that the
binary is fetched again.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from jand.download.here import plan_here
from jand.download.progress import Meter
from jand.download.reuse import Taken, find_dead
from jand.download.threads import see_through
from jand.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jand.download.downloader import Downloader
    from jand.download.plan import Plan, WantedFile
    from jand.download.reuse import Reuse
    from jand.library.findings import Binary, Found
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.notes import Notes

log = structlog.get_logger(__name__)

REUSED: Final = "reused"
"""The section of the notes with the files that were linked for a JSON, and where each is from."""


class Reusing:
    """Looks with *reuse* for what plans want. One file is checked at a time: each check reads it whole."""

    def __init__(self, reuse: Reuse, downloader: Downloader, notes: Notes) -> None:
        self._reuse = reuse
        self._downloader = downloader
        self._notes = notes
        self._turn = asyncio.Semaphore(1)

    async def find_plan(
        self, found: Found, present: Mapping[str, int], *, stem: str, kept: Sequence[str]
    ) -> Plan | None:
        """Return a plan of what other programs seem to have, for when the hub gives none; None where that is not enough for the model."""
        machine = await self._downloader.machine()
        work = partial(plan_here, found.spec, present, self._reuse, machine, stem=stem, kept=kept)
        try:
            plan = await asyncio.to_thread(work)
        except DownloadError as error:
            log.debug("nothing to re-use", path=found.path, reason=error.message)
            return None
        return plan if plan.files else None

    async def take(self, actor: Actor, plan: Plan) -> Plan:
        """Link those files of *plan* that this machine has into the model's folder; return the plan for the rest."""
        found = actor.found
        if found.linked:
            return plan
        taken: dict[str, Taken] = {}
        async with self._turn:
            meter = Meter(plan.files, plan.present, lambda progress: actor.remark(progress=progress))
            try:
                for file in plan.files:
                    if (one := await self._take(actor, file, meter)) is not None:
                        taken[file.name] = one
                        meter.complete(file.name)
            finally:
                meter.close()
        return replace(
            plan,
            files=tuple(file for file in plan.files if file.name not in taken),
            present={**plan.present, **{name: one.size for name, one in taken.items()}},
        )

    async def _take(self, actor: Actor, file: WantedFile, meter: Meter) -> Taken | None:
        directory = actor.found.directory
        tidy = directory / file.name not in self._downloader.under_way
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        results: list[Taken] = []

        def tell(done: int) -> None:
            loop.call_soon_threadsafe(meter.note, file.name, done, file.size, 0)

        def work() -> None:
            taken = self._reuse.take(file, directory, stop=stop, on_bytes=tell, tidy=tidy)
            results.extend([taken] if taken is not None else [])

        try:
            await see_through(loop.run_in_executor(None, work), stop.set)
        finally:
            # The scan that sees the last link ends this task, maybe before it comes here.
            for taken in results:
                self._remember(actor.found, taken)
                self.recall(actor)
                log.info("re-used", model=actor.id, file=taken.name, source=str(taken.source))
        return results[0] if results else None

    def _remember(self, found: Found, taken: Taken) -> None:
        known = self._notes.find(REUSED, found.path)
        earlier = known if isinstance(known, dict) else {}
        self._notes.note(REUSED, found.path, {**earlier, taken.name: _to_note(taken)})

    def recall(self, actor: Actor) -> None:
        """Let the model's details say where its binaries are from, also after a restart."""
        if (reused := self._recall(actor.found)) != actor.reused:
            actor.remark(reused=reused)

    def _recall(self, found: Found) -> dict[str, Taken]:
        known = self._notes.find(REUSED, found.path)
        if known is None:
            return {}
        items = known.items() if isinstance(known, dict) else ()
        return {name: taken for name, value in items if (taken := _find_taken(name, value)) is not None}

    def forget(self, found: Found) -> None:
        self._notes.note(REUSED, found.path, None)

    def may_be_dead(self, found: Found) -> bool:
        """Whether a binary of *found* that was linked here is not there any more."""
        return bool(self._suspects(found))

    def _suspects(self, found: Found) -> list[tuple[Binary, Taken]]:
        absent = [binary for binary in found.binaries if not binary.present]
        if not absent or found.linked:
            return []
        taken = self._recall(found)
        return [(binary, taken[binary.name]) for binary in absent if binary.name in taken]

    async def remove_dead(self, found: Found) -> bool:
        """Remove the links made here whose targets their programs deleted; return whether there were any."""
        return await asyncio.to_thread(_remove_dead, self._suspects(found))


def _remove_dead(suspects: Sequence[tuple[Binary, Taken]]) -> bool:
    removed = False
    for binary, taken in suspects:
        if find_dead(binary.path, taken):
            binary.path.unlink(missing_ok=True)
            log.info("dead link removed", path=str(binary.path), source=str(taken.source))
            removed = True
    return removed


def _to_note(taken: Taken) -> dict[str, Any]:
    return {"from": str(taken.source), "place": str(taken.place), "inode": taken.inode, "size": taken.size}


def _find_taken(name: str, value: object) -> Taken | None:
    if not isinstance(value, dict):
        return None
    source, place, inode, size = (value.get(key) for key in ("from", "place", "inode", "size"))
    if isinstance(source, str) and isinstance(place, str) and isinstance(inode, int) and isinstance(size, int):
        return Taken(name, Path(source), Path(place), inode, size)
    return None
