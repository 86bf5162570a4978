"""What an error looks like on a terminal, and the exit status of each kind (the numbers of sysexits.h where it has one)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from jand.errors import (
    BadRequestError,
    BodyTooLargeError,
    DaemonUnavailableError,
    DownloadError,
    EngineError,
    FileTakenError,
    ForbiddenHostError,
    ForbiddenOriginError,
    GgufError,
    JandError,
    MethodNotAllowedError,
    ModelDownloadingError,
    ModelExistsError,
    ModelNotFoundError,
    ModelNotRunningError,
    ModelRemovedError,
    NotPossibleError,
    NotReadyError,
    QueueFullError,
    RootLockedError,
    RootOfflineError,
    SettingsError,
    ShuttingDownError,
    SocketInUseError,
    SocketUnusableError,
    StartError,
    UnauthorizedError,
    UnknownRouteError,
    UnsupportedMediaTypeError,
    UpstreamError,
    WorkerDiedError,
)
from jand.paths import leads_to_journal, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILED: Final = 1
"""It was tried and did not work; or `check` found something wrong."""
USAGE: Final = 2
DATA: Final = 65
NOT_FOUND: Final = 66
UNAVAILABLE: Final = 69
SOFTWARE: Final = 70
LACK: Final = 71
EXISTS: Final = 73
TRY_LATER: Final = 75
REFUSED: Final = 77
SETTINGS: Final = 78
INTERRUPTED: Final = 130

STATUS: Final[dict[type[JandError], int]] = {
    JandError: SOFTWARE,
    SettingsError: SETTINGS,
    RootLockedError: UNAVAILABLE,
    SocketInUseError: UNAVAILABLE,
    SocketUnusableError: UNAVAILABLE,
    DaemonUnavailableError: UNAVAILABLE,
    BadRequestError: DATA,
    GgufError: DATA,
    BodyTooLargeError: DATA,
    UnsupportedMediaTypeError: DATA,
    MethodNotAllowedError: DATA,
    UnknownRouteError: NOT_FOUND,
    ModelNotFoundError: NOT_FOUND,
    ModelRemovedError: NOT_FOUND,
    FileTakenError: EXISTS,
    ModelExistsError: EXISTS,
    ModelDownloadingError: TRY_LATER,
    NotReadyError: TRY_LATER,
    ShuttingDownError: TRY_LATER,
    QueueFullError: TRY_LATER,
    RootOfflineError: TRY_LATER,
    UnauthorizedError: REFUSED,
    ForbiddenHostError: REFUSED,
    ForbiddenOriginError: REFUSED,
    ModelNotRunningError: FAILED,
    NotPossibleError: FAILED,
    StartError: FAILED,
    EngineError: FAILED,
    WorkerDiedError: FAILED,
    UpstreamError: FAILED,
    DownloadError: FAILED,
}
"""Exit status by class; a class that is not here has that of its nearest ancestor. A test demands an entry for every child of JandError."""


def status_of(error: JandError) -> int:
    """Return the exit status of *error*; one that came over the socket may carry a code of which only the class's name is known here."""
    kind = next((kind for kind in _descendants(JandError) if kind.code == error.code), type(error))
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def _descendants(kind: type[JandError]) -> Iterator[type[JandError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


class Failure(Exception):  # noqa: N818 - a verb's outcome, told to a person; JandError is the tree of errors
    """What a verb itself found wrong, as one sentence with a hint and the exit status."""

    def __init__(self, message: str, *, hint: str = "", status: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


def report(error: JandError | Failure) -> int:
    """Print the sentence and the hint; return the exit status."""
    _print(error.message, error.hint)
    return error.status if isinstance(error, Failure) else status_of(error)


def report_usage(message: str, status: int) -> int:
    """Print what the parser of the command line complains about, in the same shape as everything else."""
    sentence = message.strip().removesuffix(".")
    _print(f"{sentence[:1].lower()}{sentence[1:]}", "jand --help lists the verbs, jand VERB --help its options")
    return status


def _print(message: str, hint: str) -> None:
    # In the journal of a service that did not start it is an error, and not the information that other output is.
    level = "<3>" if leads_to_journal(os.environ.get("JOURNAL_STREAM", ""), sys.stderr) else ""
    print(f"{level}jand: {printable(message)}", file=sys.stderr)  # noqa: T201 - the command line's own output
    if hint:
        print(f"{level}hint: {printable(hint)}", file=sys.stderr)  # noqa: T201 - as above
