"""An engine in memory for tests of the lifecycle: its models start, fail, die and stop when the test says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from jand.lifecycle.running import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jand.library.findings import Found
    from jand.model.spec import Spec


async def _nobody(path: str, body: bytes, headers: Mapping[str, str]) -> NoReturn:
    raise ConnectionRefusedError("nothing runs here")


class FakeEngine:
    """Give *launch* to whoever starts models. A start waits until `let_start` or `fail_start`; what runs ends by `die` or when it is stopped."""

    def __init__(self, *, immediately: bool = False) -> None:
        self.launched: list[tuple[str, Spec]] = []
        self.running: list[FakeRunning] = []
        self.cancelled = 0
        self.hold_stop = False
        self.memory = 0
        self._immediately = immediately
        self._gates: list[asyncio.Future[None]] = []

    async def launch(
        self, model_id: str, found: Found, spec: Spec, on_progress: Callable[[float], None]
    ) -> FakeRunning:
        self.launched.append((model_id, spec))
        if not self._immediately:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._gates.append(gate)
            try:
                await gate
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        on_progress(1.0)
        running = FakeRunning(self, model_id, spec)
        self.running.append(running)
        return running

    def let_start(self) -> None:
        self._gates.pop(0).set_result(None)

    def fail_start(self, error: Exception) -> None:
        self._gates.pop(0).set_exception(error)


class FakeRunning:
    pid = 4242

    def __init__(self, engine: FakeEngine, model_id: str, spec: Spec) -> None:
        self.spec = spec
        self.runtime = spec
        self.stops: list[tuple[float, bool]] = []
        self.closed = False
        self._engine = engine
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._upstream = Upstream(_nobody, model_id)

    @property
    def upstream(self) -> Upstream:
        return self._upstream

    def init_changed(self, spec: Spec) -> bool:
        return spec.parameters.init != self.spec.parameters.init

    def apply_runtime(self, spec: Spec) -> None:
        self.runtime = spec

    def init_in_force(self) -> dict[str, Any]:
        return {}

    def details(self) -> dict[str, Any]:
        return {"pid": self.pid}

    def memory(self) -> int:
        return self._engine.memory

    def die(self, how: str = "the worker was killed by SIGKILL") -> None:
        if not self._ended.done():
            self._ended.set_result(how)

    def last_words(self) -> tuple[str, ...]:
        return ("the last line",)

    async def wait(self) -> str:
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_s: float, force: bool) -> None:
        self.stops.append((grace_s, force))
        if not self._engine.hold_stop or force:
            self.die("the worker ended")
        await self.wait()

    async def close(self) -> None:
        self.closed = True
