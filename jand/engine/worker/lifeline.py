"""The worker's bond to the daemon: when the daemon is gone, however it went, this process ends at once, also in the middle of a load or a decode."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def bind_to(parent: int) -> None:
    """Let the kernel end this process with the daemon, process *parent*, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before prctl took effect
            os._exit(0)


def watch(lifeline: int) -> None:
    """Watch *lifeline*, a pipe of which only the daemon has the write end; return at once.

    The thread blocks in read and leaves by os._exit: nothing is cleaned up, since the kernel gives back all that a worker has, and the engine's thread may be
    deep in C. Calls into llama.cpp release the GIL, so the thread gets its turn.
    """
    threading.Thread(target=_wait, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait(lifeline: int) -> None:
    while os.read(lifeline, 64):
        pass
    os._exit(0)
