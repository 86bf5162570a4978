"""Models: list, get, start, stop, delete. Each asks the manager and writes what it says; none looks at a state and then acts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from jand.api.render import encode_model
from jand.api.route import Call, answer_json
from jand.api.schemas import (
    DeleteAnswer,
    DeleteQuery,
    KeptObject,
    ListQuery,
    ModelList,
    Nothing,
    ParametersObject,
    StartAnswer,
    StartBody,
    StartQuery,
    StateFilter,
    StopQuery,
)
from jand.model import secrets
from jand.model.record import PublicState
from jand.model.spec import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.api.render import ModelObjects
    from jand.model.record import Record

BATCH: Final = 16
"""New records written before other requests get a turn: about a millisecond."""

LIST_OPENS: Final = ModelList(data=[]).model_dump_json().encode().removesuffix(b"]}")
LIST_ENDS: Final = b"]}"


async def list_models(call: Call[ListQuery, Nothing]) -> web.Response:
    wanted = None if call.query.state is StateFilter.ALL else PublicState(call.query.state.value)
    records = call.shared.manager.list(wanted)
    written = await write_all(records, call.shared.objects)
    if wanted is None:
        call.shared.objects.tidy(records)
    return web.Response(body=LIST_OPENS + b",".join(written) + LIST_ENDS, content_type="application/json")


async def write_all(records: Sequence[Record], objects: ModelObjects) -> list[bytes]:
    """Write *records* as they are now; the first list of many models lets others have a turn in between."""
    written = []
    new = 0
    for record in records:
        if not objects.has(record):
            new += 1
            if new % BATCH == 0:
                await asyncio.sleep(0)
        written.append(objects.encode(record))
    return written


async def get_model(call: Call[Nothing, Nothing]) -> web.Response:
    return answer_model(call.shared.manager.get(call.id))


async def start_model(call: Call[StartQuery, StartBody]) -> web.Response:
    manager = call.shared.manager
    record = await manager.start(call.id, call.body.parameters.init or None, wait=call.query.wait)
    in_force = secrets.mask(dict(manager.running_parameters(record.id)))
    answer = StartAnswer(
        id=record.id,
        state=record.state,
        transition=record.transition,
        model_parameters=ParametersObject.model_validate(in_force),
        engine="llamacpp" if record.spec.metadata.engine is Engine.LLAMACPP else "openai",
    )
    return answer_json(answer, 200 if call.query.wait else 202)


async def stop_model(call: Call[StopQuery, Nothing]) -> web.Response:
    return answer_model(await call.shared.manager.stop(call.id, force=call.query.force))


async def delete_model(call: Call[DeleteQuery, Nothing]) -> DeleteAnswer:
    deletion = await call.shared.manager.delete(call.id, keep_files=call.query.keep_files)
    return DeleteAnswer(
        id=deletion.id,
        kept=[KeptObject(name=kept.name, why=kept.why) for kept in deletion.kept],
    )


def answer_model(record: Record) -> web.Response:
    """Write *record* anew: it may carry facts of this very moment, which the list does not."""
    return web.Response(body=encode_model(record), content_type="application/json")
