"""From the deltas of answers to the bytes of a stream of events, a piece for each step of the engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from jand.engine.worker import wire
from jand.errors import EngineError, JandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.engine.worker.answer import Answer, Delta
    from jand.engine.worker.response import Event
    from jand.engine.worker.service import Completion, Responding


async def pages(completion: Completion, events: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
    """Yield a stream's bytes, up to [DONE]; an error in the middle is the last event."""
    begun: set[int] = set()
    async for index, news in events:
        if news.error is not None:
            yield wire.event(wire.error_body(_told(news.error)))
            return
        yield _events_of(completion, index, news, begun)
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


async def response_pages(responding: Responding, events: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
    """Yield the bytes of a response's stream: OpenAI names each event's type before it, and there is no [DONE]."""
    yield _named(responding.shape.begin())
    try:
        async for made in response_events(responding, events):
            yield _named(made)
    except Exception as error:
        yield _named(responding.shape.fail(_told(error).message))


async def response_events(
    responding: Responding, events: AsyncIterator[tuple[int, Delta]]
) -> AsyncIterator[list[Event]]:
    """Yield a response's own events for each delta; raises the error of the answer."""
    usage = responding.answers[0].usage
    async for _, news in events:
        if news.error is not None:
            raise news.error
        made = responding.shape.feed(news.text)
        if news.finish is not None:
            made += responding.shape.end(news.finish, wire.usage_of([usage], 1), usage.timings())
        yield made


def _named(events: list[Event]) -> bytes:
    return b"".join(f"event: {event['type']}\n".encode() + wire.event(event) for event in events)


def _told(error: Exception) -> JandError:
    return error if isinstance(error, JandError) else EngineError("cannot finish the answer")


async def chain(first: tuple[int, Delta], rest: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[tuple[int, Delta]]:
    yield first
    async for each in rest:
        yield each


async def merge(answers: tuple[Answer, ...]) -> AsyncIterator[tuple[int, Delta]]:
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
