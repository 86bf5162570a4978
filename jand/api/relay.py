"""One request to a worker or provider and its answer back, byte for byte and piece by piece as it comes.

A client that goes away cancels the handler, and so the connection to the upstream ends at once, which ends the generation. Of a stream of events only whole ones
are passed on, so that what breaks off in the middle of one can still be ended by an error event that a client can read.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict

from jand import outflow
from jand.api import sse
from jand.api.drain import stopping
from jand.api.errors import encode_error
from jand.engine.line import CannotConnectError
from jand.errors import JandError, UpstreamError

if TYPE_CHECKING:
    from jand.api.drain import Drain
    from jand.api.ports import Upstream
    from jand.lifecycle.running import Answer
    from jand.lifecycle.tally import Tally
    from jand.outflow import Outflow

log = structlog.get_logger(__name__)

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
            if answer.content_type == EVENT_STREAM:
                await self._pass_events(answer, response)
            else:
                await response.prepare(self._request)
                await self._pass_bytes(answer, response)
        finally:
            # Whoever leaves before the end leaves a connection that no other request can use.
            if answer.content.at_eof():
                answer.release()
            else:
                answer.close()
        return response

    async def _ask(self, path: str, body: bytes) -> Answer:
        headers: dict[str, str] = {
            hdrs.CONTENT_TYPE: "application/json",
            hdrs.ACCEPT: self._request.headers.get(hdrs.ACCEPT, "*/*"),
            hdrs.ACCEPT_ENCODING: "identity",
        }
        try:
            answer = await self._upstream.ask(path, body, headers)
        except FAILURES as error:
            raise self._failure("cannot reach", error) from error
        if 300 <= answer.status < 400:
            answer.close()
            message = f'cannot use "{self._model}": what should answer sends us elsewhere (status {answer.status})'
            raise UpstreamError(message, hint=self._hint())
        return answer

    def _passed_on(self, answer: Answer) -> CIMultiDict[str]:
        """Return the headers of the answer that are meant for the client."""
        named = {name.strip().lower() for name in answer.headers.get(hdrs.CONNECTION, "").split(",")}
        dropped = HOP_BY_HOP | OURS | named
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

    async def _pass_bytes(self, answer: Answer, response: web.StreamResponse) -> None:
        while chunk := await self._next(answer):
            await response.write(chunk)
        await response.write_eof()

    async def _pass_events(self, answer: Answer, response: web.StreamResponse) -> None:
        events = Events(await outflow.begin(self._request, response))
        try:
            events.write(await self._next(answer))
            await answer.content.pour(events)
            events.end()
        except UpstreamError as error:
            await self._end_with(error, response, between=events.between)
        except FAILURES as error:
            await self._end_with(self._failure("cannot go on with", error), response, between=events.between)
        except asyncio.CancelledError:
            if not self._drain.was_cut():
                raise
            await self._end_with(stopping(), response, between=events.between)
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
        return UpstreamError(message, hint=self._hint())

    def _hint(self) -> str:
        return f"see its error: jand show {self._model}"


class Events:
    """Takes a stream in pieces of any size and passes on whole events; *between* says whether the last one that was passed on was whole."""

    def __init__(self, out: Outflow) -> None:
        self.between = True
        self._out = out
        self._held = b""

    @property
    def is_full(self) -> bool:
        return self._out.is_full

    def write(self, piece: bytes) -> None:
        held = self._held + piece if self._held else piece
        if held.endswith(sse.ENDS) or len(held) > MAX_HELD:
            whole, self._held = held, b""
        else:
            whole, self._held = sse.split_whole(held)
        if whole:
            self.between = whole.endswith(sse.ENDS)
            self._out.write(whole)

    def end(self) -> None:
        """Pass on what is left, which no empty line follows."""
        if self._held:
            self._out.write(self._held)

    async def drained(self) -> None:
        await self._out.drained()


def find_cause(error: BaseException) -> str:
    """Say what happened, without addresses or anything else that the foreign error may carry."""
    match error:
        case TimeoutError():
            return "did not answer in time"
        case CannotConnectError():
            return f"cannot be reached ({error})"
        case _:
            return "closed the connection"
