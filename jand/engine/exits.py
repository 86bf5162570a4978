"""How a worker ended, in words: from an exit status and the last lines of its log to the sentence that a person reads."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from jand.engine.protocol import TERMINATED

_CAUSES: Final = {
    signal.SIGKILL: "probably for lack of memory",
    signal.SIGSEGV: "llama.cpp crashed",
    signal.SIGABRT: "llama.cpp gave up",
    signal.SIGILL: "llama.cpp was built for another processor",
    signal.SIGBUS: "a binary was changed or cut while it was in use",
    signal.SIGFPE: "llama.cpp crashed",
}

CRASHES: Final = frozenset({"SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE", "SIGTRAP"})
"""The signals that the code inside a process brings upon itself, unlike those that somebody sends."""

_TELLING: Final = (
    ("GGML_ASSERT", "what():"),
    ("error loading model", "failed to allocate"),
    ("terminate called", "error", "failed", "Error", "Traceback"),
)
"""Words of lines that tell a cause, those that tell most first."""


@dataclass(frozen=True, slots=True)
class ExitNote:
    """*code* is the exit status, *signal* the name of what killed it (one of them is None); *message* tells it without a subject.

    *expected* is true where we had asked the worker to stop.
    """

    code: int | None
    signal: str | None
    message: str
    log: tuple[str, ...] = ()
    expected: bool = False

    @property
    def crashed(self) -> bool:
        return self.signal in CRASHES


def describe_exit(returncode: int, log: tuple[str, ...], *, expected: bool) -> ExitNote:
    """Read *returncode* as subprocess gives it: negative for a signal."""
    if returncode == TERMINATED:
        return ExitNote(returncode, "SIGTERM", "the worker was ended by SIGTERM", log, expected)
    if returncode >= 0:
        message = f"the worker ended with status {returncode}"
        if returncode and (cause := find_telling_line(log)):
            message += f" ({cause})"
        return ExitNote(returncode, None, message, log, expected)
    try:
        known = signal.Signals(-returncode)
    except ValueError:
        return ExitNote(None, f"signal {-returncode}", f"the worker was killed by signal {-returncode}", log, expected)
    message = f"the worker was killed by {known.name}"
    if not expected and (cause := _CAUSES.get(known, "")):
        message += f", {cause}"
        if known is signal.SIGABRT and (line := find_telling_line(log)):
            message += f" ({line})"
    return ExitNote(None, known.name, message, log, expected)


def find_telling_line(log: tuple[str, ...]) -> str:
    """Return the line that says most about why it went wrong, the later one of two that say as much; "" where none does."""
    for words in _TELLING:
        for line in reversed(log):
            if any(word in line for word in words):
                return line[:200]
    return ""
