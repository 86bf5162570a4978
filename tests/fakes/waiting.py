"""Waiting for a condition with a deadline, in place of fixed sleeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

INTERVAL_S = 0.005


@overload
async def until(condition: Callable[[], Awaitable[T]], timeout_s: float = 5.0, *, what: str = "") -> T: ...
@overload
async def until(condition: Callable[[], T], timeout_s: float = 5.0, *, what: str = "") -> T: ...
async def until(condition: Callable[[], T | Awaitable[T]], timeout_s: float = 5.0, *, what: str = "") -> T:
    """Return the first true value of *condition* (called again and again; it may be a coroutine function).

    Raises AssertionError with *what* and the last value after *timeout_s* seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            message = f"waited {timeout_s} s for {what or condition}; the last value was {value!r}"
            raise AssertionError(message)
        await asyncio.sleep(INTERVAL_S)


def until_sync(condition: Callable[[], T], timeout_s: float = 5.0, *, what: str = "") -> T:
    """Do as `until` does, where there is no event loop."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            message = f"waited {timeout_s} s for {what or condition}; the last value was {value!r}"
            raise AssertionError(message)
        time.sleep(INTERVAL_S)
    return value
