"""One connection: aiohttp's own handling, but what is no HTTP is answered in the one shape, and without a traceback in the log for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import hdrs, web
from typing_extensions import override

from jand.api.errors import HOW_TO_PACK, answer_error, unexpected
from jand.errors import BadRequestError, JandError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

log = structlog.get_logger(__name__)

CONTINUE: Final = "100-continue"


class Connection(web.RequestHandler):
    """Made by `listen` for each connection that comes."""

    __slots__ = ()

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what could not be read as a request, or what no handler caught; the connection ends with it."""
        if request.writer.output_size or isinstance(exc, ConnectionError):
            raise ConnectionResetError("the answer broke off, or nobody is there to read one")
        if status < 500:
            cause = (message or "").partition("\n")[0].strip(" :.") or "it is no HTTP"
            log.info("request refused", reason=cause)
            response = answer_error(unreadable(cause))
        else:
            response = answer_error(unexpected(exc, method=request.method, path=request.path))
        response.force_close()
        return response

    @override
    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log a fault; a body that broke its own rules after it was refused is none, and whoever sends it shall not fill the log."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.info("request refused", reason="the rest of its body cannot be read")
        else:
            super().log_exception(*args, **kw)


def with_expectations(handler: Handler) -> Handler:
    """Refuse an `Expect` that is unknown (RFC 9110, 10.1.1) before *handler* is asked: aiohttp would do so in plain text, and fail where its bytes are no UTF-8."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get(hdrs.EXPECT, CONTINUE).lower() != CONTINUE:
            return answer_error(
                BadRequestError("cannot answer: what the request expects is not known", hint="leave Expect out")
            )
        return await handler(request)

    return handle


def unreadable(cause: str) -> JandError:
    if cause.startswith("Can not decode content-encoding: "):  # aiohttp's words where a package is missing
        packing = cause.removeprefix("Can not decode content-encoding: ").partition(".")[0]
        return UnsupportedMediaTypeError(f"cannot unpack a body that is packed with {packing[:80]}", hint=HOW_TO_PACK)
    return BadRequestError(f"cannot read the request: {cause[:200]}")
