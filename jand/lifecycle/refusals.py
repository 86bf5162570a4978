"""What an actor says when it cannot do what it is asked, each as the error to raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.errors import (
    CrashLoopError,
    ModelDownloadingError,
    ModelNotRunningError,
    ModelRemovedError,
    NotPossibleError,
    QueueFullError,
    RootOfflineError,
    WorkerDiedError,
)
from jand.model.problem import ErrorNote

if TYPE_CHECKING:
    from jand.errors import JandError

RETRY_AFTER_S: Final = 5.0
"""What a client that asks for a model still downloading is told to wait."""


def removed(model_id: str) -> JandError:
    return ModelRemovedError(f'cannot use "{model_id}": its JSON was removed', hint="see `jand list`")


def downloading(model_id: str, error: ErrorNote | None) -> JandError:
    return ModelDownloadingError(
        f'cannot start "{model_id}": a binary is missing or incomplete{_because(error)}',
        hint=error.hint if error else "",
        retry_after_s=RETRY_AFTER_S,
    )


def not_running(model_id: str) -> JandError:
    return ModelNotRunningError(
        f'cannot use "{model_id}": it is not running', hint=f"start it: jand start {model_id}", param="model"
    )


def crash_loop(model_id: str, error: ErrorNote | None) -> JandError:
    return CrashLoopError(
        f'cannot start "{model_id}": it failed again and again{_because(error)}',
        hint=f"mend it, then: jand start {model_id}",
    )


def queue_full(model_id: str, waiting: int) -> JandError:
    return QueueFullError(
        f'cannot answer: {waiting} requests wait already for "{model_id}" to start',
        hint="try again later",
        retry_after_s=RETRY_AFTER_S,
    )


def runs_with_others(model_id: str) -> JandError:
    return NotPossibleError(
        f'cannot start "{model_id}" with these parameters: it runs with others', hint="stop it first"
    )


def offline(model_id: str) -> JandError:
    return RootOfflineError(
        f'cannot start "{model_id}": its folder is not there now',
        hint="mount the disk again",
        retry_after_s=RETRY_AFTER_S,
    )


def stopped_midway(model_id: str) -> JandError:
    return NotPossibleError(f'cannot start "{model_id}": it was stopped while it started', hint="start it again")


def death_note(model_id: str, how: str, at: float, *, loop: bool, log: tuple[str, ...]) -> ErrorNote:
    """Return what a model shows whose worker died; *loop*: once too often. *log*: its last lines."""
    code = CrashLoopError.code if loop else WorkerDiedError.code
    hint = (
        f"mend it, then: jand start {model_id}"
        if loop
        else "the next request starts it again; error.log has the worker's last words"
    )
    return ErrorNote(code, f'cannot go on with "{model_id}": {how}', hint, at=at, log=log)


def start_note(error: JandError, at: float, *, loop: bool) -> ErrorNote:
    """Return what a model shows whose start failed with *error*; *loop*: once too often."""
    return ErrorNote(
        CrashLoopError.code if loop else error.code, error.message, error.hint, at=at, log=_words_of(error)
    )


def _words_of(error: JandError) -> tuple[str, ...]:
    """Return the last lines of the worker's log that *error* carries."""
    lines = error.facts.get("log")
    return tuple(map(str, lines)) if isinstance(lines, tuple | list) else ()


def _because(error: ErrorNote | None) -> str:
    return f": {error.message}" if error else ""
