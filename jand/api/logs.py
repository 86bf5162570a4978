"""`GET /v1/models/{id}/logs`: what a model's worker has written, and with `follow` what it goes on to write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from jand.api import sse
from jand.api.errors import abort
from jand.api.events import OPENING, keep_alive, read_last_id, write
from jand.api.models import answer_model
from jand.api.schemas_daemon import LogList
from jand.errors import ModelNotFoundError

if TYPE_CHECKING:
    from jand.api.route import Call
    from jand.api.schemas import Nothing
    from jand.api.schemas_daemon import LogsQuery
    from jand.lifecycle.words import Line


async def show_logs(call: Call[LogsQuery, Nothing]) -> LogList | web.StreamResponse:
    manager = call.shared.manager
    try:
        model_id = manager.get(call.id).id
    except ModelNotFoundError as error:
        # An id may end in /logs: then this is the route of the model itself.
        try:
            return answer_model(manager.get(f"{call.id}/logs"))
        except ModelNotFoundError:
            raise error from None
    words = call.shared.words
    lines = words.last(model_id, call.query.tail)
    if not call.query.follow:
        return LogList.model_validate({"data": [asdict(line) for line in lines]})
    resumed = read_last_id(call.request)
    newest = words.last(model_id, 1)
    after = lines[0].number - 1 if lines else newest[0].number if newest else 0
    return await follow(call, model_id, after if resumed is None else resumed)


async def follow(call: Call[LogsQuery, Nothing], model_id: str, after: int) -> web.StreamResponse:
    """Write each line as an event, with comments between them, until the connection or the daemon ends."""
    response = web.StreamResponse(headers=sse.HEADERS)
    await response.prepare(call.request)
    try:
        await deliver(call, response, model_id, after)
    except asyncio.CancelledError:
        if not call.shared.drain.was_cut():
            raise
    response.force_close()
    return response


async def deliver(call: Call[LogsQuery, Nothing], response: web.StreamResponse, model_id: str, after: int) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            await write(call, response, OPENING)
            group.create_task(keep_alive(call, response))
            async for line in call.shared.words.follow(model_id, after):
                await write(call, response, encode(line))
    except* (TimeoutError, ConnectionError):
        abort(call.request)


def encode(line: Line) -> bytes:
    return sse.frame(json.dumps(asdict(line)).encode(), kind="line", event_id=line.number)
