"""One file from an address to its final name: asked for, resumed after anything, hashed as it is written, verified whole, then renamed.

One connection, and two threads for what comes over it. A resume always asks the first address again, since what it redirects to expires. What arrives under the final name from elsewhere wins, and
ends the transfer. Cancelling the task keeps the partial.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import structlog

from jand.download.body import body_of
from jand.download.disk import CHECK_EVERY, Space, disk_error
from jand.download.hub_errors import LATER, failure_of, hub_refusal, is_temporary, plain_refusal
from jand.download.partial import FileArrivedError, Notes, Partial, PartialGoneError, WrongBytesError
from jand.download.repository import find_hub_address, parse_digest, shown_url
from jand.download.retry import Patience, TemporaryFailureError
from jand.download.writing import Writing
from jand.errors import BadDigestError, GgufError, HubUnavailableError, IncompleteGgufError, JandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from jand.download.pace import Bandwidth
    from jand.download.plan import WantedFile
    from jand.download.settings import DownloadSettings
    from jand.download.web import Answer, Web
    from jand.errors import DownloadError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


class Outcome(StrEnum):
    FETCHED = "fetched"
    ARRIVED = "arrived"
    """A file of that name came from elsewhere meanwhile."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all transfers share."""

    web: Web
    settings: DownloadSettings
    bandwidth: Bandwidth
    space: Space


class Transfer:
    """One run for one file.

    *slot* is held while connected and let go while waiting for another attempt, and with it all descriptors and threads: thousands may wait. *owners* are noted beside the partial. *on_bytes* is told the bytes that are
    there, the size as far as it is known, and how many of the bytes have just come. *on_trouble* is told each failure that another attempt may mend, with the seconds until that, and
    None when bytes come again.
    """

    def __init__(
        self,
        wanted: WantedFile,
        directory: Path,
        means: Means,
        *,
        slot: Callable[[], AbstractAsyncContextManager[None]],
        owners: Callable[[], tuple[str, ...]],
        on_bytes: Callable[[int, int | None, int], None],
        on_trouble: Callable[[DownloadError | None, float], None],
    ) -> None:
        self._wanted = wanted
        self._means = means
        self._slot = slot
        self._owners = owners
        self._on_bytes = on_bytes
        self._on_trouble = on_trouble
        self._troubled = False
        self._again = asyncio.Event()
        self._policy = means.settings.retry
        self._partial = Partial(directory, wanted.name)
        self._stop = threading.Event()
        self._writing: Writing
        """The threads of this attempt, while the slot is held."""
        self._patience = Patience(self._policy, random.random)
        self._size = wanted.size
        self._sha256 = wanted.sha256
        self._etag: str | None = None
        self._until: int | None = None
        """Where the body that is being received ends."""
        self._have = 0
        self._highest = 0
        self._noted_owners: tuple[str, ...] = ()
        self._taken_up = False
        self._fetched_again = False

    async def run(self) -> Outcome:
        """Return once the file is there under its name. Raises DownloadError or GgufError; `retry_after_s` says when to run another transfer."""
        try:
            while True:
                try:
                    await self._means.web.wait_turn(self._wanted.source)
                    async with self._slot(), self._opened():
                        return await self._attempt()
                except PartialGoneError:
                    log.info("partial deleted, beginning again", file=self._wanted.name)
                except TemporaryFailureError as failure:
                    await self._wait_after(failure)
        except OSError as error:
            raise disk_error(error, self._wanted.name, retry_after_s=self._policy.disk_full_s) from error
        except JandError as error:
            if error.retry_after_s is None:
                error.retry_after_s = self._policy.permanent_s
            raise

    def hurry(self) -> None:
        """Try again at once, where it waits for that; what a server asked to be left alone for is waited all the same."""
        self._again.set()

    async def _wait_after(self, failure: TemporaryFailureError) -> None:
        delay = self._patience.delay_after(failure)
        log.info("download interrupted", file=self._wanted.name, reason=str(failure), retry_in_s=round(delay, 1))
        self._troubled = True
        self._on_trouble(failure.error, delay)
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), delay)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Hold the partial, and threads for it. The end waits until they have let go, however often it is cancelled, so that the next transfer finds it free."""
        self._stop = threading.Event()
        self._writing = Writing(self._partial)
        try:
            await self._in_thread(self._partial.open)
            yield
        finally:
            self._stop.set()
            self._means.space.release(self)
            await self._writing.close(self._stop.set)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._writing.run(work)

    async def _attempt(self) -> Outcome:
        try:
            await self._in_thread(self._partial.look)
            await self._resume()
            while not (self._sha256 and self._size is not None and self._have >= self._size):
                await self._connect()
                if self._size is None or self._have >= self._size:
                    break
            await self._finish()
        except FileArrivedError:
            await self._in_thread(self._partial.discard)
            return Outcome.ARRIVED
        return Outcome.FETCHED

    async def _connect(self) -> None:
        """Ask once, and take what comes."""
        headers = {}
        piece = self._means.settings.piece
        in_pieces = self._size is not None and self._size - self._have > piece
        if self._have or in_pieces:
            headers["Range"] = f"bytes={self._have}-" + (str(self._have + piece - 1) if in_pieces else "")
        if self._have and self._etag:
            headers["If-Range"] = self._etag
        async with self._means.web.get(self._wanted.source, headers, on_hub=self._wanted.on_hub) as answer:
            self._raise_for_status(answer)
            await self._identify(answer)
            if answer.status != 416:
                await self._begin_body(answer)
                await self._receive(answer)
            elif not self._is_whole_by_range(answer):
                await self._reset()
                raise TemporaryFailureError(self._unavailable("the server has no such range"))

    async def _resume(self) -> None:
        """Take up what is there: drop what cannot be the beginning of what is wanted, hash what is not hashed."""
        if not self._taken_up:
            self._taken_up = True
            if not self._is_usable(self._partial.notes):
                await self._reset()
        if self._size is not None and self._partial.size > self._size:
            await self._reset()
        if not self._partial.hashed:
            self._on_bytes(self._partial.size, self._size, 0)
            await self._in_thread(lambda: self._partial.rehash(self._stop))
        self._have = self._partial.size
        self._highest = max(self._highest, self._have)
        self._on_bytes(self._have, self._size, 0)

    def _is_usable(self, notes: Notes | None) -> bool:
        """Whether what an earlier run left can be the beginning of what is wanted now."""
        same = notes is not None and notes.source == self._wanted.source
        if notes is not None and same:
            self._etag = notes.etag
            self._size = self._size if self._size is not None else notes.size
        if self._sha256 is not None:
            return notes is None or notes.sha256 == self._sha256 or (notes.sha256 is None and same)
        # Without a digest only the server's own tag says whether its file is still the same.
        return same and self._etag is not None

    async def _reset(self) -> None:
        await self._in_thread(self._partial.reset)
        self._have = 0
        self._etag = None
        self._on_bytes(0, self._size, 0)

    def _raise_for_status(self, answer: Answer) -> None:
        if answer.status in {200, 206, 416}:
            return
        what = self._wanted.name
        if is_temporary(answer):
            raise failure_of(answer, what)
        if self._wanted.on_hub and not answer.redirected:
            address = find_hub_address(self._wanted.source, self._means.settings.endpoint)
            name = address.repository.name if address else self._wanted.source
            raise hub_refusal(
                answer.status, answer.headers, name, what, has_token=self._means.settings.token is not None
            )
        raise plain_refusal(answer, what)

    async def _identify(self, answer: Answer) -> None:
        """Learn size and digest from the hub's first answer, and refuse another file than the wanted one."""
        if not self._wanted.on_hub:
            return
        digest = parse_digest(answer.stated.get("X-Linked-ETag", answer.stated.get("ETag", "")))
        size = answer.stated.get("X-Linked-Size", "")
        if digest is not None and self._sha256 is not None and digest != self._sha256:
            if self._wanted.demanded:
                raise self._bad_digest(f"the hub has sha256 {digest}, the JSON demands {self._sha256}")
            self._sha256, self._size = digest, int(size) if size.isdigit() else None
            await self._reset()
            raise TemporaryFailureError(self._unavailable("the file was replaced on the hub"))
        self._sha256 = self._sha256 or digest
        if self._size is None and size.isdigit():
            self._size = int(size)

    async def _begin_body(self, answer: Answer) -> None:
        """Check that the body is what was asked for, and bring the partial to where it begins."""
        if answer.encoding is not None:
            raise TemporaryFailureError(self._unavailable(f"it comes compressed ({answer.encoding}), unasked"))
        total: int | None = None
        self._until = None
        if answer.status == 206:
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            start = int(found[1]) if found and found[1] else None
            self._until = int(found[2]) + 1 if found and found[2] else None
            total = int(found[3]) if found and found[3] != "*" else None
            if start != self._have or (total is not None and self._size is not None and total != self._size):
                await self._reset()
                raise TemporaryFailureError(self._unavailable("the server sends another range than was asked for"))
        else:
            if self._have:
                log.info("server ignores ranges, beginning again", file=self._wanted.name)
                await self._reset()
            total = answer.response.content_length
            if total is not None and self._size is not None and total != self._size:
                cause = f"the server announces {total} bytes in place of {self._size}"
                raise TemporaryFailureError(self._unavailable(cause))
        self._size = self._size if self._size is not None else total
        self._until = self._size if self._until is None else self._until
        etag = answer.headers.get("ETag", "")
        self._etag = etag if etag.startswith('"') else None
        await self._note()
        await self._claim_space()

    async def _note(self) -> None:
        self._noted_owners = self._owners()
        notes = Notes(self._wanted.source, self._sha256, self._size, self._etag, self._noted_owners)
        await self._in_thread(lambda: self._partial.note(notes))

    async def _claim_space(self) -> None:
        remaining = max(0, (self._size or self._have) - self._have)
        claim = self._means.space.claim
        await self._in_thread(lambda: claim(self._partial.descriptor, self, remaining, self._wanted.name))

    def _is_whole_by_range(self, answer: Answer) -> bool:
        """Whether a 416 means that nothing is left to fetch."""
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if not (self._have and found and not found[1] and found[3] == str(self._have)):
            return False
        self._size = self._size if self._size is not None else self._have
        return True

    async def _receive(self, answer: Answer) -> None:
        checked_at = self._have
        body = body_of(answer.response, self._means.settings.stall_s)
        try:
            async with self._writing.pieces_of(body, self._means.bandwidth, self._count) as hand_on:
                while piece := await body.take():
                    room = len(piece) if self._until is None else self._until - self._have
                    await hand_on(piece[:room])
                    if self._owners() != self._noted_owners:
                        await self._note()
                    if self._have - checked_at >= CHECK_EVERY:
                        checked_at = self._have
                        await self._claim_space()
                    if len(piece) >= room and self._until is not None:
                        break
        finally:
            self._have = self._partial.size
        if self._until is not None and self._have < self._until:
            raise TemporaryFailureError(self._unavailable(f"it ended at {self._have} of {self._until} bytes"))

    def _count(self, fresh: int) -> None:
        self._have += fresh
        if self._have > self._highest:
            self._highest = self._have
            self._patience.note_progress()
        if self._troubled:
            self._troubled = False
            self._on_trouble(None, 0.0)
        self._on_bytes(self._have, self._size, fresh)

    async def _finish(self) -> None:
        """Verify the whole and give it its name. What is wrong is dropped, and fetched once more."""
        size, digest = self._size, self._sha256
        try:
            await self._in_thread(lambda: self._partial.verify(size, digest))
        except (WrongBytesError, GgufError) as error:
            if size is None and isinstance(error, IncompleteGgufError):
                # Nobody said how long the file is: the connection may have broken without a sign.
                raise TemporaryFailureError(self._unavailable(error.message)) from error
            await self._refuse(error)
        await self._in_thread(self._partial.finish)
        log.info("download complete", file=self._wanted.name, bytes=size, sha256=digest)

    async def _refuse(self, error: WrongBytesError | GgufError) -> None:
        # Bytes with the right digest are what the repository holds: they would come again.
        final = self._fetched_again or (isinstance(error, GgufError) and self._sha256 is not None)
        await self._reset()
        if not final:
            self._fetched_again = True
            self._highest = 0
            raise TemporaryFailureError(self._unavailable(f"what came cannot be used: {error}")) from error
        await self._in_thread(self._partial.discard)
        if isinstance(error, GgufError):
            message = f"cannot use {self._wanted.name} from {shown_url(self._wanted.url)}: {error.message}"
            raise type(error)(message, hint=error.hint or "name another file in download_url") from error
        raise self._bad_digest(str(error)) from error

    def _bad_digest(self, cause: str) -> BadDigestError:
        message = f"cannot use {self._wanted.name} from {shown_url(self._wanted.url)}: {cause}"
        return BadDigestError(message, hint="correct metadata.sha256, or name another file in download_url")

    def _unavailable(self, cause: str) -> HubUnavailableError:
        return HubUnavailableError(
            f"cannot download {self._wanted.name} from {shown_url(self._wanted.url)}: {cause}", hint=LATER
        )
