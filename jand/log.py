"""Structured logs: one line an event, readable on a terminal and JSON elsewhere, to standard error.

Every line, structlog's and the standard library's alike, takes one path: secrets masked, rendered, then written by a thread of its own, so that a reader that
has stopped reading never stops the event loop. Prompts and answers are not logged by anybody.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog
from typing_extensions import override

from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

    Event = MutableMapping[str, Any]

MASK: Final = "***"
SECRET_KEYS: Final = frozenset({"api_key", "api-key", "apikey", "authorization", "token", "password", "secret"})
SHORTEST_PART: Final = 6
"""A shorter secret is masked only where it is a whole value: replacing "ab" inside words would ruin every line."""

MAX_WAITING: Final = 10_000
"""Lines that wait for a slow reader before further ones are dropped (and counted)."""

FLUSH_S: Final = 1.0
LIBRARIES_FROM: Final = logging.WARNING
COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}


class Secrets:
    """Texts that must not be written. Grows while models come in; is read by whatever thread logs."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    def add(self, texts: Iterable[str]) -> None:
        self._known = self._known | {text for text in texts if text}

    def masked(self, value: object) -> object:
        """Return *value* with every known secret in it replaced, at any depth."""
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, bytes):
            return self._masked_text(value.decode(errors="backslashreplace"))
        if isinstance(value, dict):
            return {self.masked(key): self.masked_item(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.masked(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._masked_text(str(value))

    def masked_item(self, key: str, value: object) -> object:
        return MASK if key.lower() in SECRET_KEYS and value else self.masked(value)

    def _masked_text(self, text: str) -> str:
        if text in self._known:
            return MASK
        for secret in self._known:
            if len(secret) >= SHORTEST_PART and secret in text:
                text = text.replace(secret, MASK)
        return text


SECRETS: Final = Secrets()
"""The process's own: whoever learns a secret adds it here before it can be logged."""


class Sink:
    """Writes lines from a thread; `write` never waits. Lines beyond the limit are dropped and their number is written as soon as there is room."""

    def __init__(self, stream: TextIO, *, limit: int = MAX_WAITING, report: Callable[[int], str] = str) -> None:
        self._stream = stream
        self._report = report
        self._lines: queue.Queue[str | None] = queue.Queue(limit)
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        if self._thread is None:
            self._start()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._lost += 1

    def _start(self) -> None:
        """Begin to write at the first line and not before: a process that detaches itself forks first, and threads do not survive that."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._admit_losses()
            self._put(line)
            if self._lines.empty():
                self._flush()
        self._admit_losses()
        self._flush()

    def _admit_losses(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            self._put(self._report(lost))

    def _put(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
        except UnicodeEncodeError:
            self._stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
        except (OSError, ValueError):
            pass  # a closed or broken stream: there is nowhere to say so

    def _flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # as above
            self._stream.flush()

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, for at most *timeout_s* seconds; what a stuck reader has not taken by then is lost."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        deadline = time.monotonic() + timeout_s
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        thread.join(max(0.0, deadline - time.monotonic()))


@contextlib.contextmanager
def logging_to(
    stream: TextIO | None = None,
    *,
    level: str = "info",
    form: str = "auto",
    secrets: Secrets = SECRETS,
    limit: int = MAX_WAITING,
) -> Iterator[Sink]:
    """Log to *stream* (standard error) while the block lasts, then write what is left.

    *form* is auto, text or json. Libraries that use the standard library's logging are heard from warnings on, at level debug from debug on.
    """
    stream = sys.stderr if stream is None else stream
    text = form == "text" or (form == "auto" and stream.isatty())
    render = _TextRenderer(colours=text and stream.isatty()) if text else _render_json
    number = logging.getLevelNamesMapping()[level.upper()]

    def line_of(event: Event) -> str:
        return render({key: secrets.masked_item(key, value) for key, value in event.items()})

    sink = Sink(
        stream, limit=limit, report=lambda lost: line_of(_event("log lines lost", "warning", "jand.log", lines=lost))
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_time,
            _add_logger,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(),
            lambda _logger, _method, event: line_of(event),
        ],
        logger_factory=_LoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    handler = _LibraryHandler(sink, line_of)
    library_level = logging.DEBUG if number <= logging.DEBUG else max(number, LIBRARIES_FROM)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(library_level)
    logging.captureWarnings(capture=True)
    try:
        yield sink
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        root.setLevel(before)
        structlog.reset_defaults()
        sink.close()


class _Logger:
    """What structlog calls with the finished line, whatever the level's name."""

    def __init__(self, sink: Sink, name: str) -> None:
        self._sink = sink
        self.name = name

    def msg(self, line: str) -> None:
        self._sink.write(line)

    debug = info = warning = error = critical = exception = fatal = warn = log = msg


class _LoggerFactory:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __call__(self, *names: object) -> _Logger:
        return _Logger(self._sink, str(names[0]) if names else "jand")


class _LibraryHandler(logging.Handler):
    """Gives records of the standard library's logging the same shape and the same path."""

    def __init__(self, sink: Sink, line_of: Callable[[Event], str]) -> None:
        super().__init__()
        self._sink = sink
        self._line_of = line_of

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            event = _event(record.getMessage(), record.levelname.lower(), record.name)
            if record.exc_info and record.exc_info[0] is not None:
                event["exception"] = logging.Formatter().formatException(record.exc_info)
            self._sink.write(self._line_of(event))
        except Exception:
            self.handleError(record)


def _event(text: str, level: str, logger: str, **facts: object) -> Event:
    return _add_time(None, "", {"event": text, "level": level, "logger": logger, **facts})


def _add_time(_logger: object, _method: str, event: Event) -> Event:
    event["timestamp"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return event


def _add_logger(logger: _Logger, _method: str, event: Event) -> Event:
    event["logger"] = logger.name
    return event


def _render_json(event: Event) -> str:
    """Render one object a line, time, level and event first; always ASCII, so that any byte of a file name survives."""
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return json.dumps(first | dict(event), default=str)


class _TextRenderer:
    """Renders `12:00:01.250 info    model ready  model=zephyr-7b seconds=1.3`, in local time."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, event: Event) -> str:
        facts = dict(event)
        at = datetime.datetime.fromisoformat(facts.pop("timestamp")).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = str(facts.pop("level", "info"))
        text = str(facts.pop("event", ""))
        facts.pop("logger", None)
        exception = facts.pop("exception", None)
        stack = facts.pop("stack", None)
        out = io.StringIO()
        out.write(f"{self._dim(at)} {self._paint(f'{level:<7}', COLOURS.get(level, '0'))} {printable(text)}")
        for key, value in facts.items():
            out.write(f"  {self._dim(printable(key) + '=')}{_value(value)}")
        for block in (stack, exception):
            if block:
                out.write("\n" + "\n".join(printable(line) for line in str(block).splitlines()))
        return out.getvalue()

    def _dim(self, text: str) -> str:
        return self._paint(text, "2")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, str):
        return json.dumps(value, default=str)
    bare = value.isprintable() and value and not set(value) & set(' ="')
    return value if bare else json.dumps(value, ensure_ascii=not value.isprintable())
