"""Reaching the daemon: which socket or address, and one event loop for one verb."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jand.cli.completing import complete_models
from jand.cli.places import find_place
from jand.client import Client

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
    found = find_place(socket)

    async def with_client() -> T:
        async with Client(found) as client:
            return await work(client)

    return asyncio.run(with_client())
