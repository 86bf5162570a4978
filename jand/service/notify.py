"""Telling whoever started the daemon how it goes: systemd by the datagrams of sd_notify(3), a terminal that waits by a pipe (`detach`); silent where nobody listens.

A message that cannot be sent is dropped: a service manager that went away is no reason to stop serving.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD_BYTES: Final = 2000
"""The longest STATUS that is sent; systemd shows one line."""


class Listener(Protocol):
    """Takes fields of sd_notify (`READY=1`, `STATUS=...`); what it does not know it drops."""

    def send(self, *fields: str) -> None: ...


class Notifier:
    """Sends to the `NOTIFY_SOCKET` of *environ*, a path or (with a leading `@`) an abstract name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def send(self, *fields: str) -> None:
        """Send *fields* in one datagram."""
        if not self._address:
            return
        datagram = "\n".join(one_line(field)[:FIELD_BYTES] for field in fields)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                # systemd that is stopped or overwhelmed must not stop the event loop.
                channel.setblocking(False)
                channel.sendto(datagram.encode("utf-8", "backslashreplace"), self._address)
        except OSError:
            return


class Both:
    """Tells several listeners the same."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def send(self, *fields: str) -> None:
        for listener in self._listeners:
            listener.send(*fields)


def one_line(field: str) -> str:
    """Return *field* without line ends, at which another field would begin."""
    return " ".join(field.split("\n"))


def reloading() -> tuple[str, str]:
    """Return the fields that say that settings are being read again; systemd 253 and later wants to know since when (sd_notify(3), `MONOTONIC_USEC`)."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_period(environ: Mapping[str, str], pid: int) -> float | None:
    """Return every how many seconds systemd wants to hear `WATCHDOG=1`: a third of what it waits, as sd_watchdog_enabled(3) advises half; None where it does not."""
    given = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", "") or str(pid)
    if not (given.isascii() and given.isdigit()) or int(given) == 0 or meant_for != str(pid):
        return None
    return int(given) / 1e6 / 3
