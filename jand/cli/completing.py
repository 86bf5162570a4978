"""What the shell completes: ids of models and of the catalogue, as the daemon knows them at this moment.

Somebody who pressed a key waits, so whatever goes wrong, or takes long, completes nothing and says nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer  # noqa: TC002 - Typer reads the annotations when it runs

from jand.cli.places import find_place
from jand.client import Client, Place
from jand.errors import JandError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONGEST_S: Final = 2.0

Json = dict[str, Any]


def complete_models(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the ids that begin with *incomplete*, each with the model's state."""
    models = _ask(ctx, lambda client: client.list_models())
    return [(model["id"], model["state"]) for model in models if model["id"].startswith(incomplete)]


def complete_catalog(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the ids of the catalogue that begin with *incomplete*, each with where it comes from."""
    entries = _ask(ctx, lambda client: client.catalog())
    return [(entry["id"], entry["origin"]) for entry in entries if entry["id"].startswith(incomplete)]


def complete_states(incomplete: str) -> list[str]:
    return [state for state in ("running", "downloaded", "downloading") if state.startswith(incomplete)]


def _ask(ctx: typer.Context, work: Callable[[Client], Awaitable[list[Json]]]) -> list[Json]:
    typed = ctx.params.get("socket")
    flag = Path(typed) if typed else None

    async def answer(found: Place) -> list[Json]:
        async with asyncio.timeout(LONGEST_S), Client(found) as client:
            return await work(client)

    try:
        return asyncio.run(answer(find_place(flag)))
    except (JandError, TimeoutError):
        return []
