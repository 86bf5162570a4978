"""What an actor holds while its model runs: a worker of ours or a session with a provider, behind one face.

Here the findings of the library become the configuration of the engine; neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from multidict import CIMultiDict, CIMultiDictProxy

    from jand.library.findings import Found
    from jand.model.spec import Spec
    from jand.outflow import Taker


class Body(Protocol):
    """What is still to come of an answer, by the names of aiohttp's reader."""

    async def readany(self) -> bytes:
        """Return the next piece, as soon as it is there; empty at the end."""

    async def pour(self, taker: Taker, /) -> None:
        """Give *taker* all that is still to come, as it comes. Raises as `readany` does."""

    def at_eof(self) -> bool: ...


class Answer(Protocol):
    """An answer of which the head has come, by the names of aiohttp's response. Whoever has it calls `release` or `close` once."""

    @property
    def status(self) -> int: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def headers(self) -> CIMultiDict[str] | CIMultiDictProxy[str]: ...

    @property
    def content_type(self) -> str: ...

    @property
    def content(self) -> Body: ...

    def release(self) -> object: ...

    def close(self) -> None: ...


class Ask(Protocol):
    """Puts a request to a running model: path of the API, body, headers.

    Raises OSError or aiohttp's ClientError where its worker does not answer, JandError where a provider gives nothing to pass on.
    """

    def __call__(self, path: str, body: bytes, headers: Mapping[str, str], /) -> Awaitable[Answer]: ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request to a running model goes; *model_id* is the name by which it is known there."""

    ask: Ask
    model_id: str


class Running(Protocol):
    """A model that answers requests."""

    @property
    def pid(self) -> int | None: ...

    @property
    def upstream(self) -> Upstream: ...

    def init_changed(self, spec: Spec) -> bool:
        """Whether *spec* would have to be started anew to count."""

    def apply_runtime(self, spec: Spec) -> None:
        """Let the defaults of *spec* for requests count from the next request on."""

    def init_in_force(self) -> dict[str, Any]:
        """Return the values of `init` that count, defaults included, as far as whoever runs it knows them."""

    def details(self) -> dict[str, Any]:
        """Facts for the model object: pid, memory in bytes, slots, loaded_in and since in seconds."""

    def memory(self) -> int:
        """Return the bytes of this machine's memory that it takes now."""

    def last_words(self) -> tuple[str, ...]:
        """Return the last lines of its log."""

    async def wait(self) -> str:
        """Return, when it has ended by itself or otherwise, how."""

    async def stop(self, *, grace_s: float, force: bool) -> None:
        """Return when it has ended; running answers get *grace_s* seconds."""

    async def close(self) -> None:
        """Let go of connections to what has ended."""


class Launch(Protocol):
    """Starts a model: what the disk holds, with the parameters of *spec*; progress runs from 0 to 1. Cancelling it leaves nothing behind."""

    def __call__(
        self, model_id: str, found: Found, spec: Spec, on_progress: Callable[[float], None], /
    ) -> Awaitable[Running]: ...
