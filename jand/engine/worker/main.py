"""The order in which a worker comes up and goes down.

The bond to the daemon comes first, then llama.cpp's functions alone, so that the weights load on one thread while this one imports what serves HTTP. The thread
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
from typing import TYPE_CHECKING, Any, Final, NoReturn

from jand.engine import protocol
from jand.engine.worker import lifeline
from jand.engine.worker.control import Control
from jand.errors import JandError

if TYPE_CHECKING:
    from jand.engine.worker.engine import Engine
    from jand.engine.worker.options import Options
    from jand.engine.worker.service import Service
    from jand.engine.worker.weights import Weights

HEARTBEAT_S: Final = 5.0
SWITCH_S: Final = 0.0005
"""How long a thread may keep the interpreter while another waits: the engine shall not wait 5 ms, the default, for the loop to finish with some text."""
LOADING_SWITCH_S: Final = 0.00005
"""The same while the weights load: llama.cpp calls back hundreds of times, and each call waits for the thread that imports."""


def main() -> NoReturn:
    control_fd, lifeline_fd, parent = (int(argument) for argument in sys.argv[1:4])
    lifeline.hold(lifeline_fd, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the daemon's terminal is the daemon's matter
    faulthandler.enable()
    sys.setswitchinterval(LOADING_SWITCH_S)
    control = Control(control_fd)
    config = control.read_config()
    try:
        Life(control, config).run()
    except JandError as error:
        fail(control, error)
    except BaseException as error:
        traceback.print_exception(error)
        fail(control, JandError(f"something unexpected went wrong in the worker ({type(error).__name__})"))
    leave(0)


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

    def __init__(self, control: Control, config: protocol.WorkerConfig) -> None:
        self._control = control
        self._config = config
        self._loaded = threading.Event()
        self._failure: BaseException | None = None
        self._engine: Engine
        self._weights: Weights
        self._details: dict[str, Any] = {}
        self._may_run = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._engine_done: asyncio.Event

    def run(self) -> None:
        """Serve until a stop; raises what kept the worker from coming up."""
        from jand.engine.worker.options import parse_options

        options = parse_options(self._config.init, use_extra_bufts=self._config.use_extra_bufts)
        self._loop = asyncio.new_event_loop()
        self._engine_done = asyncio.Event()
        from jand.engine.worker import llama

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
        self._engine.run()
        self._loop.call_soon_threadsafe(self._engine_done.set)

    def _load(self, options: Options) -> None:
        from jand.engine.worker import weights

        began = time.monotonic()
        self._weights = weights.load(self._config.weights, options, self._progress)
        loaded = time.monotonic()
        from jand.engine.worker import context, engine, service

        self._control.report(protocol.Warming())
        opened = context.open_context(self._weights, options, unified=True)
        opened.warm_up()
        self._engine = engine.Engine(opened, service.deliver_to(self._loop))
        self._details = describe(self._weights, opened, options)
        self._details["load_s"] = round(loaded - began, 3)
        self._details["warm_up_s"] = round(time.monotonic() - loaded, 3)

    def _progress(self, share: float) -> bool:
        self._control.report(protocol.Loading(round(share, 4)))
        return True

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def _serve(self, options: Options) -> None:
        from jand.engine.worker import http, prompts, requests
        from jand.engine.worker.service import Service

        requests.check_defaults(self._config.runtime)
        await asyncio.to_thread(self._loaded.wait)
        if self._failure is not None:
            raise self._failure
        prompter = prompts.choose_prompter(options, self._weights)
        service = Service(self._config.model_id, self._weights, self._engine, prompter, self._config.runtime)
        runner = await http.listen(http.create_app(service), self._config.socket)

        def pass_on(command: protocol.Command) -> None:
            self._loop.call_soon_threadsafe(self._take, command, service)

        self._control.obey(pass_on)
        self._loop.add_signal_handler(signal.SIGTERM, self._engine.close_forced)
        self._control.report(protocol.Ready({**self._details, "template": prompter.kind}))
        beating = asyncio.create_task(self._beat())
        await prompter.start()
        await self._engine_done.wait()
        beating.cancel()
        await runner.cleanup()  # answers that are made are sent to their end

    def _take(self, command: protocol.Command, service: Service) -> None:
        match command:
            case protocol.Stop():
                self._engine.close(force=command.force)
            case protocol.SetRuntime():
                service.set_runtime(command.runtime)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self._engine.active:
                age = time.monotonic() - self._engine.stepped_at
                self._control.report(protocol.Heartbeat(self._engine.active, self._engine.queued, round(age, 3)))


def describe(weights: Weights, opened: Any, options: Options) -> dict[str, Any]:
    """Say what is in force, for the model's details."""
    from jand.engine.worker.llama import lib

    warnings = list(options.warnings)
    trained = weights.facts.n_ctx_train
    if opened.ctx_len > trained > 0:
        warnings.append(f"ctx_len {opened.ctx_len} is more than the {trained} tokens that the model was trained on")
    if options.ngl > 0 and not lib.llama_supports_gpu_offload():
        warnings.append("ngl has no effect: llama.cpp was built without support for a GPU")
    return {
        "slots": opened.sequences,
        "context": opened.ctx_len,
        "threads": options.n_threads,
        "threads_batch": options.n_threads_batch,
        "batch": opened.n_batch,
        "extra_buffers": options.use_extra_bufts,
        "prefix_reuse": opened.can_remove_part,
        "warnings": warnings,
    }
