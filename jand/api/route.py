"""One route of the API as a value, and how a request becomes a call of its handler: parsed, validated, counted, and after the first scan."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from jand.api import guard
from jand.api.disk import DiskGauge
from jand.api.drain import stopping
from jand.api.errors import HOW_TO_PACK
from jand.api.schemas import Nothing
from jand.errors import BadJsonError, BadRequestError, BodyTooLargeError, JandError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jand.api.drain import Drain
    from jand.api.ports import Manager
    from jand.api.remote_images import RemoteImages
    from jand.api.render import ModelObjects
    from jand.api.settings import ApiSettings
    from jand.lifecycle.words import Words

log = structlog.get_logger(__name__)

ANY_PART: Final = r"[\s\S]+"
PARTS: Final = {"folder": r"[^/]+"}
"""What the named parts of a path may be, where that is not just anything."""

PACKINGS: Final = frozenset({"", "identity", "gzip", "deflate"})
"""What aiohttp has unpacked, or need not; it passes on any other as it came."""

Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Shared:
    """What every handler may use."""

    manager: Manager
    settings: ApiSettings
    objects: ModelObjects
    drain: Drain
    facts: Mapping[str, str]
    description: Callable[[], bytes]
    words: Words
    reload: Callable[[], Awaitable[Mapping[str, Any]]]
    images: RemoteImages | None = None
    """What fetches images that a request names by address, where a setting allows that."""
    disk: DiskGauge = field(default_factory=DiskGauge)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A validated request. *id* is the decoded model id of the path, empty where the path has none."""

    shared: Shared
    request: web.Request
    id: str
    query: Q
    body: B


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[Q, B]):
    """*answer* is the model of the JSON that it answers, None where that comes from elsewhere (*media* says what then); *instead* is what its query may make it answer with 200.

    *reads* documents a body that the handler reads by itself, as inference does; *takes* is the media type of one that is no JSON. *waits*: not before the first scan. *endless*: cut at once when the daemon stops.
    """

    method: str
    path: str
    handler: Callable[[Call[Q, B]], Awaitable[BaseModel | web.StreamResponse]]
    summary: str
    query: type[Q]
    body: type[B]
    answer: type[BaseModel] | None
    statuses: tuple[int, ...] = (200,)
    instead: type[BaseModel] | None = None
    media: tuple[str, ...] = ("application/json",)
    reads: type[BaseModel] | None = None
    takes: str | None = None
    errors: tuple[type[JandError], ...] = ()
    waits: bool = True
    endless: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what stands in braces in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def pattern(self) -> str:
        """The path for the router, which decodes its parts once; an id may hold any character, a slash (encoded or not) and a newline too."""
        return re.sub(r"{(\w+)}", lambda found: f"{{{found[1]}:{PARTS.get(found[1], ANY_PART)}}}", self.path)


def bind(route: Route[Q, B], shared: Shared) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the aiohttp handler of *route*."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if route.method != "GET" and route.reads is None:
            log.info("change asked for", method=request.method, path=request.path, **guard.find_peer(request))
        with shared.drain.entered(endless=route.endless):
            try:
                return await _carry_out(route, shared, request)
            except asyncio.CancelledError:
                if not shared.drain.was_cut():
                    raise
                raise stopping() from None

    return handle


async def _carry_out(route: Route[Q, B], shared: Shared, request: web.Request) -> web.StreamResponse:
    query = parse(route.query, request.query)
    body = await parse_body(route.body, request, shared.settings.max_body)
    if route.waits:
        await shared.manager.ready.wait()
    answer = await route.handler(Call(shared, request, request.match_info.get("id", ""), query, body))
    return answer_json(answer) if isinstance(answer, BaseModel) else answer


def answer_json(answer: BaseModel, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=answer.model_dump_json(by_alias=True).encode(), content_type="application/json"
    )


def parse(model: type[Q], given: Mapping[str, str]) -> Q:
    """Validate the query; keys that it does not know are ignored."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise refusal(error) from error


async def parse_body(model: type[B], request: web.Request, limit: int) -> B:
    if model is Nothing:
        return model()
    raw = await read_body(request, limit)
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        raise refusal(error) from error


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read the body, once. Raises UnsupportedMediaTypeError for a packing that nobody here unpacks, BodyTooLargeError as soon as more than *limit* bytes are announced or have come."""
    if (packing := request.headers.get("Content-Encoding", "identity").strip().lower()) not in PACKINGS:
        raise UnsupportedMediaTypeError(f"cannot unpack a body that is packed with {packing[:80]}", hint=HOW_TO_PACK)
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"cannot take the body: it is larger than {limit} bytes")


def refusal(error: ValidationError) -> BadRequestError:
    """Say what the first thing wrong with a query or body is, naming its field as it is written."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return BadJsonError(f"cannot read the body as JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    param = ".".join(str(part) for part in first["loc"])
    if not param:
        return BadJsonError("cannot use the body: it is no JSON object")
    found = "" if first["type"] in {"missing", "extra_forbidden"} else f", found {str(first['input'])[:80]!r}"
    return BadRequestError(
        f"cannot use {param}: {first['msg'][:1].lower()}{first['msg'][1:]}{found}",
        hint=f"correct {param}, or leave it out where it is optional; GET /openapi.json describes all parameters",
        param=param,
    )
