"""systemd's journal: whether standard error leads there, and events as entries with fields, levels and whole tracebacks.

`journalctl -u jand JAND_MODEL=zephyr-7b` finds a model's lines, `journalctl -p warning` what is worth a look. Where the journal's socket cannot be reached, lines on standard error carry
their level as `<N>` (sd-daemon(3)).
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.log.shapes import Event

SOCKET: Final = Path("/run/systemd/journal/socket")
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""The levels of syslog(3)."""

OWN_FIELDS: Final = {"event", "level", "timestamp", "logger", "exception", "stack"}
MAX_VALUE: Final = 16_000
"""Characters of one field: an entry must fit a datagram (net.core.wmem_default is about 200 kB)."""


class Journal:
    """Sends entries, made by `render_entry`, to the journal's socket. Raises OSError where it cannot be reached."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def write(self, text: str) -> None:
        self._socket.send(text.removesuffix("\n").encode("utf-8", "surrogateescape") + b"\n")

    def flush(self) -> None:
        """Every entry is sent as it is written."""

    def close(self) -> None:
        self._socket.close()


def render_entry(event: Event) -> str:
    """Write *event* in the journal's native protocol; raw bytes (of lengths, of names that are no text) stand as surrogates."""
    facts = {key: value for key, value in event.items() if key not in OWN_FIELDS}
    fields = {
        "MESSAGE": _message(event, facts),
        "PRIORITY": str(PRIORITIES.get(str(event.get("level")), 6)),
        "SYSLOG_IDENTIFIER": "jand",
        "JAND_LOGGER": str(event.get("logger", "")),
        **{f"JAND_{_name(key)}": _text(value) for key, value in facts.items()},
    }
    return "".join(_field(name, value) for name, value in fields.items())


def with_priority(render: Callable[[Event], str]) -> Callable[[Event], str]:
    """Return *render* with `<N>` before each line that it writes."""

    def render_prefixed(event: Event) -> str:
        prefix = f"<{PRIORITIES.get(str(event.get('level')), 6)}>"
        return "\n".join(prefix + line for line in render(event).split("\n"))

    return render_prefixed


def _message(event: Event, facts: Event) -> str:
    """Return what `journalctl` shows: the event and its facts, and a traceback below."""
    first = printable(str(event.get("event", "")))
    for key, value in facts.items():
        first += f" {printable(key)}={printable(_text(value))}"
    return "\n".join([first, *(str(event[key]) for key in ("stack", "exception") if event.get(key))])


def _name(key: str) -> str:
    """Return a name that the journal takes: capitals, digits and underscores, up to 64 (systemd.journal-fields(7))."""
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in key).upper()[:59]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _field(name: str, value: str) -> str:
    value = value[:MAX_VALUE]
    if "\n" not in value:
        return f"{name}={value}\n"
    size = len(value.encode("utf-8", "surrogateescape")).to_bytes(8, "little").decode("ascii", "surrogateescape")
    return f"{name}\n{size}{value}\n"
