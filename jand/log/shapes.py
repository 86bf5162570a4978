"""How an event looks: JSON for programs, a line for people, fields for the journal (`journal`)."""

from __future__ import annotations

import datetime
import io
import json
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from jand.errors.scarcity import MEMORY_HINT, is_out_of_memory, lack_of_memory
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Event = MutableMapping[str, Any]

COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}


class Named(Protocol):
    @property
    def name(self) -> str: ...


def make_event(text: str, level: str, logger: str, **facts: object) -> Event:
    return add_time(None, "", {"event": text, "level": level, "logger": logger, **facts})


def add_time(_logger: object, _method: str, event: Event) -> Event:
    event["timestamp"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return event


def shorten_scarcity(_logger: object, _method: str, event: Event) -> Event:
    """Let lack of memory be a sentence and no traceback: it comes everywhere at once, and says nothing of the place where it came."""
    found = event.get("exc_info")
    error = sys.exc_info()[1] if found is True else found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException) and is_out_of_memory(error):
        del event["exc_info"]
        event["reason"] = lack_of_memory()
        event["hint"] = MEMORY_HINT
    return event


def add_logger(logger: Named, _method: str, event: Event) -> Event:
    event["logger"] = logger.name
    return event


def render_json(event: Event) -> str:
    """Render one object a line, time, level and event first; always ASCII, so that any byte of a file name survives."""
    first = {key: event[key] for key in ("timestamp", "level", "event") if key in event}
    return json.dumps(first | dict(event), default=str)


class TextRenderer:
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
