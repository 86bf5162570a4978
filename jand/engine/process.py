"""One worker's life as the daemon sees it: spawned, ready, asked to stop, reaped. Knows nothing of models' states and never restarts anything.

A worker is exec'd with three descriptors besides its log: the control channel, and the read end of a lifeline pipe whose write end only we hold. Whatever ends
the daemon, SIGKILL included, closes that end, and the worker ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import jand
from jand.engine import memory, protocol
from jand.engine.environment import worker_environment
from jand.engine.exits import ExitNote, describe_exit, find_telling_line
from jand.engine.machine import MachineNotes, protection_key
from jand.errors import StartError, WorkerDiedError
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jand.engine.protocol import Heartbeat, WorkerConfig

log = structlog.get_logger(__name__)

COMMAND: Final = (sys.executable, "-m", "jand.engine.worker")
FORCE_GRACE_S: Final = 0.5
"""What a worker that is told to cut its answers gets to do so."""
TERM_GRACE_S: Final = 1.0
"""Between SIGTERM and SIGKILL."""
SILENT_BEATS: Final = 6
"""A worker of which so many heartbeats in a row do not come is hung or stopped, and is killed."""
FIRST_BEATS: Final = 4 * SILENT_BEATS
"""The same before its first word: an interpreter that comes from a cold disk, and a GPU's driver, take their time."""
STALL_BEATS: Final = 180
"""An engine that has finished no step for so many heartbeats (900 s) while requests run is taken for hung; a step on a slow machine takes seconds."""
OF_LLAMA: Final = frozenset({"load-failed", "context-failed", "lora-failed", "warm-up-failed"})
"""Failures of which llama.cpp alone knows the cause, and says it in the log."""
LOG_LINES: Final = 200
_LOG_LINE_CHARS: Final = 2000
_LOG_END_S: Final = 0.5
_SOCKET_PATH_BYTES: Final = 103  # sun_path of macOS, the smaller one, less its final zero


class Worker:
    """A running worker; made by `Worker.start` or `start_with_protection`, which return once it is ready."""

    def __init__(
        self,
        config: WorkerConfig,
        process: asyncio.subprocess.Process,
        ends: _Ends,
        *,
        on_progress: Callable[[float], None] | None,
        on_log: Callable[[str, str], None] | None,
        on_heartbeat: Callable[[Heartbeat], None] | None,
    ) -> None:
        self.pid = process.pid
        self.socket = Path(config.socket)
        self.details: dict[str, Any] = {}
        self.heartbeat: Heartbeat | None = None
        self._config = config
        self._process = process
        self._ends = ends
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_heartbeat = on_heartbeat
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._warming = False
        self._stopping = False
        self._heard = False
        self._hung = False
        self._ready: asyncio.Future[protocol.Ready | protocol.Failed] = asyncio.get_running_loop().create_future()
        self._exited: asyncio.Future[ExitNote] = asyncio.get_running_loop().create_future()
        self._tasks = TaskSet()

    # -- starting -----------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls,
        config: WorkerConfig,
        *,
        command: Sequence[str] | None = None,
        on_progress: Callable[[float], None] | None = None,
        on_log: Callable[[str, str], None] | None = None,
        on_heartbeat: Callable[[Heartbeat], None] | None = None,
        start_timeout_s: float = 600.0,
        environ: Mapping[str, str] | None = None,
    ) -> Worker:
        """Spawn a worker and return it once it answers requests.

        Must be called from the main thread (the kernel ends a worker with the thread that made it). Cancelling kills and reaps the child.
        Raises StartError where the worker says why it cannot, or is too slow; WorkerDiedError where it ends without a word.
        """
        if len(os.fsencode(config.socket)) > _SOCKET_PATH_BYTES:
            raise StartError(
                f'cannot start "{config.model_id}": the path of its socket is longer than {_SOCKET_PATH_BYTES} bytes ({config.socket})',
                hint="choose a shorter path for the daemon's own socket",
            )
        ends = _Ends()
        await ends.open()
        process = await _spawn(config, ends, command or COMMAND, os.environ if environ is None else environ)
        worker = cls(config, process, ends, on_progress=on_progress, on_log=on_log, on_heartbeat=on_heartbeat)
        worker._begin()
        try:
            async with asyncio.timeout(start_timeout_s):
                outcome = await asyncio.shield(worker._ready)
        except TimeoutError:
            await worker._end_now()
            raise StartError(
                f'cannot start "{config.model_id}": it was not ready within {start_timeout_s:g} s',
                hint="raise start_timeout, or choose a smaller model",
                reason="start-timeout",
                log=worker.last_lines(),
            ) from None
        except BaseException:
            await worker._end_now()
            raise
        if isinstance(outcome, protocol.Failed):
            await worker._end_now(grace_s=TERM_GRACE_S)
            raise worker._failure(outcome)
        worker.details = outcome.details
        return worker

    # -- what is asked of a running one -------------------------------------------------------------------------------

    def last_lines(self, count: int = 20) -> tuple[str, ...]:
        return tuple(self._lines)[-count:]

    def set_runtime(self, runtime: dict[str, Any]) -> None:
        """Give other defaults for what requests leave out."""
        self._send(protocol.SetRuntime(runtime))

    def memory(self) -> int:
        """Return the resident bytes of it and its children; 0 once it has ended."""
        return 0 if self._exited.done() else memory.resident(self.pid)

    async def wait(self) -> ExitNote:
        """Wait until the process has ended and is reaped, for whatever reason."""
        return await asyncio.shield(self._exited)

    async def stop(self, *, grace_s: float, force: bool = False) -> ExitNote:
        """Let running answers end for up to *grace_s* seconds (cut them where *force*), then end the process; return when it is reaped.

        Idempotent, also while another call waits: a forced one cuts short a patient one. Cancelling leaves the rest to the next call.
        """
        self._stopping = True
        self._send(protocol.Stop(force=force))
        if await self._ended_within(min(grace_s, FORCE_GRACE_S) if force else grace_s):
            return await self.wait()
        log.warning("worker does not stop", model=self._config.model_id, pid=self.pid)
        self._signal(signal.SIGTERM)
        if not await self._ended_within(TERM_GRACE_S):
            self._signal(signal.SIGKILL)
        return await self.wait()

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _ended_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._exited], timeout=seconds)
        return bool(done)

    async def _end_now(self, grace_s: float = 0.0) -> None:
        """Kill and reap, whatever cancellation comes in between: a process that we started is never left behind."""
        self._stopping = True
        cancelled = False
        deadline = asyncio.get_running_loop().time() + grace_s
        while not self._exited.done():
            try:
                await self._ended_within(max(0.0, deadline - asyncio.get_running_loop().time()) or 0.05)
            except asyncio.CancelledError:
                cancelled = True
                deadline = 0.0
            if asyncio.get_running_loop().time() >= deadline:
                self._signal(signal.SIGKILL)
        if cancelled:
            raise asyncio.CancelledError

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _send(self, command: protocol.Command) -> None:
        self._ends.send(protocol.to_line(command))

    def _begin(self) -> None:
        self._ends.send(self._config.to_line())
        reading = self._tasks.start(self._read_reports(), name=f"worker reports {self._config.model_id}")
        logging = self._tasks.start(
            self._read_log(self._ends.logs), name=f"worker log {self._config.model_id}", apart=True
        )
        self._reaping = self._tasks.start(self._reap(reading, logging), name=f"worker {self._config.model_id}")
        self._tasks.spawn(self._mind_heartbeats(), name=f"heartbeats of {self._config.model_id}")

    async def _reap(self, reading: asyncio.Task[None], logging: asyncio.Task[None]) -> None:
        returncode = await self._process.wait()
        # The last words come before the end of file; a grandchild that holds the pipe open shall not hold us up.
        await asyncio.wait([reading, logging], timeout=_LOG_END_S)
        for task in (reading, logging):
            task.cancel()
        self._ends.close()
        self.socket.unlink(missing_ok=True)
        # What tells the cause may stand before a traceback.
        note = describe_exit(returncode, tuple(self._lines), expected=self._stopping)
        message = "the worker gave no sign of life and was killed" if self._hung else note.message
        note = replace(note, message=message, log=self.last_lines())
        if not self._ready.done():
            self._ready.set_exception(self._death(note))
            self._ready.exception()  # asked for, so that a start that was cancelled leaves no complaint
        self._exited.set_result(note)

    def _death(self, note: ExitNote) -> WorkerDiedError:
        return WorkerDiedError(
            f'cannot start "{self._config.model_id}": {note.message}',
            hint="the last lines of its log say more" if note.log else "",
            signal=note.signal,
            status=note.code,
            crashed=note.crashed,
            phase="warm-up" if self._warming else "load",
            log=note.log,
        )

    def _failure(self, failed: protocol.Failed) -> StartError:
        """Say what the worker says, and what llama.cpp logged of it where that is the cause."""
        cause = find_telling_line(self.last_lines()) if failed.code in OF_LLAMA else ""
        return StartError(
            f'cannot start "{self._config.model_id}": {failed.message}{f" ({cause})" if cause else ""}',
            hint=failed.hint,
            reason=failed.code,
            log=self.last_lines(),
        )

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        rest = ""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk.decode("utf-8", "replace")).split("\n")
            rest = rest[-_LOG_LINE_CHARS:]
            for line in lines:
                self._log_line(line)
        self._log_line(rest)

    def _log_line(self, line: str) -> None:
        level = protocol.LOG_LEVELS.get(line[:3], "info")
        if line := line.removeprefix(protocol.LOG_MARKS.get(level, "")).rstrip()[:_LOG_LINE_CHARS]:
            self._lines.append(line)
            if self._on_log is not None:
                self._on_log(line, level)

    async def _read_reports(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self._ends.control.readline():
                try:
                    self._take(protocol.parse_report(line))
                except protocol.ProtocolError as error:
                    log.warning("worker sent no message", model=self._config.model_id, error=str(error))

    async def _mind_heartbeats(self) -> None:
        """Kill a worker that has gone silent, also while it loads. Counts beats of our own loop, so that a suspended machine is no reason."""
        missed, allowed = 0, FIRST_BEATS
        while not self._exited.done():
            self._heard = False
            await asyncio.wait([self._exited], timeout=self._config.heartbeat_s)
            missed, allowed = (0, SILENT_BEATS) if self._heard else (missed + 1, allowed)
            if missed >= allowed and not self._exited.done():
                log.error("worker hangs", model=self._config.model_id, pid=self.pid, beats=missed)
                self._hung = True
                self._signal(signal.SIGKILL)
                return

    def _take(self, report: protocol.Report) -> None:
        self._heard = True
        match report:
            case protocol.Loading():
                if self._on_progress is not None:
                    self._on_progress(report.progress)
            case protocol.Warming():
                self._warming = True
            case protocol.Ready() | protocol.Failed():
                if not self._ready.done():
                    self._ready.set_result(report)
            case protocol.Heartbeat():
                self.heartbeat = report
                if self._on_heartbeat is not None:
                    self._on_heartbeat(report)
                if report.step_age_s > STALL_BEATS * self._config.heartbeat_s:
                    self._hung = True
                    log.error("worker hangs", model=self._config.model_id, pid=self.pid, seconds=report.step_age_s)
                    self._signal(signal.SIGKILL)


class _Ends:
    """Our ends of what connects us to a worker, and theirs until it has inherited them."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.lifeline_read, self.lifeline = os.pipe()
        log_read, self.log_write = os.pipe()
        self.log_pipe = os.fdopen(log_read, "rb", 0)
        self.logs = asyncio.StreamReader()
        self.log_transport: asyncio.BaseTransport | None = None
        self.commands: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Make streams of our ends, before the worker exists: nothing is awaited between its birth and the task that reaps it."""
        loop = asyncio.get_running_loop()
        try:
            self.control, self.commands = await asyncio.open_connection(sock=self.ours, limit=protocol.LINE_LIMIT)
            self.log_transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(self.logs), self.log_pipe
            )
        except BaseException:
            self.close_theirs()
            self.close()
            raise

    def send(self, line: bytes) -> None:
        if self.commands is not None and not self.commands.is_closing():
            self.commands.write(line)

    def close_theirs(self) -> None:
        self.theirs.close()
        os.close(self.lifeline_read)
        os.close(self.log_write)

    def close(self) -> None:
        """Close our ends; the lifeline with them, at which the worker, if it still lives, ends itself."""
        os.close(self.lifeline)
        if self.commands is not None:
            self.commands.close()
        else:
            self.ours.close()
        if self.log_transport is not None:
            self.log_transport.close()
        else:
            self.log_pipe.close()


async def _spawn(
    config: WorkerConfig, ends: _Ends, command: Sequence[str], environ: Mapping[str, str]
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            str(ends.theirs.fileno()),
            str(ends.lifeline_read),
            str(os.getpid()),
            config.model_id,  # for whoever reads the process table
            stdin=asyncio.subprocess.DEVNULL,
            stdout=ends.log_write,
            stderr=ends.log_write,
            pass_fds=(ends.theirs.fileno(), ends.lifeline_read),
            start_new_session=True,
            env=worker_environment(environ),
            cwd=Path(jand.__file__).parent.parent,  # where `-m` finds the same jand that runs here, installed or not
        )
    except BaseException as error:  # cancelled as well: asyncio has killed and reaped what it had started
        ends.close()
        if isinstance(error, OSError):
            raise StartError(f'cannot start "{config.model_id}": {command[0]}: {error.strerror}') from error
        raise
    finally:
        ends.close_theirs()


async def start_with_protection(config: WorkerConfig, notes: MachineNotes, **how: Any) -> Worker:
    """Start a worker as `Worker.start` does; one that crashes before it is ready is started once more without the extra buffer types.

    GCC before 13.3 miscompiles llama.cpp's AMX kernels, so that a default build dies in its first decode of two or more tokens on many new Intel machines.
    Where the second start succeeds the pair of build and processor is remembered in *notes* and the crash is not provoked again.
    """
    key = await asyncio.to_thread(protection_key)
    if not config.use_extra_bufts or notes.get(key):
        return await Worker.start(replace(config, use_extra_bufts=False), **how)
    try:
        return await Worker.start(config, **how)
    except WorkerDiedError as error:
        if not error.facts.get("crashed"):
            raise
        log.warning(
            "worker crashed in its warm-up, once more without extra buffer types",
            model=config.model_id,
            signal=error.facts.get("signal"),
        )
    worker = await Worker.start(replace(config, use_extra_bufts=False), **how)
    notes.set(key, True)
    return worker
