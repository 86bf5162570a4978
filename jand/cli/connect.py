"""Reaching the daemon: which socket, and one event loop for one verb."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jand import paths
from jand.cli.completing import complete_models
from jand.client import Client
from jand.errors import DaemonUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

SocketOption = Annotated[
    Path | None,
    typer.Option(
        "--socket", metavar="PATH", readable=False, help="The daemon's socket; else JAND_SOCKET, else the usual places."
    ),
]
IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A model's id or one of its aliases; see jand list.", autocompletion=complete_models
    ),
]


def ask(socket: Path | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Run *work* with a client of the daemon. Raises DaemonUnavailableError where no daemon answers."""
    found = find_socket(socket)

    async def with_client() -> T:
        async with Client(found) as client:
            return await work(client)

    return asyncio.run(with_client())


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
