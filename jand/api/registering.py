"""New models: registered from a body or the catalogue, copied from another; and what the catalogue has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from jand.api.models import answer_model
from jand.api.render import encode_model
from jand.api.schemas import CatalogList, CatalogObject, CopyBody, Nothing, RegisterBody

if TYPE_CHECKING:
    from jand.api.route import Call
    from jand.lifecycle.catalog import CatalogEntry
    from jand.model.record import Record


async def register_model(call: Call[Nothing, RegisterBody]) -> web.Response:
    return created(await call.shared.manager.register(call.body.model_dump(exclude_unset=True)))


async def copy_model(call: Call[Nothing, CopyBody]) -> web.Response:
    return created(await call.shared.manager.copy(call.id, call.body.model_dump(exclude_unset=True)))


async def pause_model(call: Call[Nothing, Nothing]) -> web.Response:
    return answer_model(await call.shared.manager.pause(call.id))


async def resume_model(call: Call[Nothing, Nothing]) -> web.Response:
    return answer_model(await call.shared.manager.resume(call.id))


async def list_catalog(call: Call[Nothing, Nothing]) -> CatalogList:
    entries = await asyncio.to_thread(call.shared.manager.catalog.entries)
    known = {name for record in call.shared.manager.list() for name in (record.id, *record.aliases)}
    return CatalogList(data=[describe(entry, registered=entry.id in known) for entry in entries])


def describe(entry: CatalogEntry, *, registered: bool) -> CatalogObject:
    spec = entry.spec
    urls = list(spec.download_url)
    return CatalogObject(
        id=entry.id,
        origin=spec.origin,
        import_format=spec.import_format.value,
        engine=spec.metadata.engine.value,
        description=spec.metadata.description,
        tags=list(spec.metadata.tags or ()),
        download_url=(urls[0] if len(urls) == 1 else urls) or None,
        quantization=spec.metadata.quantization,
        registered=registered,
    )


def created(record: Record) -> web.Response:
    return web.Response(status=201, body=encode_model(record), content_type="application/json")
