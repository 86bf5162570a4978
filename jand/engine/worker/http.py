"""HTTP/1.1 on the worker's own Unix socket: OpenAI's paths, health and metrics. It answers its own errors; the daemon only relays."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from jand import outflow
from jand.engine.worker import streaming, wire
from jand.engine.worker.straight import Straight
from jand.errors import BadRequestError, EngineError, JandError

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from jand.engine.worker.answer import Answer, Delta, TokenLogprob
    from jand.engine.worker.embeddings import Embeddings
    from jand.engine.worker.service import Completion, Service
    from jand.engine.worker.streaming import Pages
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
    app.router.add_post("/v1/responses", routes.respond)
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

    async def respond(self, request: web.Request) -> web.StreamResponse:
        responding = await self._service.respond(await request.read())
        try:
            if responding.stream:
                return await _send(request, responding.answers, streaming.ResponsePages(responding))
            await _collect(responding.answers, lambda _, delta: streaming.response_events(responding, delta))
            return web.json_response(responding.shape.response)
        finally:
            self._service.cancel(responding)

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
            "n_tokens_max": counters.most_tokens,
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
                return await _send(request, completion.answers, streaming.CompletionPages(completion))
            return await self._whole(completion)
        finally:
            self._service.cancel(completion)

    async def _whole(self, completion: Completion) -> web.Response:
        texts: list[list[str]] = [[] for _ in completion.answers]
        logprobs: list[list[TokenLogprob]] = [[] for _ in completion.answers]
        finishes = [""] * len(completion.answers)

        def take(index: int, delta: Delta) -> None:
            texts[index].append(delta.text)
            logprobs[index].extend(delta.logprobs)
            finishes[index] = delta.finish or ""

        await _collect(completion.answers, take)
        choices = [
            completion.shape.choice(index, "".join(text), logprob if completion.wants_logprobs else None, finish)
            for index, (text, logprob, finish) in enumerate(zip(texts, logprobs, finishes, strict=True))
        ]
        usages = [answer.usage for answer in completion.answers]
        return web.json_response(
            completion.shape.whole(choices, wire.usage_of(usages, completion.choices), usages[0].timings())
        )


async def _collect(answers: tuple[Answer, ...], take: Callable[[int, Delta], object]) -> None:
    """Give *take* every delta of *answers*, to the end of all; raises the error of one."""
    going = len(answers)

    def hear(index: int, delta: Delta) -> bool:
        nonlocal going
        if delta.error is not None:
            raise delta.error
        take(index, delta)
        going -= delta.finish is not None
        return not going

    await streaming.News(answers).each(hear)


async def _send(request: web.Request, answers: tuple[Answer, ...], pages: Pages) -> web.StreamResponse:
    """Send events; headers wait for the first token, so that an error before it still has its status."""
    news = streaming.News(answers)
    await news.first()
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    with contextlib.suppress(ConnectionError):
        async with Straight(await outflow.begin(request, response)) as out:

            def hear(index: int, delta: Delta) -> bool:
                if page := pages.page(index, delta):
                    out.write(page)
                return pages.ended

            await news.each(hear, straight=len(answers) == 1)
        await response.write_eof()
    return response
