"""The order in which a worker comes up and goes down.

The bond to the daemon comes first, then the sandbox, while there is one thread and nothing foreign was read; then llama.cpp's functions alone, so that the weights load on one thread while this one imports what serves HTTP. The thread
that loads is the one that owns the context ever after. Down: no new requests, the running ones end, the process leaves without cleaning up, since the
kernel frees everything and llama.cpp's own destructors are not needed for it.
"""

# ruff: noqa: PLC0415 - what is imported when is what this module is about

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jand.engine import protocol
from jand.engine.worker import confinement, lifeline
from jand.engine.worker.control import Control
from jand.errors import JandError

if TYPE_CHECKING:
    from jand.engine.worker import http
    from jand.engine.worker.confinement import Prepared
    from jand.engine.worker.context import Context
    from jand.engine.worker.embedder import Embedder
    from jand.engine.worker.engine import Engine
    from jand.engine.worker.options import Options
    from jand.engine.worker.projector import Projector
    from jand.engine.worker.prompts import Prompter
    from jand.engine.worker.vision import Vision
    from jand.engine.worker.weights import Weights

SWITCH_S: Final = 0.0005
"""How long a thread may keep the interpreter while another waits: the engine shall not wait 5 ms, the default, for the loop to finish with some text."""
LOADING_SWITCH_S: Final = 0.00005
"""The same while the weights load: llama.cpp calls back hundreds of times, and each call waits for the thread that imports."""


def main() -> NoReturn:
    control_fd, lifeline_fd, parent = (int(argument) for argument in sys.argv[1:4])
    lifeline.bind_to(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the daemon's terminal is the daemon's matter
    faulthandler.enable(
        all_threads=False
    )  # the one that crashed: the others' stacks would push llama.cpp's last words out of the log
    sys.setswitchinterval(LOADING_SWITCH_S)
    control = Control(control_fd)
    config = control.read_config()
    try:
        prepared = confinement.prepare(config)
        lifeline.watch(lifeline_fd)
        life = Life(control, config, prepared)
        life.run()
    except JandError as error:
        fail(control, error)
    except BaseException as error:
        traceback.print_exception(error)
        fail(control, JandError(f"something unexpected went wrong in the worker ({type(error).__name__})"))
    leave(life.status)


def fail(control: Control, error: JandError) -> NoReturn:
    reason = str(error.facts.get("reason") or error.code)
    control.report(protocol.Failed(reason, error.message, error.hint))
    leave(1)


def leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Life:
    """One worker from configuration to exit; the engine's thread and the loop meet here."""

    def __init__(self, control: Control, config: protocol.WorkerConfig, prepared: Prepared) -> None:
        self.status = 0
        self._control = control
        self._config = config
        self._prepared = prepared
        self._loaded = threading.Event()
        self._failure: BaseException | None = None
        self._weights: Weights
        self._engine: Engine | None = None
        self._embedder: Embedder | None = None
        self._projector: Projector | None = None
        self._opened: Context | None = None
        self._details: dict[str, Any] = {"sandbox": prepared.sandbox}
        self._loop: asyncio.AbstractEventLoop
        self._engine_done: asyncio.Event

    def run(self) -> None:
        """Serve until a stop; raises what kept the worker from coming up."""
        from jand.engine.worker.options import parse_options

        options = parse_options(self._config.init, use_extra_bufts=self._config.use_extra_bufts)
        self._loop = asyncio.new_event_loop()
        self._engine_done = asyncio.Event()
        from jand.engine.worker import llama, turns

        self._turns = turns.Turns()
        llama.prepare()
        threading.Thread(target=self._own_engine, args=(options,), name="engine", daemon=True).start()
        self._loop.run_until_complete(self._serve(options))

    # -- the engine's thread ------------------------------------------------------------------------------------------

    def _own_engine(self, options: Options) -> None:
        try:
            self._load(options)
        except BaseException as error:
            self._failure = error
            self._loaded.set()
            return
        sys.setswitchinterval(SWITCH_S)
        self._loaded.set()
        self._turns.run()
        self._loop.call_soon_threadsafe(self._engine_done.set)

    def _load(self, options: Options) -> None:
        from jand.engine.worker import inforce, weights
        from jand.engine.worker.notes import note

        began = time.monotonic()
        self._weights = weights.load(self._config.weights, options, self._progress)
        loaded = time.monotonic()
        self._control.report(protocol.Warming())
        if self._config.projector and self._weights.facts.causal:
            self._open_projector(self._config.projector, options)
        if self._weights.facts.causal:
            self._open_engine(options)
        if options.embedding or not self._weights.facts.causal:
            self._open_embedder(options)
        self._details["init"] = inforce.parameters(options, self._weights, opened=self._opened)
        self._details["warnings"] = inforce.warnings(
            options, self._weights, self._details["init"], given=self._config.init, projector=self._config.projector
        )
        for line in self._details["warnings"]:
            note(f"warning: {line}")
        self._details["load_s"] = round(loaded - began, 3)
        self._details["warm_up_s"] = round(time.monotonic() - loaded, 3)

    def _open_projector(self, path: str, options: Options) -> None:
        from jand.engine.worker import projector

        self._projector = projector.load_projector(path, self._weights, options)
        self._details["vision"] = True

    def _open_engine(self, options: Options) -> None:
        from jand.engine.worker import context, delivery, engine

        atomic = self._projector is not None and self._projector.atomic
        opened = context.open_context(self._weights, options, atomic_images=atomic)
        self._opened = opened
        if options.lora:
            opened.adapt(self._adapters(options))
        opened.warm_up()
        self._engine = engine.Engine(
            opened,
            self._turns,
            delivery.Delivery(self._loop),
            threads=options.n_threads,
            read_threads=options.n_threads_batch,
        )
        self._details.update(
            slots=opened.sequences,
            context=opened.ctx_len,
            threads=options.n_threads,
            threads_batch=options.n_threads_batch,
            batch=opened.n_batch,
            extra_buffers=options.use_extra_bufts,
            prefix_reuse=opened.can_remove_part,
        )

    def _adapters(self, options: Options) -> list[tuple[Any, float]]:
        from jand.engine.worker.options import find_adapter

        folder = Path(self._config.weights[0]).parent
        return [(self._weights.load_adapter(find_adapter(name, folder)), scale) for name, scale in options.lora]

    def _open_embedder(self, options: Options) -> None:
        from jand.engine.worker import context, delivery, embedder

        opened = context.open_embedding_context(self._weights, options)
        opened.warm_up()
        self._embedder = embedder.Embedder(opened, self._turns, delivery.settle_on(self._loop))
        self._details.update(embedding_size=self._embedder.size, embedding_context=opened.ctx_len)

    def _progress(self, share: float) -> bool:
        self._control.report(protocol.Loading(round(share, 4)))
        return True

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _serve(self, options: Options) -> None:
        from jand.engine.worker import http, prompts

        if self._config.runtime:
            from jand.engine.worker import requests

            requests.check_defaults(self._config.runtime)
        beating = asyncio.create_task(self._beat())
        await asyncio.to_thread(self._loaded.wait)
        if self._failure is not None:
            raise self._failure
        prompter = None
        if self._engine is not None:
            prompter = prompts.choose_prompter(options, self._weights, self._prepared.host)
            self._details["template"] = prompter.kind
        if prompter is None or not prompter.source:
            self._prepared.host.close()
        served = http.Served(self._turns)
        runner = await http.listen(http.create_app(served), self._prepared.bound)

        def pass_on(command: protocol.Command) -> None:
            self._loop.call_soon_threadsafe(self._take, command, served)

        self._control.obey(pass_on)
        self._loop.add_signal_handler(signal.SIGTERM, self._terminate)
        self._control.report(protocol.Ready(self._details))
        self._assemble(
            served, prompter
        )  # while the daemon hears of it; nothing is awaited, so the first request finds it done
        if prompter is not None:
            await prompter.start()
        await self._engine_done.wait()
        beating.cancel()
        self._report_work()
        await runner.cleanup()  # answers that are made are sent to their end

    def _assemble(self, served: http.Served, prompter: Prompter | None) -> None:
        """Import what validates requests and put it in its place: a good part of all imports, and nobody needs it to be ready."""
        model_id, weights = self._config.model_id, self._weights
        if self._engine is not None and prompter is not None:
            from jand.engine.worker.service import Service

            served.completions = Service(
                model_id, weights, self._engine, self._turns, prompter, self._config.runtime, self._see()
            )
        if self._embedder is not None:
            from jand.engine.worker.embeddings import Embeddings

            served.embeddings = Embeddings(model_id, weights, self._embedder)

    def _terminate(self) -> None:
        self.status = protocol.TERMINATED
        self._turns.close_forced()

    def _see(self) -> Vision | None:
        if self._projector is None or self._opened is None:
            return None
        from jand.engine.worker.vision import Vision

        return Vision(
            self._projector, self._turns.counters, most=self._opened.ctx_len, most_atomic=self._opened.n_ubatch
        )

    def _take(self, command: protocol.Command, served: http.Served) -> None:
        match command:
            case protocol.Stop():
                self._turns.close(force=command.force)
            case protocol.SetRuntime():
                if served.completions is not None:
                    served.completions.set_runtime(command.runtime)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            self._report_work()

    def _report_work(self) -> None:
        turns = self._turns
        age = time.monotonic() - turns.stepped_at if turns.active else 0.0
        self._control.report(protocol.Heartbeat(turns.active, turns.queued, round(age, 3), asdict(turns.counters)))
