"""One model's owner: the only code that changes its state.

Every method runs on the event loop and decides without awaiting, so what it sees and what it does cannot be torn apart by another caller; that is why there is no inbox. What takes time (a
start, a stop) is a task that reports back through a method of its own. Callers say what they want (`start`, `stop`, `acquire`) and never look at the state first.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Unpack

import structlog

from jand.errors import JandError, NoRoomError, WorkerDiedError
from jand.library.findings import FILE_ERRORS
from jand.lifecycle import portrait, refusals
from jand.lifecycle.awaited import outstanding
from jand.lifecycle.idle import IdleTimer
from jand.lifecycle.policy import Crashes
from jand.model.state import Happening, State, find_next
from jand.tasks import Bell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.download.reuse import Taken
    from jand.library.findings import Found, Stamp
    from jand.lifecycle.remarks import Remarks
    from jand.lifecycle.running import Running
    from jand.lifecycle.surroundings import Surroundings
    from jand.model.problem import ErrorNote
    from jand.model.record import FileRecord, Progress, Record
    from jand.model.spec import Spec

log = structlog.get_logger(__name__)

IDLE_GRACE_S: Final = 5.0
"""What a worker that has nothing to do gets to say its last words and end by itself; it takes some hundredths of a second."""

MOST_WAITING: Final = 1024
"""Requests that may wait for one model to start; each holds its body in memory."""


class Actor:
    """Holds what is known of one model and does to it what is asked, one thing at a time."""

    def __init__(self, model_id: str, found: Found, aliases: tuple[str, ...], around: Surroundings) -> None:
        self.id = model_id
        self.aliases = aliases
        self.found = found
        self.error: ErrorNote | None = None
        self.progress: Progress | None = None
        self.choice: Mapping[str, str | None] = {}
        self.wanted: tuple[FileRecord, ...] = ()
        self.awaited: tuple[str, ...] = ()
        self.reused: Mapping[str, Taken] = {}
        self.paused = False
        self.offline = False
        self.in_flight = 0
        self.waiting = 0
        self.used_at = 0.0
        self.ready_at: float | None = None
        self._around = around
        self._state = State.DOWNLOADING
        self.running: Running | None = None
        self._in_force: tuple[Found, Spec] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._runs = 0
        self.loaded: float | None = None
        self._idle = IdleTimer(self._idle_too_long)
        self._yielding = False
        self.crashes = Crashes()
        self._last_failure: JandError | None = None
        self._removed = False
        self._changes = Bell()
        self.look_at_disk()

    # What is known of it.

    @property
    def state(self) -> State:
        return self._state

    @property
    def spec_in_force(self) -> Spec:
        """The spec that it runs with (its JSON's, with what the start overrode), else its JSON's."""
        return self._in_force[1] if self._in_force is not None else self.found.spec

    @property
    def restart_needed(self) -> bool:
        """Its JSON's `init` changed since it was started."""
        return self.running is not None and self.running.init_changed(self.found.spec)

    @property
    def busy(self) -> bool:
        """Whether it may not be stopped now to make room."""
        # Those that wait for what runs were woken by its start, and have not had their turn of the loop yet.
        woken = self.waiting > 0 and not self._yielding
        return self.in_flight > 0 or woken or self._state is not State.RUNNING

    @property
    def pinned(self) -> bool:
        return bool(self.found.spec.metadata.pinned)

    def record(self) -> Record:
        return portrait.paint(self)

    @property
    def whole(self) -> bool:
        """Whether all is there that it needs, also by what is being fetched for it."""
        return self.found.whole and not outstanding(self.found, self.awaited)

    # Facts.

    def found_again(self, found: Found, model_id: str, aliases: tuple[str, ...]) -> None:
        """Take over what a scan saw; what runs goes on with the files that it has open."""
        runtime_changed = found.spec.parameters.runtime != self.found.spec.parameters.runtime
        self.found, self.id, self.aliases = found, model_id, aliases
        if self.running is not None and runtime_changed:
            self.running.apply_runtime(found.spec)
        self.look_at_disk()
        self._changes.ring()

    def look_at_disk(self) -> None:
        """Move between `downloading` and `downloaded` as the disk says."""
        if self._state in {State.DOWNLOADING, State.DOWNLOADED}:
            before = self._state
            self._move(Happening.WHOLE if self.whole else Happening.NOT_WHOLE, late=True)
            if self._state is State.DOWNLOADED and before is State.DOWNLOADING:
                # Why it was not whole is over, whatever it was.
                self.progress = self.error = None
            elif self._state is State.DOWNLOADING:
                stale = self.error is not None and self.error.code in FILE_ERRORS
                self.error = self.found.error or (None if stale else self.error)
        self._around.changed(self)

    def remark(self, **remarks: Unpack[Remarks]) -> None:
        """Keep what others found out about it, to be shown."""
        for name, value in remarks.items():
            setattr(self, name, value)
        self._around.changed(self)

    # Commands.

    async def start(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Return once the model runs. Raises what kept it from that.

        Idempotent; a second caller waits for the first one's start. Cancelling a caller does not cancel the start. *overrides* (of `init`) count for
        this run; given while it runs with other values they raise NotPossibleError.
        """
        spec = self.found.spec.with_init(overrides) if overrides else None
        if spec is not None and self.running is not None and self.running.init_changed(spec):
            raise refusals.runs_with_others(self.id)
        self.crashes.forget()
        await self._reach_running(spec, by_request=False)

    def check_start(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Raise at once what `start` would raise without having tried."""
        if overrides:
            self.found.spec.with_init(overrides)
        if self._state is State.DOWNLOADING:
            raise refusals.downloading(self.id, self.error)

    async def acquire(self, *, keep_alive_s: float | None = None) -> Running:
        """Return what serves the model, starting it where that is allowed, and count one request in flight until `release`.

        *keep_alive_s* overrides, until the next request, how long it stays when idle: 0 not at all, negative for ever.
        """
        if self.waiting >= MOST_WAITING:
            raise refusals.queue_full(self.id, self.waiting)
        self.waiting += 1
        try:
            running = await self._reach_running(None, by_request=True)
        finally:
            self.waiting -= 1
        self.in_flight += 1
        self._idle.by_request = keep_alive_s
        self._idle.disarm()
        return running

    def release(self) -> None:
        self.in_flight -= 1
        self.used_at = time.monotonic()
        if self.in_flight == 0 and self.running is not None and self._in_force is not None:
            if self._around.admission.learn(self, *self._in_force, self.running.memory()):
                self._around.tasks.spawn(self._around.admission.relieve(self), name=f"make room for {self.id}")
            self._arm()
            self._around.admission.changed()

    def yield_turn(self) -> bool:
        self._yielding = self._yielding or self.waiting == 0 or self._state is not State.RUNNING
        return self._yielding

    def keep_turn(self) -> None:
        if self._yielding:
            self._yielding = False
            self._changes.ring()

    async def stop_if_idle(self) -> None:
        """Stop it unless a request came in the meantime."""
        if not self.busy:
            await self.stop(grace_s=IDLE_GRACE_S)

    async def make_room(self) -> None:
        """Do as `stop_if_idle` does, for another model's sake."""
        if not self.busy:
            self._around.tally.evicted(self.id)
            await self.stop_if_idle()

    async def stop(self, *, force: bool = False, grace_s: float | None = None) -> None:
        """Return when the process is gone and reaped. Idempotent; a forced stop overtakes a patient one under way.

        Running answers may end within *grace_s* seconds (default: the setting `stop_timeout`), with *force* none.
        """
        if self._state in {State.STARTING, State.RUNNING}:
            starting = self._state is State.STARTING
            self._move(Happening.STOP)
            if starting and self._starting is not None:
                self._starting.cancel()
            else:
                self._around.tasks.spawn(self._end(force=force, grace_s=grace_s), name=f"stop {self.id}")
            self._around.changed(self)
        elif self._state is State.STOPPING and force and self.running is not None:
            await self.running.stop(grace_s=0.0, force=True)
        while self._state is State.STOPPING:
            await self._changes.heard()

    async def remove(self) -> None:
        """Stop it, running answers first, because its JSON is gone; whoever waits for it is told so."""
        self._removed = True
        self._changes.ring()
        await self.stop()

    async def gone(self, stamp: Stamp) -> None:
        """Return when the JSON of that *stamp* is no more: the registry has let go of the model, or another file has come under its name."""
        while not self._removed and self.found.stamp == stamp:
            await self._changes.heard()

    # How commands are carried out.

    async def _reach_running(self, spec: Spec | None, *, by_request: bool) -> Running:
        runs_before: int | None = None  # while it waits for a start: how many had come to an end well by then
        while True:
            if self._removed:
                raise refusals.removed(self.id)
            if self._state is State.RUNNING and self.running is not None and not (by_request and self._yielding):
                return self.running
            if self._state is State.DOWNLOADING:
                raise refusals.downloading(self.id, self.error)
            if self._state is State.DOWNLOADED:
                # A model that ran and has gone again, to make room, before the request that it was started for could wake, is started anew.
                if runs_before is not None and not (by_request and self._runs > runs_before):
                    raise self._last_failure or refusals.stopped_midway(self.id)
                if by_request and not self._around.start_on_request:
                    raise refusals.not_running(self.id)
                if by_request and self.crashes.is_loop:
                    raise refusals.crash_loop(self.id, self.error)
                self._begin_start(spec)
                runs_before = None
            if self._state is State.STARTING:
                runs_before = self._runs if runs_before is None else runs_before
            await self._changes.heard()

    def _begin_start(self, spec: Spec | None) -> None:
        if self.offline:
            raise refusals.offline(self.id)
        self.error = self._last_failure = None
        self.loaded = 0.0
        self._in_force = (self.found, spec or self.found.spec)
        self._move(Happening.START)
        self._starting = self._around.tasks.start(self._bring_up(*self._in_force), name=f"start {self.id}")
        self._starting.add_done_callback(self._start_ended)
        self._around.changed(self)

    async def _bring_up(self, found: Found, spec: Spec) -> None:
        began = time.monotonic()
        try:
            if not spec.is_remote:
                await self._around.admission.reserve(self, self._around.admission.need_of(found, spec))
            await asyncio.sleep(self.crashes.wait_s(time.monotonic()))
            running = await self._around.launch(self.id, found, spec, self._loading)
        except JandError as error:
            self._start_failed(error)
        except Exception as error:
            log.exception("start failed unexpectedly", model=self.id)
            self._start_failed(WorkerDiedError(f'cannot start "{self.id}": {error}'))
        else:
            self._ready(running, time.monotonic() - began)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        """Settle a start that was cancelled; not within it, because one that is cancelled before its first step never runs."""
        if task.cancelled():
            self._settle_stopped(None)

    def _loading(self, fraction: float) -> None:
        """Show load progress, at most a hundred times for one load."""
        if self._state is State.STARTING and fraction - (self.loaded or 0.0) >= 0.01:
            self.loaded = fraction
            self._around.changed(self)

    def _ready(self, running: Running, seconds: float) -> None:
        self._starting = None
        self.loaded = None
        self.running = running
        if self._state is not State.STARTING:
            # A stop came while the last message of the start was on its way.
            self._around.tasks.spawn(self._end(force=True, grace_s=0.0), name=f"stop {self.id}")
            return
        self._yielding = False
        self._runs += 1
        self.ready_at = self.used_at = time.monotonic()
        self._move(Happening.READY)
        self._arm()
        self._around.tasks.spawn(self._watch(running), name=f"watch {self.id}", apart=True)
        self._around.tally.loaded(self.id, seconds)
        log.info("model started", model=self.id, pid=running.pid, seconds=round(seconds, 2))
        self._around.changed(self)

    def _start_failed(self, error: JandError) -> None:
        self._last_failure = error
        self._around.tally.load_failed(self.id)
        log.warning("model not started", model=self.id, reason=error.message, facts=error.facts)
        self._around.admission.release(self)
        # A provider that was away or a key that was wrong costs nobody a load: the next request may try at once.
        if not isinstance(error, NoRoomError) and not self.spec_in_force.is_remote:
            self.crashes.note(time.monotonic())
        note = refusals.start_note(error, time.time(), loop=self.crashes.is_loop)
        if self._state is State.STOPPING:
            self._settle_stopped(None)
            return
        self._starting = None
        self.loaded = None
        self._in_force = None
        self._move(Happening.FAILED)
        self.error = note
        self.look_at_disk()

    async def _watch(self, running: Running) -> None:
        """Wait for the end of what runs; an end that nobody asked for is an error of the model."""
        exit_note = await running.wait()
        if self.running is not running or self._state is not State.RUNNING:
            return
        log.error("worker died", model=self.id, reason=exit_note)
        self._around.tally.died(self.id)
        self.crashes.note(time.monotonic())
        self._forget_running()
        self._move(Happening.DIED)
        loop, words = self.crashes.is_loop, running.last_words()
        self.error = refusals.death_note(self.id, exit_note, time.time(), loop=loop, log=words)
        self.look_at_disk()
        await running.close()

    async def _end(self, *, force: bool, grace_s: float | None) -> None:
        running = self.running
        if running is not None:
            await running.stop(grace_s=self._around.stop_timeout_s if grace_s is None else grace_s, force=force)
        self._settle_stopped(running)
        if running is not None:
            await running.close()

    def _settle_stopped(self, running: Running | None) -> None:
        self._starting = None
        self.loaded = None
        self._forget_running()
        if self._state is State.STARTING:
            self._move(Happening.FAILED)
        else:
            self._move(Happening.GONE)
        if running is not None:
            log.info("model stopped", model=self.id)
        self.look_at_disk()

    def _arm(self) -> None:
        self._idle.arm(self.found.spec.metadata.keep_alive, self._around.keep_alive_s)

    def _idle_too_long(self) -> None:
        if self._state is State.RUNNING and not self.busy:
            log.info("idle model stopped", model=self.id)
            self._around.tasks.spawn(self.stop_if_idle(), name=f"stop idle {self.id}")

    def _forget_running(self) -> None:
        self._idle.disarm()
        self._idle.by_request = None
        self._around.admission.release(self)
        self._yielding = False
        self.ready_at = None
        self.running = None
        self._in_force = None

    # The machine, and those who wait for it.

    def _move(self, happening: Happening, *, late: bool = False) -> None:
        following = find_next(self._state, happening)
        if following is None:
            if not late:
                log.debug("happening dropped", model=self.id, state=self._state, happening=happening)
            return
        self._state = following
        self._changes.ring()
