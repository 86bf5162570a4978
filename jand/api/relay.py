"""One request to a worker or provider and its answer back, byte for byte and piece by piece as it comes.

A client that goes away cancels the handler, and so the connection to the upstream ends at once, which ends the generation. Of a stream of events only whole ones
are passed on, so that what breaks off in the middle of one can still be ended by an error event that a client can read.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from jand.api import sse
from jand.api.drain import stopping
from jand.api.errors import encode_error
from jand.errors import JandError, UpstreamError

if TYPE_CHECKING:
    from jand.api.drain import Drain
    from jand.api.ports import Upstream
    from jand.lifecycle.running import Answer
    from jand.lifecycle.tally import Tally

log = structlog.get_logger(__name__)

TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)
"""An answer may take as long as it takes; a connection may not."""

FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError)

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
OURS: Final = frozenset({"set-cookie", "server", "date", "alt-svc", "strict-transport-security"})
"""What an upstream says of itself and not of the answer; CORS headers (`access-control-*`) besides."""

EVENT_STREAM: Final = "text/event-stream"
MAX_HELD: Final = 64 * 1024
"""Bytes of one unfinished event that are held back; a longer one is passed on in pieces."""


class Relay:
    """One request on its way; *model* is its name in messages, *began* when it came, on the monotonic clock."""

    def __init__(
        self, request: web.Request, upstream: Upstream, *, model: str, began: float, drain: Drain, tally: Tally
    ) -> None:
        self._request = request
        self._upstream = upstream
        self._model = model
        self._began = began
        self._drain = drain
        self._tally = tally
        self._counted = False

    async def run(self, path: str, body: bytes) -> web.StreamResponse:
        """Answer the request for *path* from the upstream.

        Raises UpstreamError where nothing has been answered yet, and, so that the connection is broken off, where an answer that is no stream cannot be finished.
        """
        answer = await self._ask(path, body)
        try:
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=self._passed_on(answer))
            await response.prepare(self._request)
            if answer.content_type == EVENT_STREAM:
                await self._pass_events(answer, response)
            else:
                await self._pass_bytes(answer, response)
        finally:
            # Whoever leaves before the end leaves a connection that no other request can use.
            if answer.content.at_eof():
                answer.release()
            else:
                answer.close()
        return response

    async def _ask(self, path: str, body: bytes) -> Answer:
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.ACCEPT: self._request.headers.get(hdrs.ACCEPT, "*/*"),
            hdrs.ACCEPT_ENCODING: "identity",
            **self._upstream.headers,
        }
        if self._upstream.ask is not None:
            return await self._upstream.ask(path, body, headers)
        try:
            answer = await self._upstream.session.post(
                target(self._upstream.url, path),
                data=io.BytesIO(body),
                headers=headers,
                timeout=TIMEOUT,
                allow_redirects=False,
            )
        except (*FAILURES, RuntimeError) as error:
            # A RuntimeError says that the session was closed: the model was stopped before our first byte.
            raise self._failure("cannot reach", error) from error
        if 300 <= answer.status < 400:
            answer.close()
            message = f'cannot use "{self._model}": what should answer sends us elsewhere (status {answer.status})'
            raise UpstreamError(message, hint="correct the origin in its JSON")
        return answer

    def _passed_on(self, answer: Answer) -> CIMultiDict[str]:
        """Return the headers of the answer that are meant for the client."""
        named = {name.strip().lower() for name in answer.headers.get(hdrs.CONNECTION, "").split(",")}
        unpacked = {"content-encoding", "content-length"} if self._is_unpacked(answer) else set()
        dropped = HOP_BY_HOP | OURS | named | unpacked
        headers = CIMultiDict(
            (name, value)
            for name, value in answer.headers.items()
            if name.lower() not in dropped and not name.lower().startswith("access-control-")
        )
        if answer.content_type == EVENT_STREAM:
            headers.pop(hdrs.CONTENT_LENGTH, None)
            for name, value in sse.HEADERS.items():
                headers.setdefault(name, value)
        return headers

    def _is_unpacked(self, answer: Answer) -> bool:
        return self._upstream.session.auto_decompress and hdrs.CONTENT_ENCODING in answer.headers

    async def _pass_bytes(self, answer: Answer, response: web.StreamResponse) -> None:
        while chunk := await self._next(answer):
            await response.write(chunk)
        await response.write_eof()

    async def _pass_events(self, answer: Answer, response: web.StreamResponse) -> None:
        held = b""
        between = True
        try:
            while chunk := await self._next(answer):
                held += chunk
                if held.endswith(sse.ENDS) or len(held) > MAX_HELD:
                    whole, held = held, b""
                else:
                    whole, held = sse.split_whole(held)
                if whole:
                    between = whole.endswith(sse.ENDS)
                    await response.write(whole)
            if held:
                await response.write(held)
        except UpstreamError as error:
            await self._end_with(error, response, between=between)
        except asyncio.CancelledError:
            if not self._drain.was_cut():
                raise
            await self._end_with(stopping(), response, between=between)
        await response.write_eof()

    async def _end_with(self, error: JandError, response: web.StreamResponse, *, between: bool) -> None:
        """Tell the client of *error* as the last event; in the middle of one it could not be read, so there the connection breaks."""
        if not between:
            raise error
        response.force_close()
        await response.write(sse.frame(encode_error(error)))

    async def _next(self, answer: Answer) -> bytes:
        """Return the next piece, as soon as it is there; empty at the end."""
        try:
            piece = await answer.content.readany()
        except FAILURES as error:
            raise self._failure("cannot go on with", error) from error
        if not self._counted:
            self._counted = True
            waited, stream = time.monotonic() - self._began, answer.content_type == EVENT_STREAM
            self._tally.answered(self._upstream.model_id, status=answer.status, stream=stream, first_byte_s=waited)
        return piece

    def _failure(self, what: str, error: BaseException) -> UpstreamError:
        cause = find_cause(error)
        log.warning("upstream failed", model=self._model, reason=cause, error=type(error).__name__)
        message = f'{what} the answer of "{self._model}": its worker or provider {cause}'
        return UpstreamError(message, hint=f"see its error: jand show {self._model}")


def find_cause(error: BaseException) -> str:
    """Say what happened, without addresses or anything else that the foreign error may carry."""
    match error:
        case TimeoutError():
            return "did not answer in time"
        case aiohttp.ClientConnectorError():
            return f"cannot be reached ({os.strerror(error.os_error.errno or 0)})"
        case _:
            return "closed the connection"


def target(url: str, path: str) -> URL:
    """Return where *path* of our API is at *url*: a bare server speaks the API as we do, a url with a path of its own stands for `/v1`. Its query stays."""
    base = URL(url, encoded=True)
    before = base.raw_path.rstrip("/")
    return base.with_path(before + path.removeprefix("/v1") if before else path, encoded=True, keep_query=True)
