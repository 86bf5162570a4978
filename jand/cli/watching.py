"""`jand list --watch`: the table as it is at every moment, until Ctrl-C. Events say when to ask again; the list is asked for anew each time, so that nothing is missed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Final

from jand.cli import errors
from jand.cli.output import drawn_table, print_table, say

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from jand.client import Client

REST_S: Final = 0.25
"""The shortest time between two pictures: a download alone gives ten events a second."""

CALM_S: Final = 5.0
"""The longest time between two: memory and the like change without an event."""


async def watch(
    client: Client,
    columns: Sequence[str],
    look: Callable[[Client], Awaitable[Sequence[Sequence[str]]]],
    *,
    nothing: str,
) -> None:
    """Show what *look* answers, as rows below *columns*, whenever something happens; drawn over itself on a terminal, one table below the other elsewhere.

    Raises Failure when the daemon ends.
    """
    shown: object = None
    with _screen(columns, nothing) as show:
        async with contextlib.aclosing(_beats(client)) as beats:
            async for _ in beats:
                rows = await look(client)
                if rows != shown:
                    show(rows)
                    shown = rows
    raise errors.Failure("cannot go on watching: the daemon has ended", status=errors.UNAVAILABLE)


async def _beats(client: Client) -> AsyncGenerator[None]:
    """Yield at once, then whenever something happened and now and then; end with the events."""
    happened = asyncio.Event()
    happened.set()

    async def listen() -> None:
        async for _ in client.events():
            happened.set()

    listening = asyncio.create_task(listen())
    listening.add_done_callback(lambda _: happened.set())
    try:
        while not listening.done():
            happened.clear()
            yield
            await asyncio.sleep(REST_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CALM_S):
                    await happened.wait()
        await listening
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


@contextlib.contextmanager
def _screen(columns: Sequence[str], nothing: str) -> Iterator[Callable[[Sequence[Sequence[str]]], None]]:
    if not sys.stdout.isatty():

        def write(rows: Sequence[Sequence[str]]) -> None:
            print_table(columns, rows) if rows else say(nothing)
            say()
            sys.stdout.flush()

        yield write
        return
    from rich.live import Live  # noqa: PLC0415 - 60 ms that only a terminal has to wait for

    with Live(nothing, auto_refresh=False, vertical_overflow="visible") as live:

        def draw(rows: Sequence[Sequence[str]]) -> None:
            live.update(drawn_table(columns, rows) if rows else nothing, refresh=True)

        yield draw
