"""How models come in through the API: registered, copied, looked for, and their downloads halted and gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from jand.api.models import answer_model
from jand.api.render import encode_model, single
from jand.api.route import Call, answer_json
from jand.api.schemas import (
    CatalogAnswer,
    CatalogEntryObject,
    CopyBody,
    Nothing,
    ParametersObject,
    PlanObject,
    PreviewAnswer,
    ReasonObject,
    RegisterBody,
    RegisterQuery,
    SearchAnswer,
    SearchHitObject,
    SearchQuery,
)

if TYPE_CHECKING:
    from jand.lifecycle.intake import Preview
    from jand.lifecycle.offers import Offer
    from jand.model.record import Record


async def register_model(call: Call[RegisterQuery, RegisterBody]) -> web.Response:
    body = call.body.model_dump(exclude_unset=True)
    if call.query.dry_run:
        return answer_json(preview_of(await call.shared.manager.preview(body)))
    return answer_created(await call.shared.manager.register(body))


async def copy_model(call: Call[Nothing, CopyBody]) -> web.Response:
    return answer_created(await call.shared.manager.copy(call.id, call.body.model_dump(exclude_unset=True)))


def answer_created(record: Record) -> web.Response:
    location = f"/v1/models/{quote(record.id, safe='')}"
    return web.Response(
        status=201, body=encode_model(record), content_type="application/json", headers={"Location": location}
    )


async def pause_model(call: Call[Nothing, Nothing]) -> web.Response:
    return answer_model(await call.shared.manager.pause(call.id))


async def resume_model(call: Call[Nothing, Nothing]) -> web.Response:
    return answer_model(await call.shared.manager.resume(call.id))


async def list_catalog(call: Call[Nothing, Nothing]) -> CatalogAnswer:
    offers = await call.shared.manager.offers()
    known = {name for record in call.shared.manager.list() for name in (record.id, *record.aliases)}
    return CatalogAnswer(data=[entry_of(offer, registered=offer.entry.id in known) for offer in offers])


async def search_hub(call: Call[SearchQuery, Nothing]) -> SearchAnswer:
    hits = await call.shared.manager.search(call.query.q, call.query.limit)
    return SearchAnswer(data=[SearchHitObject.model_validate(hit) for hit in hits])


def preview_of(preview: Preview) -> PreviewAnswer:
    return PreviewAnswer(
        id=preview.model_id,
        path=preview.path,
        exists=preview.exists,
        json=preview.spec.masked(),
        download=PlanObject.model_validate(preview.plan),
    )


def entry_of(offer: Offer, *, registered: bool) -> CatalogEntryObject:
    spec = offer.entry.spec
    masked = spec.masked()
    return CatalogEntryObject(
        id=offer.entry.id,
        origin=masked["origin"],
        import_format=spec.import_format,
        download_url=single(masked.get("download_url")),
        parameters=ParametersObject.model_validate(masked.get("parameters") or {}),
        metadata=masked.get("metadata") or {},
        shipped=offer.entry.shipped,
        registered=registered,
        download=None if offer.plan is None else PlanObject.model_validate(offer.plan),
        unknown=None if offer.unknown is None else ReasonObject.model_validate(offer.unknown),
    )
