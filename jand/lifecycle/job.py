"""The fetching for one model: what it was begun for, how it waits, and what it says when it cannot be done."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from jand.errors import DownloadError, NoBinaryError
from jand.lifecycle.awaited import outstanding
from jand.model.problem import ErrorNote

if TYPE_CHECKING:
    from jand.download.plan import Plan
    from jand.library.findings import Found
    from jand.lifecycle.actor import Actor


class Job:
    """The fetching for one model; *wish* is what of its findings it was begun for, *task* None where nothing can be fetched for it."""

    def __init__(self, wish: object) -> None:
        self.wish = wish
        self.task: asyncio.Task[None] | None = None
        self.plan: Plan | None = None
        self.again = asyncio.Event()
        self._error: ErrorNote | None = None

    async def wait_again(self, seconds: float) -> None:
        """Return after *seconds*, or when somebody asks for another try."""
        self.again.clear()
        try:
            await asyncio.wait_for(self.again.wait(), seconds)
        except TimeoutError:
            return

    def note_error(self, actor: Actor, error: ErrorNote) -> None:
        self._error = error
        actor.remark(error=error)

    def note_trouble(self, actor: Actor, error: DownloadError | None, wait_s: float) -> None:
        """Let *actor* say what interrupts its download until *wait_s* seconds have passed; with None, that nothing does any more."""
        if error is None:
            self.clear_error(actor)
            return
        now = time.time()
        self.note_error(actor, ErrorNote(error.code, error.message, error.hint, at=now, retry_at=now + wait_s))

    def clear_error(self, actor: Actor) -> None:
        """Take away what this job has noted, and nothing that others have."""
        if self._error is not None and actor.error is self._error:
            actor.remark(error=None)
        self._error = None


def lacks(actor: Actor) -> bool:
    """Whether something is to be fetched: a person's own incomplete or broken file is theirs to mend, and never fetched over."""
    found = actor.found
    if found.whole and not actor.awaited:
        return False
    if found.spec.is_remote or found.error is not None:
        return False
    return bool(found.missing) or found.unresolved or bool(outstanding(found, actor.awaited))


def not_ours(actor: Actor) -> ErrorNote:
    return ErrorNote(
        "read-only-folder",
        f'cannot fetch what "{actor.id}" lacks: jand does not write to {actor.found.folder}',
        "put the binary there yourself, or copy the JSON into the models folder",
        at=time.time(),
    )


def not_recognised(actor: Actor, job: Job) -> DownloadError:
    fetched = ", ".join(file.name for file in job.plan.files) if job.plan is not None else ""
    lacks = ", ".join(actor.found.missing) or "weights"
    message = f'cannot complete "{actor.id}": it lacks {lacks}, and its plan brings {fetched or "nothing"}'
    return NoBinaryError(message, hint='name its binary in "download_url"')


def wish_of(found: Found) -> object:
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
