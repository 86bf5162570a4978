"""What a person should mend; a full scan and a look at the settings on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from jand.api.models import LIST_ENDS, LIST_OPENS
from jand.api.render import encode_problem
from jand.api.schemas import Nothing, RescanAnswer
from jand.api.schemas_daemon import ReloadAnswer

if TYPE_CHECKING:
    from jand.api.route import Call


async def list_problems(call: Call[Nothing, Nothing]) -> web.Response:
    written = [encode_problem(problem) for problem in call.shared.manager.problems()]
    return web.Response(body=LIST_OPENS + b",".join(written) + LIST_ENDS, content_type="application/json")


async def rescan(call: Call[Nothing, Nothing]) -> RescanAnswer:
    return RescanAnswer.model_validate(dict(await call.shared.manager.rescan()))


async def reload(call: Call[Nothing, Nothing]) -> ReloadAnswer:
    return ReloadAnswer.model_validate(await call.shared.reload())
