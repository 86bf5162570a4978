"""A provider that speaks OpenAI's dialect and both of Azure's, on a port of its own: with their answers, their errors, and whatever fault a test orders.

Paths tell the dialects apart, as the real ones do: `/v1/...`, `/openai/deployments/{name}/...?api-version=`, `/openai/v1/...`. What it was sent is kept in *requests*.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.provider_answers import (
    azure_error,
    chat_answer,
    chat_events,
    embeddings_answer,
    openai_error,
    refuse_fields,
    response_answer,
    response_events,
    text_answer,
    text_events,
)
from tests.fakes.upstream import Exchange, Request, answer_json, read_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.fakes.upstream import Behaviour

KEY = "sk-proj-stand-in-0123456789abcdef"
AZURE_KEY = "0fedcba9876543210fedcba987654321"
API_VERSION = "2024-10-21"
DEPLOYMENT = "gpt4-turbo"
MODELS = ("gpt-4o-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "org/model")
VECTOR = (0.25, -0.5, 0.125)


@dataclass
class Style:
    """How streams come: in pieces of *cut* bytes (0: an event each), with these line ends, the first byte after *delay_s*. Pages of models wait for *hold_pages*."""

    cut: int = 0
    newline: bytes = b"\n"
    delay_s: float = 0.0
    hold_pages: asyncio.Event | None = None


class FakeProvider:
    """Use as an async context manager. `next` orders what happens to the requests that follow, one each; *style* says how streams come."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.exchanges: list[Exchange] = []
        self.style = Style()
        self.keys = {KEY}
        self.azure_keys = {AZURE_KEY}
        self.lists_models = True
        self.port = 0
        self._orders: list[Behaviour] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def next(self, *behaviours: Behaviour) -> None:
        """Answer the next requests for inference so."""
        self._orders += behaviours

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    @property
    def inferences(self) -> list[Request]:
        """The requests that were meant to be answered by a model: not those of a check."""
        return [request for request in self.requests if request.method == "POST" and len(request.json) > 1]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        """Stop listening and end every connection, as a provider does whose machine goes away."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (request := await read_request(reader)) is not None:
                    self.requests.append(request)
                    exchange = Exchange(request, reader, writer)
                    self.exchanges.append(exchange)
                    await self._answer(exchange)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.request.path)
        behave = self._refuse_key(exchange.request, url.path) or self._route(exchange.request, url.path, url.query)
        if exchange.request in self.inferences and self._orders:
            behave = self._orders.pop(0)
        if exchange.request.method == "GET" and self.style.hold_pages is not None:
            await self.style.hold_pages.wait()
        await behave(exchange)

    # Who may ask.

    def _refuse_key(self, request: Request, path: str) -> Behaviour | None:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        bearer = bearer if scheme == "Bearer" else ""
        if not path.startswith("/openai/"):
            return None if bearer in self.keys else openai_error(401, wrong_key(bearer), "invalid_api_key")
        given = {request.headers.get("api-key", "")}
        if path.startswith("/openai/v1/") or bearer.startswith("eyJ"):
            # The dated API takes a key as `api-key` alone; any bearer is an Entra token there.
            given.add(bearer)
        return None if given & self.azure_keys else azure_error(401, "401", WRONG_AZURE_KEY)

    # What is asked.

    def _route(self, request: Request, path: str, query: str) -> Behaviour:
        if path.startswith("/openai/deployments/"):
            _, _, _, deployment, tail = path.split("/", 4)
            return self._deployed(request, unquote(deployment), tail, query)
        if path.startswith("/openai/v1/"):
            return self._azure_v1(request, path.removeprefix("/openai/v1/"))
        if path.startswith("/openai/"):
            return self._dated(request, path.removeprefix("/openai/"), query)
        if path.startswith("/v1/"):
            return self._openai(request, path.removeprefix("/v1/"))
        return openai_error(404, f"Invalid URL ({request.method} {path})", None)

    def _deployed(self, request: Request, deployment: str, tail: str, query: str) -> Behaviour:
        if parse_qs(query).get("api-version") != [API_VERSION]:
            return azure_error(404, "404", "Resource not found")
        if deployment != DEPLOYMENT:
            return azure_error(404, "DeploymentNotFound", NO_DEPLOYMENT)
        return self._infer(request, tail, azure=True)

    def _dated(self, request: Request, tail: str, query: str) -> Behaviour:
        if parse_qs(query).get("api-version") != [API_VERSION] or tail != "responses":
            return azure_error(404, "404", "Resource not found")
        if request.json.get("model") != DEPLOYMENT:
            return azure_error(404, "DeploymentNotFound", NO_DEPLOYMENT)
        return self._infer(request, tail, azure=True)

    def _azure_v1(self, request: Request, tail: str) -> Behaviour:
        if request.json.get("model") != DEPLOYMENT:
            return azure_error(404, "DeploymentNotFound", NO_DEPLOYMENT)
        return self._infer(request, tail, azure=True)

    def _openai(self, request: Request, tail: str) -> Behaviour:
        if request.method == "GET":
            return self._models(unquote(tail))
        if request.body and request.json and request.json.get("model") not in MODELS:
            message = f"The model `{request.json.get('model')}` does not exist or you do not have access to it."
            return openai_error(404, message, "model_not_found")
        return self._infer(request, tail, azure=False)

    def _models(self, tail: str) -> Behaviour:
        entries = {name: {"id": name, "object": "model", "created": 1, "owned_by": "stand-in"} for name in MODELS}
        if not self.lists_models:
            return answer_json({"detail": "Not Found"}, 404)
        if tail == "models":
            return answer_json({"object": "list", "data": list(entries.values())})
        name = tail.removeprefix("models/")
        if name in entries:
            return answer_json(entries[name])
        return openai_error(404, f"The model '{name}' does not exist", "model_not_found")

    def _infer(self, request: Request, tail: str, *, azure: bool) -> Behaviour:
        body = request.json
        if refused := refuse_fields(body, tail, azure=azure):
            return refused
        stream = bool(body.get("stream"))
        match tail:
            case "chat/completions":
                return self._streamed(chat_events(body, azure=azure)) if stream else chat_answer(body, azure=azure)
            case "completions":
                return self._streamed(text_events(body)) if stream else text_answer(body)
            case "responses":
                return self._streamed(response_events(body)) if stream else response_answer(body)
            case "embeddings":
                return embeddings_answer(body, encoded(body))
            case _:
                return openai_error(404, f"Invalid URL (POST /{tail})", None)

    def _streamed(self, events: list[bytes]) -> Behaviour:
        async def behave(exchange: Exchange) -> None:
            await asyncio.sleep(self.style.delay_s)
            await exchange.begin(headers={"Content-Type": "text/event-stream", "x-request-id": "req_1"})
            for piece in self.pieces(events):
                await exchange.send(piece)
            await exchange.end()

        return behave

    def pieces(self, events: list[bytes]) -> list[bytes]:
        """Lay out *events* as *style* says."""
        framed = [self.style.newline.join([b"data: " + data, b"", b""]) for data in events]
        if not self.style.cut:
            return framed
        whole = b"".join(framed)
        return [whole[at : at + self.style.cut] for at in range(0, len(whole), self.style.cut)]


WRONG_AZURE_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct"
    " regional API endpoint for your resource."
)
NO_DEPLOYMENT = "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again."


def wrong_key(given: str) -> str:
    """Say what OpenAI says; unlike OpenAI it repeats the whole key, as some gateways do."""
    if not given:
        return "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
    return f"Incorrect API key provided: {given}. You can find your API key at https://platform.openai.com/account/api-keys."


def encoded(body: dict[str, Any]) -> Any:
    """Return the vector as a request wants it: OpenAI's client asks for base64."""
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    return list(VECTOR)


# -- faults -----------------------------------------------------------------------------------------------------------


def too_many_requests(**headers: str) -> Behaviour:
    """Give underscores in names of headers for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai_error(429, "Rate limit reached for requests", "rate_limit_exceeded", headers=named)


def gateway_page(status: int, **headers: str) -> Behaviour:
    """Answer as a gateway does whose server is gone: with a page."""
    title = f"{status} {HTTPStatus(status).phrase}"
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1><hr>nginx</body></html>".encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(status, {"Content-Type": "text/html", **named}, length=len(page))
        await exchange.send(page)

    return behave


def redirect_to(url: str, status: int = 307) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin(status, {"Location": url}, length=0)

    return behave


def drop_connection() -> Behaviour:
    """Close the connection without a word."""

    async def behave(exchange: Exchange) -> None:
        exchange.die()

    return behave


def stream_then(
    events: list[bytes], then: Callable[[Exchange], Awaitable[None]], *, length: int | None = None
) -> Behaviour:
    """Begin a stream of *events* and go on with *then*."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "text/event-stream"}, length=length)
        for data in events:
            await exchange.send(b"data: " + data + b"\n\n")
        await then(exchange)

    return behave


def die_mid_stream(events: list[bytes]) -> Behaviour:
    """Send *events*, half of another one, and break off."""

    async def then(exchange: Exchange) -> None:
        await exchange.send(b'data: {"id": "chatcmpl-1", "cho')
        exchange.die()

    return stream_then(events, then)


def fail_mid_stream(events: list[bytes]) -> Behaviour:
    """Send *events* and then an error as an event, as Azure does."""
    error = {"error": {"message": "The server had an error", "type": "server_error", "param": None, "code": None}}

    async def then(exchange: Exchange) -> None:
        await exchange.send(b"data: " + json.dumps(error).encode() + b"\n\n")
        await exchange.end()

    return stream_then(events, then)


def stream_until_left(events: list[bytes]) -> Behaviour:
    """Send *events* and then nothing until the other side goes."""

    async def then(exchange: Exchange) -> None:
        await exchange.wait_left()

    return stream_then(events, then)


def say_nothing() -> Behaviour:
    """Take the request and never answer it."""

    async def behave(exchange: Exchange) -> None:
        await exchange.wait_left()

    return behave
