"""The page for people: files of the package, served as they are, with headers under which a page can do nothing but talk to this daemon.

They hold no secrets, so no token is asked for them; what they show comes from the API, which asks for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from jand.api.route import Call, Route
from jand.api.schemas import Nothing
from jand.errors import UnknownRouteError

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = Path(__file__).parents[1] / "web"
INDEX: Final = "index.html"
MEDIA: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        # No text becomes markup, whoever wrote it: every assignment of a string to innerHTML and its like throws.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    hdrs.CACHE_CONTROL: "no-cache",
}


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    media: str
    tag: str


async def show_page(call: Call[Nothing, Nothing]) -> web.Response:
    return await answer(call.request, INDEX)


async def show_file(call: Call[Nothing, Nothing]) -> web.Response:
    return await answer(call.request, call.request.match_info["file"])


async def answer(request: web.Request, name: str) -> web.Response:
    file = (await asyncio.to_thread(read_files)).get(name)
    if file is None:
        raise UnknownRouteError(f"cannot GET {request.path[:200]}: the page has no such file", hint="see GET /")
    headers = HEADERS | {hdrs.ETAG: file.tag}
    if request.headers.get(hdrs.IF_NONE_MATCH) == file.tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.content, content_type=file.media, charset="utf-8", headers=headers)


@cache
def read_files() -> Mapping[str, File]:
    """Read the page's files, once (blocks for the disk)."""
    media = MEDIA | {".html": "text/html"}
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in media:
            content = path.read_bytes()
            found[path.name] = File(content, media[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


ROUTES: Final = (
    Route(
        method="GET",
        path="/",
        handler=show_page,
        summary="Show the page for people",
        query=Nothing,
        body=Nothing,
        answer=None,
        media=("text/html",),
        waits=False,
    ),
    Route(
        method="GET",
        path="/page/{file}",
        handler=show_file,
        summary="Give a file of the page",
        query=Nothing,
        body=Nothing,
        answer=None,
        media=tuple(MEDIA.values()),
        errors=(UnknownRouteError,),
        waits=False,
    ),
)
