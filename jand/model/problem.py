"""What is wrong with a file or folder, located, in the contract's words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An *error* keeps something from working; a *warning* was understood all the same (an unknown field)."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that a person should mend.

    *path* is relative to the janroot where the file lies inside it, else absolute; *line* and *column* count from 1 and are None where the
    problem has no place in a text. Two equal problems are one: when it was first seen is kept beside it, not in it.
    """

    path: str
    code: str
    message: str
    hint: str = ""
    line: int | None = None
    column: int | None = None
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class ErrorNote:
    """The `error` of a model object: why it is not where it should be.

    *at* and *retry_at* are Unix times in seconds; *retry_at* is None where nothing is tried again by itself. *log* holds the last lines of a worker that
    died or could not start.
    """

    code: str
    message: str
    hint: str = ""
    at: float = 0.0
    retry_at: float | None = None
    log: tuple[str, ...] = ()
