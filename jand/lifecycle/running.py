"""What an actor holds while its model runs: a worker of ours or a session with a provider, behind one face.

Here the findings of the library become the configuration of the engine; neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import aiohttp

    from jand.library.findings import Found
    from jand.model.spec import Spec


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a request to a running model goes: the relay adds the API's path to *url* and *headers* to its own."""

    session: aiohttp.ClientSession
    url: str
    headers: Mapping[str, str]
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

    def details(self) -> dict[str, Any]:
        """Facts for the model object: pid, memory in bytes, slots, loaded_in and since in seconds."""

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
