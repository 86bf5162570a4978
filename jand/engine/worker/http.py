"""HTTP/1.1 on the worker's own Unix socket: OpenAI's paths, health and metrics. It answers its own errors; the daemon only relays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from jand.engine.worker import wire
from jand.errors import BadRequestError, EngineError, JandError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jand.engine.worker.answer import Answer, Delta, TokenLogprob
    from jand.engine.worker.embeddings import Embeddings
    from jand.engine.worker.service import Completion, Service
    from jand.engine.worker.turns import Turns

BODY_BYTES: Final = 64 << 20


@dataclass(slots=True)
class Served:
    """What this worker does: text, vectors, or both. They are put in after the socket listens and before the loop runs any handler."""

    turns: Turns
    completions: Service | None = None
    embeddings: Embeddings | None = None


def create_app(served: Served) -> web.Application:
    app = web.Application(client_max_size=BODY_BYTES, middlewares=[answer_errors])
    routes = Routes(served)
    app.router.add_post("/v1/chat/completions", routes.chat)
    app.router.add_post("/v1/completions", routes.complete)
    app.router.add_post("/v1/embeddings", routes.embed)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/metrics", routes.metrics)
    return app


async def listen(app: web.Application, bound: socket.socket) -> web.AppRunner:
    """Serve *app* on a socket that is bound already."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, bound, backlog=1024).start()
    return runner


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except JandError as error:
        return answer_error(error)
    except web.HTTPException as error:
        code = {404: "unknown-route", 405: "method-not-allowed", 413: "body-too-large"}.get(error.status, "bad-request")
        message = f"cannot {request.method} {request.path[:200]}: {error.reason}"
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        return web.json_response(body, status=error.status)
    except ConnectionError:
        raise
    except Exception as error:  # a fault of ours: its traceback is for the log alone
        traceback.print_exception(error)
        return answer_error(
            EngineError("cannot answer: something unexpected went wrong in the worker", hint="its log has more")
        )


def answer_error(error: JandError) -> web.Response:
    response = web.json_response(wire.error_body(error), status=wire.status_of(error))
    if response.status in {429, 503}:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s or 1)))
    return response


class Routes:
    def __init__(self, served: Served) -> None:
        self._served = served

    @property
    def _service(self) -> Service:
        if self._served.completions is None:
            raise BadRequestError("cannot complete: this model makes vectors and no text", param="model")
        return self._served.completions

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await self._service.chat(await request.read()))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await self._service.complete(await request.read()))

    async def embed(self, request: web.Request) -> web.Response:
        if self._served.embeddings is None:
            raise BadRequestError(
                "cannot embed: this model was not started for that",
                hint="set parameters.init.embedding to true in its JSON",
                param="model",
            )
        answer = await self._served.embeddings.answer(await request.read())
        return web.Response(body=json.dumps(answer), content_type="application/json")

    async def health(self, _: web.Request) -> web.Response:
        turns, completions = self._served.turns, self._served.completions
        age = time.monotonic() - turns.stepped_at if turns.active else 0.0
        answer = {"status": "ok", "active": turns.active, "queued": turns.queued, "step_age_s": round(age, 3)}
        if completions is not None:
            answer["cached_tokens"] = completions.engine.cached
        return web.json_response(answer)

    async def metrics(self, _: web.Request) -> web.Response:
        """Answer counters with the stems of llama-server's, so that its dashboards need little change."""
        turns, counters = self._served.turns, self._served.turns.counters
        values = {
            "requests_total": counters.requests,
            "requests_cancelled_total": counters.cancelled,
            "requests_failed_total": counters.failed,
            "prompt_tokens_total": counters.prompt_tokens,
            "prompt_tokens_cached_total": counters.cached_tokens,
            "prompt_seconds_total": counters.reading_s,
            "tokens_predicted_total": counters.generated_tokens,
            "tokens_predicted_seconds_total": counters.generating_s,
            "tokens_embedded_total": counters.embedded_tokens,
            "images_total": counters.images,
            "images_encoded_total": counters.images_encoded,
            "image_seconds_total": counters.images_s,
            "n_decode_total": counters.steps,
            "n_busy_slots_per_decode": counters.slot_steps / max(1, counters.steps),
            "requests_processing": turns.active,
            "requests_deferred": turns.queued,
        }
        lines = [
            f"# TYPE jand_{name} {'counter' if name.endswith('_total') else 'gauge'}\njand_{name} {value:g}\n"
            for name, value in values.items()
        ]
        return web.Response(text="".join(lines), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _answer(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        """Answer with *completion*; however this ends, a client that went away included, nothing goes on being generated for it."""
        try:
            if completion.stream:
                return await self._stream(request, completion)
            return await self._whole(completion)
        finally:
            self._service.cancel(completion)

    async def _whole(self, completion: Completion) -> web.Response:
        choices = [await self._gather(completion, index, answer) for index, answer in enumerate(completion.answers)]
        usages = [answer.usage for answer in completion.answers]
        return web.json_response(
            completion.shape.whole(choices, wire.usage_of(usages, completion.choices), usages[0].timings())
        )

    async def _gather(self, completion: Completion, index: int, answer: Answer) -> dict[str, object]:
        texts: list[str] = []
        logprobs: list[TokenLogprob] = []
        while True:
            delta = await answer.deltas.get()
            if delta.error is not None:
                raise delta.error
            texts.append(delta.text)
            logprobs.extend(delta.logprobs)
            if delta.finish is not None:
                return completion.shape.choice(
                    index, "".join(texts), logprobs if completion.wants_logprobs else None, delta.finish
                )

    async def _stream(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        """Send events; headers wait for the first token, so that an error before it still has its status."""
        events = _merge(completion.answers)
        index, delta = await anext(events)
        if delta.error is not None:
            raise delta.error
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for page in _pages(completion, index, delta, events):
                await response.write(page)
            await response.write_eof()
        return response


async def _pages(
    completion: Completion, index: int, delta: Delta, events: AsyncIterator[tuple[int, Delta]]
) -> AsyncIterator[bytes]:
    """Yield a stream's bytes, from the delta that came first to [DONE]; an error in the middle is the last event."""
    begun: set[int] = set()
    yield _events_of(completion, index, delta, begun)
    async for at, news in events:
        if news.error is not None:
            yield wire.event(wire.error_body(_told(news.error)))
            return
        yield _events_of(completion, at, news, begun)
    closing = b""
    if completion.include_usage:
        usages = [answer.usage for answer in completion.answers]
        closing = wire.event(completion.shape.closing(wire.usage_of(usages, completion.choices), usages[0].timings()))
    yield closing + wire.DONE


def _events_of(completion: Completion, index: int, delta: Delta, begun: set[int]) -> bytes:
    shape, data = completion.shape, b""
    if index not in begun:
        begun.add(index)
        if (first := shape.first(index)) is not None:
            data += wire.event(first)
    plain = None if delta.logprobs or not delta.text else shape.text_event(index, delta.text)
    if plain is not None:
        data += plain
    elif delta.text or delta.logprobs:
        for chunk in shape.delta(index, delta.text, delta.logprobs if completion.wants_logprobs else None):
            data += wire.event(chunk)
    if delta.finish is not None:
        for chunk in shape.last(index, delta.finish):
            data += wire.event(chunk)
    return data


def _told(error: Exception) -> JandError:
    return error if isinstance(error, JandError) else EngineError("cannot finish the answer")


async def _merge(answers: tuple[Answer, ...]) -> AsyncIterator[tuple[int, Delta]]:
    """Yield the deltas of all *answers* as they come; ends after the last one's last, or after an error."""
    if len(answers) == 1:
        while True:
            delta = await answers[0].deltas.get()
            yield 0, delta
            if delta.finish is not None or delta.error is not None:
                return
    waiting = {asyncio.ensure_future(answer.deltas.get()): (index, answer) for index, answer in enumerate(answers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                index, answer = waiting.pop(future)
                delta = future.result()
                yield index, delta
                if delta.error is not None:
                    return
                if delta.finish is None:
                    waiting[asyncio.ensure_future(answer.deltas.get())] = (index, answer)
    finally:
        for future in waiting:
            future.cancel()
