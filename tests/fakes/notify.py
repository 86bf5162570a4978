"""A service manager's end of sd_notify: a socket that keeps what it is told, each datagram as its fields."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.fakes.waiting import until

if TYPE_CHECKING:
    from types import TracebackType


class NotifySocket:
    """Use as a context manager; *abstract*: an address without a file. *told* grows by one dict for each datagram."""

    def __init__(self, *, abstract: bool = False) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        path = str(Path(self._scratch.name) / "notify")
        self.address = f"@jand-test-{os.getpid()}-{id(self)}" if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}" if abstract else path)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.told: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
        self._scratch.cleanup()

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            lines = datagram.decode().split("\n")
            self.told.append(dict(line.split("=", 1) for line in lines))

    async def until(self, field: str, value: str | None = None, *, after: int = 0, timeout_s: float = 10.0) -> int:
        """Wait for a datagram with *field* (and *value*) beyond the first *after* ones; return its place."""

        def places() -> list[int]:
            return [
                number
                for number, fields in enumerate(self.told)
                if number >= after and field in fields and value in {None, fields[field]}
            ]

        return (await until(places, timeout_s, what=f"{field}={value} after {self.told[after:]}"))[0]

    def fields(self, name: str) -> list[str]:
        return [fields[name] for fields in self.told if name in fields]
