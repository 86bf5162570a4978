"""A file that somebody sends: written under a hidden name in the model's folder, and given its own once it is whole and is what its name says.

It is held to what a fetched one is held to: its name, the room on the disk, its size and sha256, and for a binary the extents that its own header demands. A file that is there
is never replaced, and what ends early leaves nothing: whoever sends has the whole, so nothing is gone on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import structlog

from jand.download.disk import CHECK_EVERY, Space, disk_error
from jand.download.naming import checked_name, partial_stem
from jand.download.partial import FileArrivedError, Partial, PartialGoneError, WrongBytesError
from jand.download.recommend import gb
from jand.download.threads import see_through
from jand.errors import (
    BadFileNameError,
    BadRequestError,
    DiskFullError,
    FileTakenError,
    GgufError,
    NotPossibleError,
    PartialInUseError,
)
from jand.model.document import MAX_BYTES
from jand.model.filenames import Kind, is_temporary, kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

log = structlog.get_logger(__name__)

T = TypeVar("T")

AGAIN: Final = "send it again"
PIECE: Final = 1 << 20
"""Bytes that are written at once: small pieces cost more in handing over to the thread than in writing."""


@dataclass(frozen=True, slots=True)
class Received:
    """A file that came and is there under its name; *size* in bytes."""

    name: str
    size: int
    sha256: str


class Upload:
    """One file on its way into *folder* below *models*, which is made where it is missing.

    *size* in bytes and *sha256* are what the sender announces, as far as it does. Raises BadFileNameError for a name that may not be, or that scans would pass by.
    """

    def __init__(
        self, models: Path, folder: str, name: str, space: Space, *, size: int | None, sha256: str | None
    ) -> None:
        self._name = sendable(name)
        self._directory = models / sendable_folder(folder)
        self._is_json = kind(name.rpartition("/")[2]) is Kind.JSON
        self._space = space
        self._size = size
        self._sha256 = sha256
        # Not the partial of a download of the same name, which goes on until this one has come.
        self._partial = Partial(self._directory, name, stem=partial_stem(f"upload~{name}"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jand-upload")
        self._stop = threading.Event()
        self._made = False
        self._holds = False
        """Whether the partial is ours: what another upload writes is not to be removed."""

    async def take(self, pieces: AsyncIterator[bytes]) -> Received:
        """Write what *pieces* bring and return once it is there under its name, durably. Cancelling leaves nothing.

        Raises FileTakenError, DownloadError for what the disk refuses, GgufError for what is no model, BadRequestError for other bytes than announced.
        """
        self._refuse_length(self._size or 0)
        try:
            async with self._opened():
                await self._write(pieces)
                return await self._in_thread(self._finish)
        except FileArrivedError as error:
            message = f"cannot take {self._shown}: there is a file of that name, and none is ever replaced"
            raise FileTakenError(message, hint="delete its model first, or send it into another folder") from error
        except PartialInUseError as error:
            message = f"cannot take {self._shown}: it is being sent already"
            raise NotPossibleError(message, hint="wait until that has ended") from error
        except PartialGoneError as error:
            raise NotPossibleError(
                f"cannot take {self._shown}: its folder was cleared meanwhile", hint=AGAIN
            ) from error
        except WrongBytesError as error:
            raise BadRequestError(f"cannot take {self._shown}: {error}", hint=AGAIN, param="sha256") from error
        except GgufError as error:
            raise type(error)(f"cannot take {self._shown}: {error.message}", hint=error.hint) from error
        except DiskFullError as error:
            raise self._full(error) from error
        except OSError as error:
            told = disk_error(error, self._shown, retry_after_s=60.0)
            raise self._full(told) if isinstance(told, DiskFullError) else told from error

    @property
    def _shown(self) -> str:
        return f"{self._directory.name}/{self._name}"

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Hold the partial; whatever happens, the thread has let go at the end, and nothing of it is left."""
        try:
            await self._in_thread(self._open)
            yield
        finally:
            self._stop.set()
            self._space.release(self)
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            try:
                await see_through(closing, self._stop.set)
            finally:
                self._thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        with contextlib.suppress(FileExistsError):
            self._directory.mkdir()
            self._made = True
        self._partial.open()
        self._holds = True
        self._partial.reset()  # of what a killed daemon left
        self._partial.raise_if_arrived()
        self._claim()

    def _close(self) -> None:
        if self._holds:
            self._partial.discard()
        self._partial.close()
        if self._made:
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def _claim(self) -> None:
        remaining = max(0, (self._size or 0) - self._partial.size)
        self._space.claim(self._partial.descriptor, self, remaining, self._name)

    async def _write(self, pieces: AsyncIterator[bytes]) -> None:
        waiting = bytearray()
        async for piece in pieces:
            waiting += piece
            if len(waiting) >= PIECE:
                chunk, waiting = bytes(waiting), bytearray()
                await self._in_thread(lambda chunk=chunk: self._append(chunk))  # type: ignore[misc]
        await self._in_thread(lambda: self._append(bytes(waiting)))

    def _append(self, chunk: bytes) -> None:
        if self._stop.is_set():
            return
        before = self._partial.size
        self._refuse_length(before + len(chunk))
        self._partial.append(chunk)
        if before // CHECK_EVERY != self._partial.size // CHECK_EVERY:
            self._claim()

    def _refuse_length(self, length: int) -> None:
        if self._is_json and length > MAX_BYTES:
            message = f"cannot take {self._shown}: it has more than {MAX_BYTES} bytes"
            raise BadRequestError(message, hint="a model JSON is a small text")

    def _finish(self) -> Received:
        self._partial.verify_announced(self._size, self._sha256)
        if not self._is_json:
            self._partial.verify_header()
        received = Received(self._name, self._partial.size, self._partial.digest)
        self._partial.finish()
        log.info("file received", file=self._shown, bytes=received.size)
        return received

    def _full(self, error: DiskFullError) -> DiskFullError:
        needed, free = error.facts.get("needed"), error.facts.get("free")
        cause = "the disk is full"
        if isinstance(needed, int) and isinstance(free, int):
            cause = f"{gb(needed)} are to come, the disk has {gb(free)} free"
        hint = "make room on the disk, then send it again; downloads keep download.min_free free"
        return DiskFullError(f"cannot take {self._shown}: {cause}", hint=hint, needed=needed, free=free)


def sendable(name: str) -> str:
    """Return *name*, a path in a model's folder, where a file may be sent under it. Raises BadFileNameError."""
    try:
        checked_name(name)
    except BadFileNameError as error:
        raise BadFileNameError(error.message, hint="send it under a plain name", param="file") from error
    segments = name.split("/")
    if kind(segments[-1]) is Kind.OTHER or any(is_temporary(segment) for segment in segments):
        message = f"cannot take {name[:200]}: it is neither a model JSON nor a binary by its name"
        raise BadFileNameError(message, hint="send .json and .gguf files", param="file")
    return name


def sendable_folder(name: str) -> str:
    """Return *name* where a model's folder may be called so. Raises BadFileNameError."""
    try:
        checked_name(name)
    except BadFileNameError as error:
        raise BadFileNameError(error.message, hint="choose a plain name for the folder", param="folder") from error
    if "/" in name or is_temporary(name):
        message = f"cannot take anything into {name[:200]}: it is no folder that scans look into"
        raise BadFileNameError(message, hint="choose a plain name for the folder", param="folder")
    return name
