"""Local models: from what the disk holds to a worker process that serves it."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from jand.engine import process
from jand.engine.bytecode import compile_worker
from jand.engine.line import WorkerClient
from jand.engine.protocol import HEARTBEAT_S, WorkerConfig
from jand.errors import JandError
from jand.library.findings import Role
from jand.lifecycle.running import Upstream
from jand.lifecycle.tally import Meter
from jand.lifecycle.words import Words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jand.engine.process import Worker
    from jand.library.findings import Found
    from jand.lifecycle.notes import Notes
    from jand.lifecycle.tally import Tally
    from jand.model.spec import Spec

log = structlog.get_logger(__name__)

HANG_TIMEOUT_S: Final = process.SILENT_BEATS * HEARTBEAT_S


class LocalWorkers:
    """Starts workers whose sockets lie in *directory* (entered by this user alone); *command* replaces the worker's executable, for tests."""

    def __init__(
        self,
        directory: Path,
        notes: Notes,
        tally: Tally,
        *,
        start_timeout_s: float,
        hang_timeout_s: float = HANG_TIMEOUT_S,
        sandbox: bool = True,
        words: Words | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._directory = directory
        self._tally = tally
        self._notes = _MachineSection(notes)
        self._heartbeat_s = hang_timeout_s / process.SILENT_BEATS
        self.start_timeout_s = start_timeout_s
        self._sandbox = sandbox
        self.words = words or Words()
        self._command = command

    async def launch(
        self, model_id: str, found: Found, spec: Spec, on_progress: Callable[[float], None]
    ) -> LocalRunning:
        """Start a worker for *found* with the parameters of *spec*; StartError and WorkerDiedError as `process` raises them."""
        weights = [binary for binary in found.binaries if binary.role is Role.WEIGHTS]
        projector = next((binary for binary in found.binaries if binary.role is Role.PROJECTOR), None)
        init = spec.parameters.init.given()
        if adapters := [str(binary.path) for binary in found.binaries if binary.role is Role.ADAPTER]:
            init["lora"] = adapters
        config = WorkerConfig(
            model_id=model_id,
            weights=tuple(str(binary.path) for binary in weights),
            projector=None if projector is None else str(projector.path),
            init=init,
            runtime=spec.parameters.runtime.given(),
            sandbox=self._sandbox,
            socket=str(self._directory / f"{secrets.token_hex(6)}.sock"),
            heartbeat_s=self._heartbeat_s,
        )
        await asyncio.to_thread(compile_worker)
        began = time.monotonic()
        self.words.add(model_id, "jand: starting a worker")
        meter = Meter(self._tally, model_id)
        try:
            worker = await process.start_with_protection(
                config,
                self._notes,
                command=self._command,
                on_progress=on_progress,
                on_log=functools.partial(self._note, model_id),
                on_heartbeat=lambda beat: meter.heard(processing=beat.active, queued=beat.queued, work=beat.work),
                start_timeout_s=self.start_timeout_s,
            )
        except JandError as error:
            self.words.add(model_id, f"jand: {error.message}", "error")
            raise
        loaded_in_s = time.monotonic() - began
        self.words.add(model_id, f"jand: ready after {loaded_in_s:.2f} s, pid {worker.pid}")
        for warning in worker.details.get("warnings", ()):
            log.warning("model runs with a reservation", model=model_id, reason=warning)
        return LocalRunning(model_id, spec, worker, meter, self.words, loaded_in_s=loaded_in_s)

    def _note(self, model_id: str, line: str, level: str) -> None:
        """Keep a line of a worker, and log it a step less severe than llama.cpp has it: what a failure means for the model is logged as such."""
        self.words.add(model_id, line, level)
        tell = {"error": log.warning, "warning": log.info}.get(level, log.debug)
        tell("worker", model=model_id, line=line)


class LocalRunning:
    """A running worker; satisfies `running.Running`."""

    def __init__(
        self, model_id: str, spec: Spec, worker: Worker, meter: Meter, words: Words, *, loaded_in_s: float
    ) -> None:
        self._model_id = model_id
        self._words = words
        self._spec = spec
        self._worker = worker
        self._meter = meter
        self._loaded_in_s = loaded_in_s
        self._since = time.time()
        self._client = WorkerClient(str(worker.socket))
        self._upstream = Upstream(self._client.ask, model_id)

    @property
    def pid(self) -> int:
        return self._worker.pid

    @property
    def upstream(self) -> Upstream:
        return self._upstream

    def init_changed(self, spec: Spec) -> bool:
        return spec.parameters.init != self._spec.parameters.init

    def apply_runtime(self, spec: Spec) -> None:
        self._worker.set_runtime(spec.parameters.runtime.given())

    def init_in_force(self) -> dict[str, Any]:
        found: dict[str, Any] = self._worker.details.get("init", {})
        return found

    def details(self) -> dict[str, Any]:
        return {
            **self._worker.details,
            "pid": self._worker.pid,
            "memory": self._worker.memory(),
            "loaded_in": round(self._loaded_in_s, 3),
            "since": round(self._since, 3),
        }

    def memory(self) -> int:
        return self._worker.memory()

    def last_words(self) -> tuple[str, ...]:
        return self._worker.last_lines()

    async def wait(self) -> str:
        message = (await self._worker.wait()).message
        self._words.add(self._model_id, f"jand: {message}")
        return message

    async def stop(self, *, grace_s: float, force: bool) -> None:
        await self._worker.stop(grace_s=grace_s, force=force)

    async def close(self) -> None:
        self._meter.ended()
        self._client.close()


class _MachineSection:
    """The part of the notes that the engine may use; satisfies `engine.machine.MachineNotes`."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def get(self, key: str) -> object:
        return self._notes.find("machine", key)

    def set(self, key: str, value: object) -> None:
        self._notes.note("machine", key, value)
