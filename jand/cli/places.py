"""Which daemon a verb asks: the one whose socket or address was given, else the first whose socket is here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jand import paths
from jand.client import LocalPlace, Place, find_remote
from jand.errors import DaemonUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


def find_place(flag: Path | None) -> Place:
    """Return where the daemon is: the socket of *flag*, else the address of `JAND_URL`, else a socket that exists."""
    remote = None if flag is not None else find_remote(os.environ)
    return remote or LocalPlace(find_socket(flag))


def find_socket(flag: Path | None) -> Path:
    """Return the first socket that exists of those where a daemon may listen."""
    places = paths.client_sockets(flag, os.environ)
    found = next((place for place in places if os.path.lexists(place)), None)
    if found is None:
        tried = ", ".join(str(place) for place in places)
        raise DaemonUnavailableError(
            f"cannot reach the daemon: there is no socket at {tried}", hint="start one with: jand serve"
        )
    return found
