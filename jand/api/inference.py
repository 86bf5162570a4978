"""The inference API: finds the model that a request names, makes sure that it runs, and relays. What else stands in the body is for the worker to judge."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

from jand.api.durations import parse_duration
from jand.api.relay import Relay
from jand.api.route import read_body
from jand.errors import BadJsonError, BadRequestError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from jand.api.route import Call
    from jand.api.schemas import Nothing

LARGE: Final = 256 * 1024
"""Bytes of JSON above which it is read in a thread: about 2 ms of the event loop otherwise."""


async def chat_completions(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/chat/completions")


async def completions(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/completions")


async def embeddings(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/embeddings")


async def deployed_chat_completions(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/chat/completions", deployment=call.id)


async def deployed_completions(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/completions", deployment=call.id)


async def deployed_embeddings(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/embeddings", deployment=call.id)


async def responses(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/responses")


async def azure_responses(call: Call[Nothing, Nothing]) -> web.StreamResponse:
    return await infer(call, "/v1/responses")


async def infer(call: Call[Nothing, Nothing], path: str, *, deployment: str = "") -> web.StreamResponse:
    """Answer from the model that the body names, or from *deployment*: a path of Azure's names the model, and its bodies need not."""
    began = time.monotonic()
    if deployment:
        call.shared.manager.get(deployment)
    body = await read_body(call.request, call.shared.settings.max_inference_body)
    content = await run(parse_object, body)
    wanted = deployment or get_model(content)
    keep_alive_s = parse_duration(content.get("keep_alive"), param="keep_alive")
    try:
        body = await with_images(call, wanted, content, body)
        async with call.shared.manager.use(wanted, keep_alive_s=keep_alive_s) as upstream:
            if deployment or upstream.model_id != wanted:
                body = await run(rename, body, content, upstream.model_id)
            # Nobody needs it while the answer lasts, and it may be large.
            content.clear()
            relay = Relay(
                call.request,
                upstream,
                model=wanted,
                began=began,
                drain=call.shared.drain,
                tally=call.shared.manager.tally,
            )
            return await relay.run(path, body)
    except ModelNotFoundError as error:
        error.param = error.param or "model"
        raise


async def with_images(call: Call[Nothing, Nothing], model: str, content: dict[str, Any], body: bytes) -> bytes:
    """Return *body*, which was read as *content*, with the images in it that are named by address, where they are fetched and the model is local."""
    images = call.shared.images
    if images is None or call.shared.manager.get(model).spec.is_remote or not await images.put_in(content):
        return body
    return (await asyncio.to_thread(json.dumps, content)).encode()


def get_model(content: Mapping[str, Any]) -> str:
    """Return what a body names as its model. Raises BadRequestError."""
    model = content.get("model")
    if not isinstance(model, str) or not model:
        missing = "it is missing" if model is None else "it is no text"
        raise BadRequestError(
            f"cannot use model: {missing}", hint="give the id of a model of GET /v1/models", param="model"
        )
    return model


async def run(work: Any, body: bytes, *more: object) -> Any:
    """Do *work* on *body*, in a thread where it is large."""
    return await asyncio.to_thread(work, body, *more) if len(body) > LARGE else work(body, *more)


def parse_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body.decode())
    except UnicodeDecodeError as error:
        raise BadJsonError(f"cannot read the body as JSON: it is no UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadJsonError(f"cannot read the body as JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        # A number of more than 4,300 digits, or brackets nested more than about 1,000 deep.
        raise BadJsonError(
            "cannot read the body as JSON: a number is too long or brackets are nested too deep"
        ) from error
    if not isinstance(content, dict):
        raise BadJsonError("cannot use the body: it is no JSON object")
    return content


def rename(body: bytes, content: Mapping[str, Any], model: str) -> bytes:
    """Return *body*, which was read as *content*, with *model* as its model."""
    return body if content.get("model") == model else json.dumps({**content, "model": model}).encode()
