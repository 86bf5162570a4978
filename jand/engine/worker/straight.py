"""The body of a streamed answer, written by the engine's thread itself.

To bring a token to the event loop's thread costs more than to send it: that thread must wake up, take the interpreter, for which the engine then waits (0.2 ms of a step with eight answers), and do
with cold caches what the engine does in passing. So a stream, once its head is out, is written to its socket by whoever made the token. What the socket does not take at once is
the event loop's to send, and everything after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from jand.outflow import Outflow


class Straight:
    """Writes what *out* would, on one thread at a time. Use it as an asynchronous context manager.

    It has a descriptor of its own: the transport may close its own at any time, and the number be another connection's then.
    """

    def __init__(self, out: Outflow) -> None:
        self._out = out
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        descriptor = self._out.descriptor
        if descriptor is not None:
            with contextlib.suppress(OSError):  # too few descriptors: the event loop's will do
                self._socket = socket.socket(fileno=os.dup(descriptor))
                self._socket.setblocking(False)
        return self

    async def __aexit__(self, *details: object) -> None:
        if self._socket is not None:
            self._socket.close()
        await asyncio.sleep(0)  # what was left to the event loop is written before what follows

    def write(self, piece: bytes) -> None:
        """Send *piece*, which is not empty; nothing happens once the client has gone."""
        data = self._out.frame(piece)
        if self._socket is not None:
            sent = 0
            with contextlib.suppress(OSError):  # it takes nothing now, or never again: the event loop finds out which
                sent = self._socket.send(data)
            if sent == len(data):
                return
            data = data[sent:]
            self._socket.close()
            self._socket = None
        self._loop.call_soon_threadsafe(self._out.write_framed, data)
