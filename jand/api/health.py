"""Liveness, readiness, versions, and the description of the API itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

import jand
from jand.api import guard
from jand.api.schemas import HealthAnswer, Nothing, ReadyAnswer, VersionAnswer
from jand.errors import NotReadyError

if TYPE_CHECKING:
    from jand.api.route import Call


async def health(call: Call[Nothing, Nothing]) -> HealthAnswer:
    if not guard.is_trusted(call.request, call.shared.settings):
        return HealthAnswer()
    details = dict(call.shared.manager.overview())
    return HealthAnswer(details={**details, "disk": await call.shared.disk.read(details["folder"])})


async def ready(call: Call[Nothing, Nothing]) -> ReadyAnswer:
    if not call.shared.manager.ready.is_set():
        raise NotReadyError(
            "cannot answer yet: the first scan of the models is under way", hint="ask again in a second"
        )
    return ReadyAnswer()


async def version(call: Call[Nothing, Nothing]) -> VersionAnswer:
    return VersionAnswer.model_validate({"version": jand.__version__} | dict(call.shared.facts))


async def describe(call: Call[Nothing, Nothing]) -> web.Response:
    return web.Response(body=call.shared.description(), content_type="application/json")
