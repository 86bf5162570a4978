"""Puts logging together for as long as a block lasts: where lines go, how they look, and from which level on."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Final, TextIO

import structlog
from typing_extensions import override

from jand.log import journal, shapes
from jand.log.files import LogFile
from jand.log.masking import Secrets
from jand.log.shapes import make_event
from jand.log.sink import MAX_WAITING, Sink
from jand.paths import leads_to_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jand.log.shapes import Event
    from jand.log.sink import Stream

LIBRARIES_FROM: Final = logging.WARNING

SECRETS: Final = Secrets()
"""The process's own: whoever learns a secret adds it here before it can be logged."""


class Logs:
    """What can be changed while it logs."""

    def __init__(self, sink: Sink, processors: list[structlog.typing.Processor], file: LogFile | None) -> None:
        self._sink = sink
        self._processors = processors
        self._file = file

    @property
    def lost(self) -> int:
        """How many lines were lost of which the log does not tell yet."""
        return self._sink.lost

    def set_level(self, level: str) -> None:
        """Log what is at least as severe as *level*. Libraries that use the standard library's logging are heard from warnings on, at level debug from debug on."""
        number = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(number),
            processors=self._processors,
            logger_factory=_LoggerFactory(self._sink),
            cache_logger_on_first_use=False,
        )
        logging.getLogger().setLevel(logging.DEBUG if number <= logging.DEBUG else max(number, LIBRARIES_FROM))

    def reopen(self) -> None:
        """Open the log file anew, where there is one, because whoever rotates it has renamed it."""
        if self._file is not None:
            self._file.reopen()


@contextlib.contextmanager
def logging_to(
    stream: TextIO | LogFile | None = None,
    *,
    level: str = "info",
    form: str = "auto",
    secrets: Secrets = SECRETS,
    limit: int = MAX_WAITING,
    journal_stream: str = "",
) -> Iterator[Logs]:
    """Log to *stream* (standard error) while the block lasts, then write what is left.

    *form* is auto, text or json. *journal_stream* is the `JOURNAL_STREAM` of the environment: where it names *stream*, auto means entries with fields in the journal, and
    other forms carry their level.
    """
    stream = sys.stderr if stream is None else stream
    outlet, render = _choose(stream, form, journal_stream)

    def line_of(event: Event) -> str:
        return render({key: secrets.masked_item(key, value) for key, value in event.items()})

    sink = Sink(
        outlet,
        limit=limit,
        report=lambda lost: line_of(make_event("log lines lost", "warning", "jand.log", lines=lost)),
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        shapes.add_time,
        shapes.add_logger,
        shapes.shorten_scarcity,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.ExceptionRenderer(),
        lambda _logger, _method, event: line_of(event),
    ]
    handler = _LibraryHandler(sink, line_of)
    root = logging.getLogger()
    before = root.level
    logs = Logs(sink, processors, stream if isinstance(stream, LogFile) else None)
    logs.set_level(level)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield logs
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        root.setLevel(before)
        structlog.reset_defaults()
        sink.close()
        if isinstance(outlet, journal.Journal):
            outlet.close()


def _choose(stream: TextIO | LogFile, form: str, journal_stream: str) -> tuple[Stream, Callable[[Event], str]]:
    """Return where lines go and how they look."""
    if isinstance(stream, LogFile):
        return stream, shapes.TextRenderer(colours=False) if form == "text" else shapes.render_json
    terminal = stream.isatty()
    render = shapes.TextRenderer(colours=terminal) if form == "text" or terminal else shapes.render_json
    if form == "json":
        render = shapes.render_json
    if not leads_to_journal(journal_stream, stream):
        return stream, render
    if form == "auto":
        with contextlib.suppress(OSError):  # a sandbox may hide the socket; standard error is there in any case
            return journal.Journal(), journal.render_entry
        render = shapes.TextRenderer(colours=False)
    return stream, journal.with_priority(render)


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
            event = make_event(record.getMessage(), record.levelname.lower(), record.name)
            if record.exc_info and record.exc_info[0] is not None:
                event["exc_info"] = record.exc_info
                if "exc_info" in shapes.shorten_scarcity(None, "", event):
                    event["exception"] = logging.Formatter().formatException(event.pop("exc_info"))
            self._sink.write(self._line_of(event))
        except Exception:
            self.handleError(record)
