"""The daemon's log file: where it is when nobody says so, and opened as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.errors import SettingsError
from jand.log import LogFile
from jand.paths import Janroot

if TYPE_CHECKING:
    from pathlib import Path

    from jand.settings import Settings

LOG_NAME: Final = "jand.log"


def find_log(settings: Settings) -> Path:
    """Return where a detached daemon logs."""
    return settings.log_file or Janroot(settings.root).own / LOG_NAME


def open_log(path: Path, settings: Settings) -> LogFile:
    """Open *path* to append to. Raises SettingsError where that cannot be."""
    try:
        return LogFile(path, max_bytes=settings.log_max_bytes, keep=settings.log_keep)
    except OSError as error:
        raise SettingsError(
            f"cannot write the log {path}: {error.strerror}",
            hint="choose another place with --log-file",
            param="log_file",
        ) from error
