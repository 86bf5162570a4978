"""What fetching, re-using and watching find out about a model, as the actor keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.download.reuse import Taken
    from jand.model.problem import ErrorNote
    from jand.model.record import FileRecord, Progress


class Remarks(TypedDict, total=False):
    """*choice*: which variant was chosen for download, and why. *wanted*: which files are to come, *awaited*: all that it is to have then, until that is done. *reused*: which of its binaries are other programs' files. *offline*: its folder cannot be seen now."""

    error: ErrorNote | None
    progress: Progress | None
    choice: Mapping[str, str | None]
    wanted: tuple[FileRecord, ...]
    awaited: tuple[str, ...]
    reused: Mapping[str, Taken]
    paused: bool
    offline: bool
