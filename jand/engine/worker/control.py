"""The worker's end of the control channel: reports go out from any thread, commands come in on a thread of their own."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

from jand.engine import protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Control:
    """Owns the socket with the descriptor *number*."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number)
        self._lines = self._socket.makefile("rb")
        self._sending = threading.Lock()

    def read_config(self) -> protocol.WorkerConfig:
        return protocol.WorkerConfig.parse(self._lines.readline(protocol.LINE_LIMIT))

    def report(self, report: protocol.Report) -> None:
        """Send *report*; a daemon that is gone ends this process by the lifeline, so nobody need hear of it here."""
        try:
            with self._sending:
                self._socket.sendall(protocol.to_line(report))
        except OSError:
            pass

    def obey(self, take: Callable[[protocol.Command], None]) -> None:
        """Call *take* with each command, on another thread, until the channel closes."""

        def listen() -> None:
            while line := self._lines.readline(protocol.LINE_LIMIT):
                try:
                    take(protocol.parse_command(line))
                except protocol.ProtocolError as error:
                    os.write(2, f"ignoring a command: {error}\n".encode())

        threading.Thread(target=listen, name="control", daemon=True).start()
