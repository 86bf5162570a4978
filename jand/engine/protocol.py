"""What the daemon and a worker say to one another on the control channel: one JSON object a line, in both directions.

The first line is the daemon's: the `WorkerConfig`. After it the worker reports (loading, warming, ready or failed, then heartbeats while it is busy) and
the daemon may ask it to stop or give it other runtime defaults. Imported on both sides, so it pulls in nothing but json and dataclasses: the start of a worker
shall cost the load and not the interpreter.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, cast

LINE_LIMIT: Final = 1 << 20
"""The longest line that either side reads, in bytes."""

HEARTBEAT_S: Final = 5.0

DEFAULT_CTX_LEN: Final = 4096
"""The context of one conversation where the JSON gives none; less where the model was trained on less."""

DEFAULT_PARALLEL: Final = 1


TERMINATED: Final = 128 + 15
"""With what status a worker ends that SIGTERM told to, as shells count."""


LOG_MARKS: Final = {"error": "<3>", "warning": "<4>"}
"""How a line of a worker's log begins that is no plain one, as sd-daemon(3) has it."""

LOG_LEVELS: Final = {mark: level for level, mark in LOG_MARKS.items()}


class ProtocolError(Exception):
    """A line that is no message: the other side is no worker, or of another version."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """All that a worker needs to know.

    *weights* are absolute paths, the first part of a split model first; *init* and *runtime* hold the validated values that are set, by the names of
    `parameters.init` and `parameters.runtime`; *socket* is where it serves HTTP, in a directory that only the user can enter. *sandbox* has it give up what it does not need (`engine.sandbox`).
    """

    model_id: str
    weights: tuple[str, ...]
    socket: str
    projector: str | None = None
    init: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    use_extra_bufts: bool = True
    heartbeat_s: float = HEARTBEAT_S
    sandbox: bool = True

    def to_line(self) -> bytes:
        return _line(asdict(self))

    @classmethod
    def parse(cls, line: bytes) -> WorkerConfig:
        values = _object(line)
        try:
            return cls(**{**values, "weights": tuple(values["weights"])})
        except (KeyError, TypeError) as error:
            raise ProtocolError(f"no worker configuration: {error}") from error


@dataclass(frozen=True, slots=True)
class Loading:
    """*progress* runs from 0 to 1 over the weights."""

    type: ClassVar[str] = "loading"
    progress: float


@dataclass(frozen=True, slots=True)
class Warming:
    """The weights are in; what follows is the first decode, where a bad build dies."""

    type: ClassVar[str] = "warming"


@dataclass(frozen=True, slots=True)
class Ready:
    """Requests are answered from now on; *details* says what is in force (slots, context, template, warnings ...)."""

    type: ClassVar[str] = "ready"
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    type: ClassVar[str] = "failed"
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent every `heartbeat_s` from the load on, and once before the end; *step_age_s* is, while requests run, the time since the engine last finished a step.

    *work* is what was done since the worker began, by the names of its counters.
    """

    type: ClassVar[str] = "heartbeat"
    active: int
    queued: int
    step_age_s: float
    work: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    """Accept nothing new, let running answers end (cut them where *force*), exit."""

    type: ClassVar[str] = "stop"
    force: bool = False


@dataclass(frozen=True, slots=True)
class SetRuntime:
    """Other defaults for what requests leave out, from the next request on."""

    type: ClassVar[str] = "runtime"
    runtime: dict[str, Any]


Report = Loading | Warming | Ready | Failed | Heartbeat
Command = Stop | SetRuntime

_REPORTS: Final[dict[str, type[Report]]] = {kind.type: kind for kind in (Loading, Warming, Ready, Failed, Heartbeat)}
_COMMANDS: Final[dict[str, type[Command]]] = {kind.type: kind for kind in (Stop, SetRuntime)}


def to_line(message: Report | Command) -> bytes:
    return _line({"type": message.type, **asdict(message)})


def parse_report(line: bytes) -> Report:
    values = _object(line)
    kind = _REPORTS.get(values.pop("type", ""))
    return cast("Report", _build(kind, values, line))


def parse_command(line: bytes) -> Command:
    values = _object(line)
    kind = _COMMANDS.get(values.pop("type", ""))
    return cast("Command", _build(kind, values, line))


def _build(kind: type[object] | None, values: dict[str, Any], line: bytes) -> object:
    if kind is None:
        raise ProtocolError(f"unknown message: {line[:80]!r}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ProtocolError(f"malformed message: {line[:80]!r}") from error


def _line(values: dict[str, Any]) -> bytes:
    return (
        json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"
    )  # ASCII also carries file names that are no UTF-8


def _object(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"no JSON: {line[:80]!r}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"no JSON object: {line[:80]!r}")
    return values
