"""What the API asks of the lifecycle, as types: `lifecycle.manager.Manager` and the tests' in-memory one are both checked against it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from jand.download.downloader import Received
    from jand.download.planner import SearchHit
    from jand.lifecycle.events import EventLog, ProblemRecord
    from jand.lifecycle.intake import Preview
    from jand.lifecycle.offers import Offer
    from jand.lifecycle.running import Ask
    from jand.lifecycle.tally import Tally
    from jand.model.problem import Problem
    from jand.model.record import PublicState, Record


class Upstream(Protocol):
    """Where a request goes: *ask* puts it, and *model_id* is the name by which the model is known there."""

    @property
    def ask(self) -> Ask: ...

    @property
    def model_id(self) -> str: ...


class Kept(Protocol):
    """A file that a deletion left, and why."""

    @property
    def name(self) -> str: ...

    @property
    def why(self) -> str: ...


class Deletion(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def kept(self) -> Sequence[Kept]: ...


class Load(Protocol):
    """What one model takes: requests, and bytes that are kept for it and that it really has."""

    @property
    def model_id(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def reserved(self) -> int: ...

    @property
    def resident(self) -> int: ...


class Manager(Protocol):
    """The registry and its actors. Cancelling a caller ends its waiting and nothing else: a start or a stop once asked for goes on."""

    @property
    def ready(self) -> asyncio.Event:
        """Set when the first scan has ended."""

    @property
    def events(self) -> EventLog: ...

    def list(self, state: PublicState | None = None) -> Sequence[Record]: ...

    def get(self, model_id: str) -> Record:
        """Look up an id or an alias. Raises ModelNotFoundError."""

    async def start(
        self, model_id: str, init_overrides: Mapping[str, Any] | None = None, *, wait: bool = True
    ) -> Record: ...

    async def stop(self, model_id: str, *, force: bool = False) -> Record: ...

    async def delete(self, model_id: str, *, keep_files: bool = False) -> Deletion: ...

    async def register(self, body: Mapping[str, Any]) -> Record:
        """Write a model JSON and return once it is registered. Raises ModelExistsError, BadRequestError, NotPossibleError."""

    async def preview(self, body: Mapping[str, Any]) -> Preview:
        """Say what `register` would do. Raises DownloadError where the hub does."""

    async def copy(self, model_id: str, body: Mapping[str, Any]) -> Record: ...

    async def receive(
        self, folder: str, name: str, pieces: AsyncIterator[bytes], *, size: int | None, sha256: str | None
    ) -> Received:
        """Take a file that somebody sends; return once it is there under its name. Raises FileTakenError, DownloadError, GgufError, BadRequestError."""

    async def pause(self, model_id: str) -> Record: ...

    async def resume(self, model_id: str) -> Record: ...

    async def offers(self) -> Sequence[Offer]:
        """Return the catalogue, soon: what the hub has not said yet is left out."""

    async def search(self, words: str, limit: int) -> Sequence[SearchHit]: ...

    def problems(self) -> Sequence[ProblemRecord]: ...

    def report(self, source: str, problems: Collection[Problem], /) -> None:
        """Let *problems* be those that *source* has now, in place of those that it had."""

    async def rescan(self) -> Mapping[str, Any]: ...

    def running_parameters(self, model_id: str) -> Mapping[str, Any]:
        """Return the `init` and `runtime` parameters in force."""

    def overview(self) -> Mapping[str, Any]: ...

    @property
    def tally(self) -> Tally: ...

    def loads(self) -> Sequence[Load]:
        """Return what each model takes now that runs, starts or is waited for."""

    def use(self, model_id: str, *, keep_alive_s: float | None = None) -> AbstractAsyncContextManager[Upstream]:
        """Make sure that it runs and count a request in flight within the context; *keep_alive_s* is how long it stays after that (negative: for ever)."""
