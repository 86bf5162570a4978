"""Waiting for work in a thread that must not go on behind our back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def see_through(work: asyncio.Future[T], on_cancel: Callable[[], object]) -> T:
    """Return what *work* returns once it has ended, also when cancelled, however often; *on_cancel* tells the thread to make haste. A cancellation is passed on at the end."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError as error:
            cancelled = error
            on_cancel()
    if cancelled is not None:
        raise cancelled
    return work.result()
