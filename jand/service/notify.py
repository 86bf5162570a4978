"""Telling systemd how it goes, by the datagrams of sd_notify(3); silent where nobody listens.

A message that cannot be sent is dropped: a service manager that went away is no reason to stop serving.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Sends to the `NOTIFY_SOCKET` of *environ*, a path or (with a leading `@`) an abstract name."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def send(self, *fields: str) -> None:
        """Send *fields* (`READY=1`, `STATUS=...`) in one datagram."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.sendto("\n".join(fields).encode(), self._address)
        except OSError:
            return
