"""`GET /v1/events`: what happens, as it happens, to whoever listens.

A listener holds a position in the log and what its connection has not taken yet, which the transport bounds; one that takes nothing for `slow_reader_s` seconds is
let go, and comes back with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from jand.api import guard, sse
from jand.api.errors import abort
from jand.api.render import encode_problem
from jand.errors import BadRequestError, ModelNotFoundError
from jand.model.record import Record

if TYPE_CHECKING:
    from jand.api.route import Call, Shared
    from jand.api.schemas import EventsQuery, Nothing
    from jand.lifecycle.events import Event

log = structlog.get_logger(__name__)

BURST: Final = 16
"""Events written before other requests get a turn: about a millisecond."""

OPENING: Final = b"retry: 1000\n\n"
"""The first bytes, at once, so that a client knows that it listens; it is to come back after a second."""


async def stream_events(call: Call[EventsQuery, Nothing]) -> web.StreamResponse:
    after = read_last_id(call.request)
    model = canonical(call.shared, call.query.model)
    response = web.StreamResponse(headers=sse.HEADERS)
    # The position is taken before the answer begins: whoever has seen its first byte misses nothing that follows.
    position = call.shared.manager.events.last_id if after is None else after
    await response.prepare(call.request)
    try:
        await deliver(call, response, position, model)
    except asyncio.CancelledError:
        if not call.shared.drain.was_cut():
            raise
    response.force_close()
    return response


async def deliver(
    call: Call[EventsQuery, Nothing], response: web.StreamResponse, position: int, model: str | None
) -> None:
    """Write events and, between them, a comment every `heartbeat_s` seconds, until the log or the connection ends."""
    try:
        async with asyncio.TaskGroup() as group:
            await write(call, response, OPENING)
            beat = group.create_task(keep_alive(call, response))
            number = 0
            async for event in call.shared.manager.events.subscribe(position, model):
                await write(call, response, encode_event(call.shared, event))
                number += 1
                if number % BURST == 0:
                    # A write to somebody who reads fast enough never waits.
                    await asyncio.sleep(0)
            beat.cancel()
    except* TimeoutError:
        log.info("slow reader let go", **guard.find_peer(call.request))
        abort(call.request)
    except* ConnectionError:
        abort(call.request)


def read_last_id(request: web.Request) -> int | None:
    given = request.headers.get("Last-Event-ID", "").strip()
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise BadRequestError(f"cannot resume after {given[:40]!r}: it is no event id", param="Last-Event-ID")
    return int(given)


def canonical(shared: Shared, model: str | None) -> str | None:
    """Return the id that *model* is an alias of; one that is not there yet may be waited for."""
    if model is None:
        return None
    try:
        return shared.manager.get(model).id
    except ModelNotFoundError:
        return model


async def keep_alive(call: Call[Any, Nothing], response: web.StreamResponse) -> None:
    while True:
        await asyncio.sleep(call.shared.settings.heartbeat_s)
        await write(call, response, sse.COMMENT)


async def write(call: Call[Any, Nothing], response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(call.shared.settings.slow_reader_s):
        await response.write(data)


def encode_event(shared: Shared, event: Event) -> bytes:
    data = shared.objects.encode(event.data) if isinstance(event.data, Record) else encode_problem(event.data)
    return sse.frame(data, kind=event.type, event_id=event.id)
