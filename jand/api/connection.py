"""One connection: aiohttp's own handling, but what is no HTTP is answered in the one shape, and without a traceback in the log for it."""

from __future__ import annotations

import structlog
from aiohttp import web
from typing_extensions import override

from jand.api.errors import answer_error, unexpected
from jand.errors import BadRequestError

log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """Made by `listen` for each connection that comes."""

    __slots__ = ()

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what could not be read as a request, or what no handler caught; the connection ends with it."""
        if request.writer.output_size:
            raise ConnectionResetError("the answer broke off")
        if status < 500:
            cause = (message or "").partition("\n")[0].strip(" :.") or "it is no HTTP"
            log.info("request refused", reason=cause)
            response = answer_error(BadRequestError(f"cannot read the request: {cause[:200]}"))
        else:
            response = answer_error(unexpected(exc, method=request.method, path=request.path))
        response.force_close()
        return response
