"""A process that makes renderers: `python -m jand.engine.worker.render_host CONTROL PARENT SANDBOX`, executed by a worker before it confines itself and can make no process any more.

It reads orders of one byte: START brings the socket on which a new renderer, forked off here with jinja already imported, is to serve; END kills the one there is. There is never more than one.
The channel is the bond to the worker: when it closes, both end. Renderers may do nothing but render: no file to write, no network, no process.
"""

# ruff: noqa: PLC0415 - jinja is imported when the first renderer is wanted, or never

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Final, NoReturn

from jand.engine.worker import lifeline

START: Final = b"s"
END: Final = b"e"
CONFINED: Final = "confined"


def main() -> None:
    number, parent, confined = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == CONFINED
    # SIGTERM comes to the whole group of the worker, which still needs prompts for what it has taken.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lifeline.bind_to(parent)
    control = socket.socket(fileno=number)
    renderer, prepared = 0, False
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if renderer:
            os.kill(renderer, signal.SIGKILL)
            os.waitpid(renderer, 0)
            renderer = 0
        if not order:
            control.close()
            return
        if order == START:
            if not prepared:
                prepare(confined=confined)
                prepared = True
            renderer = fork_renderer(control, descriptors[0], confined=confined)
            os.close(descriptors[0])


def prepare(*, confined: bool) -> None:
    import jand.engine.worker.renderer  # noqa: F401 - once, for all that are forked

    if confined:
        from jand.engine import sandbox

        sandbox.confine([], os.environ, makes_processes=True)


def fork_renderer(control: socket.socket, descriptor: int, *, confined: bool) -> int:
    """Return the pid of a new renderer that serves on *descriptor*."""
    us = os.getpid()
    renderer = os.fork()
    if not renderer:
        control.close()
        serve(socket.socket(fileno=descriptor), us, confined=confined)
    return renderer


def serve(served: socket.socket, parent: int, *, confined: bool) -> NoReturn:
    status = 1
    try:
        from jand.engine.sandbox import seccomp
        from jand.engine.worker import renderer

        lifeline.bind_to(parent)
        if confined:
            seccomp.apply()
        renderer.limit_memory()
        renderer.serve(served)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
