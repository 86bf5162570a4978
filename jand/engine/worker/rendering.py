"""The worker's side of the process that makes renderers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

from jand.engine.worker import render_host


class RenderHost:
    """Starts the process, which costs little until the first renderer is wanted; blocks for a moment only."""

    def __init__(self, *, confined: bool = True) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [
                    *(sys.executable, "-m", render_host.__name__, str(theirs.fileno()), str(os.getpid())),
                    render_host.CONFINED if confined else "open",
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(self) -> socket.socket:
        """Have a new renderer made, the old one ended, and return our end of what it serves on. Raises OSError where the process is gone."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [render_host.START], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return ours

    def end(self) -> None:
        """Have the renderer killed."""
        with contextlib.suppress(OSError):
            self._control.send(render_host.END)

    def close(self) -> None:
        """End the process and reap it; idempotent."""
        self._control.close()
        self._process.wait()
