"""The one error shape of every route, and the one table that knows which status an error has.

A `JandError` is answered as it is. Anything else that escapes a handler is a fault of ours: its traceback goes to the log under an id, and the answer
names that id and nothing more.
"""

from __future__ import annotations

import json
import math
import secrets
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from jand.errors import (
    BadRequestError,
    BodyTooLargeError,
    JandError,
    MethodNotAllowedError,
    ModelNotFoundError,
    NoRoomError,
    UnknownRouteError,
)
from jand.errors.scarcity import MEMORY_HINT, is_out_of_memory, lack_of_memory

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = structlog.get_logger(__name__)

STATUS: Final[dict[str, int]] = {
    "internal-error": 500,
    # What a client can mend in its request.
    "bad-request": 400,
    "bad-json": 400,
    "context-length-exceeded": 400,
    "template-failed": 400,
    "unauthorized": 401,
    "forbidden-host": 403,
    "forbidden-origin": 403,
    "unknown-route": 404,
    "model-not-found": 404,
    "method-not-allowed": 405,
    "body-too-large": 413,
    "unsupported-media-type": 415,
    # What the model is or does now.
    "model-exists": 409,
    "file-exists": 409,
    "model-not-running": 409,
    "model-removed": 409,
    "not-possible": 409,
    "bad-binary": 409,
    "incomplete-binary": 409,
    "legacy-ggml": 409,
    "bad-setting": 409,
    "bad-remote": 409,
    # Why something cannot be fetched, where it is asked for by name: what the origin or the disk says.
    "bad-origin": 400,
    "bad-file-name": 400,
    "unsafe-address": 400,
    "private-address": 403,
    "hub-not-found": 404,
    "quantization-not-found": 404,
    "no-binary": 404,
    "ambiguous-binary": 409,
    "folder-gone": 409,
    "partial-in-use": 409,
    "nothing-fits": 409,
    "rate-limited": 429,
    "download-failed": 502,
    "download-refused": 502,
    "bad-digest": 502,
    "hub-gated": 502,
    "hub-unauthorized": 502,
    "not-a-hub": 502,
    "hub-unavailable": 503,
    "no-network": 503,
    "disk-error": 500,
    "disk-full": 507,
    # What goes wrong behind the API.
    "start-failed": 500,
    "engine-failed": 500,
    "remote-unavailable": 503,
    "crash-loop": 503,
    "no-room": 503,
    "worker-died": 502,
    "upstream-failed": 502,
    # What passes.
    "queue-full": 429,
    "model-downloading": 503,
    "root-offline": 503,
    "not-ready": 503,
    "shutting-down": 503,
    # What ends the daemon before it answers, or is a client's own.
    "root-locked": 500,
    "socket-in-use": 500,
    "socket-unusable": 500,
    "daemon-unavailable": 503,
}
"""Status by code; a test holds it to the whole tree of JandError."""

TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "unavailable_error",
}
"""OpenAI's `type` by status; other 4xx are `invalid_request_error`, other 5xx `server_error`."""

HOW_TO_PACK: Final = "send it unpacked, or packed with gzip or deflate"
DEFAULT_RETRY_AFTER_S: Final = 1.0
HINT: Final = "; hint: "
"""What stands between message and hint on the wire; a client splits there."""


def status_of(error: JandError) -> int:
    return STATUS.get(error.code, 500)


def find_type(status: int) -> str:
    return TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def encode_error(error: JandError) -> bytes:
    """Return *error* in the contract's shape, as ASCII JSON (a name from a broken file system may hold what UTF-8 cannot)."""
    hint = error.hint or near_hint(error)
    return json.dumps(
        {
            "error": {
                "message": f"{error.message}{HINT}{hint}" if hint else error.message,
                "type": find_type(status_of(error)),
                "param": error.param,
                "code": error.code,
            }
        }
    ).encode()


def near_hint(error: JandError) -> str:
    near = error.facts.get("near")
    if not isinstance(error, ModelNotFoundError) or not isinstance(near, list | tuple) or not near:
        return ""
    return f"did you mean {' or '.join(json.dumps(str(name)) for name in near)}?"


def answer_error(error: JandError) -> web.Response:
    status = status_of(error)
    response = web.Response(status=status, body=encode_error(error), content_type="application/json")
    if status in {429, 503}:
        seconds = DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        response.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    elif status in {409, 500}:
        # OpenAI's clients repeat these otherwise, and a failed start costs a load each time.
        response.headers["x-should-retry"] = "false"
    if isinstance(error, MethodNotAllowedError):
        response.headers["Allow"] = ", ".join(sorted(str(method) for method in _allowed(error)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BodyTooLargeError):
        # The rest of the body is not worth reading.
        response.force_close()
    return response


def _allowed(error: MethodNotAllowedError) -> list[object]:
    allowed = error.facts.get("allowed")
    return list(allowed) if isinstance(allowed, list | tuple | set | frozenset) else []


def unexpected(error: BaseException | None, *, method: str, path: str) -> JandError:
    """Log *error* with its traceback and return what the client is told of it."""
    fault = secrets.token_hex(6)
    log.error("request failed unexpectedly", id=fault, method=method, path=path, exc_info=error)
    return JandError(
        f"cannot answer: something unexpected went wrong here (id {fault})", hint="the log has more under this id"
    )


def translate(error: web.HTTPException, request: web.Request) -> JandError:
    """Return what aiohttp's own answer means in our terms."""
    what = f"{request.method} {request.path[:200]}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowedError(
            f"cannot {what}: this path takes {allowed}",
            hint="see GET /openapi.json",
            allowed=sorted(error.allowed_methods),
        )
    if isinstance(error, web.HTTPNotFound):
        return UnknownRouteError(f"cannot {what}: there is no such path", hint="see GET /openapi.json")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLargeError(f"cannot {what}: the body is too large")
    if error.status < 500:
        return BadRequestError(f"cannot {what}: {error.reason}")
    return unexpected(error, method=request.method, path=request.path)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into the one shape."""
    try:
        return await handler(request)
    except Exception as error:
        if is_gone(request):
            raise ConnectionResetError("the client went away") from error
        told = as_ours(error, request)
        if request.writer.output_size:
            # An answer has begun: a second one after it would be read as its content. A broken connection is the one honest end.
            abort(request)
            raise ConnectionResetError("the answer broke off") from error
        return answer_error(told)


def as_ours(error: Exception, request: web.Request) -> JandError:
    match error:
        case JandError() if type(error) is not JandError:
            return error
        case web.HTTPException():
            return translate(error, request)
        case web.RequestPayloadError():
            cause = str(error).rpartition("message:")[2].strip()
            return BadRequestError(f"cannot read the body: {cause}", hint="is it packed as its Content-Encoding says?")
        case _ if is_out_of_memory(error):
            log.error("request refused", method=request.method, path=request.path, reason=lack_of_memory())
            return NoRoomError(f"cannot answer: {lack_of_memory()}", hint=MEMORY_HINT)
        case _:
            return unexpected(error, method=request.method, path=request.path)


def is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def abort(request: web.Request) -> None:
    """End the connection at once, so that the client sees that the answer is not whole."""
    if request.transport is not None:
        request.transport.abort()
