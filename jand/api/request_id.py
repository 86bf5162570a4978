"""A name for each request, the same in the answer's `X-Request-Id` and in every line that is logged on its behalf.

A client's own name is taken where it is a plain one. An upstream's stays in the answer, because a provider's support asks for it.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = structlog.get_logger(__name__)

QUIET: Final = frozenset({"GET", "HEAD"})
"""What is asked again and again by whoever looks on."""

HEADER: Final = "X-Request-Id"
KEY: Final = web.RequestKey("request_id", str)
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@web.middleware
async def name_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    given = request.headers.get(HEADER, "")
    name = request[KEY] = given if _PLAIN.fullmatch(given) else f"req-{secrets.token_hex(6)}"
    with structlog.contextvars.bound_contextvars(request_id=name):
        began = time.monotonic()
        response = await handler(request)
        tell = log.debug if request.method in QUIET else log.info
        seconds = round(time.monotonic() - began, 3)
        tell("request answered", method=request.method, path=request.path, status=response.status, seconds=seconds)
        return response


async def show_name(request: web.Request, response: web.StreamResponse) -> None:
    """Add the header to answers, streams included."""
    if KEY in request:
        response.headers.setdefault(HEADER, request[KEY])
