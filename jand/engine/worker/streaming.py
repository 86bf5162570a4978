"""From the deltas of answers to the bytes of a stream of events. All of it runs in the turn of the loop in which the news come: no task wakes up for a token."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Protocol

from jand.engine.worker import wire
from jand.errors import EngineError, JandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.engine.worker.answer import Answer, Delta
    from jand.engine.worker.response import Event
    from jand.engine.worker.service import Completion, Responding


class News:
    """The deltas of *answers*, in the order in which they come; one task at a time may wait."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = answers
        self._held: list[tuple[int, Delta]] = []
        self._take: Callable[[int, Delta], None] | None = None
        self._came = asyncio.Event()
        for index, answer in enumerate(answers):
            answer.listen(functools.partial(self._hear, index))

    async def first(self) -> None:
        """Return when the first delta has come, which `each` will give; raises its error, where it is one."""
        await self._came.wait()
        if (error := self._held[0][1].error) is not None:
            raise error

    async def each(self, take: Callable[[int, Delta], bool], *, straight: bool = False) -> None:
        """Give *take* the index of the answer and the delta, for each that has come or comes, until it returns true. What it raises comes out here.

        *straight*: further ones are taken on the engine's thread, for which no other thread has to wake up; there must be one answer alone.
        """
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        over = False

        def give(index: int, delta: Delta) -> None:
            nonlocal over
            if over or ended.done():
                return
            failure: Exception | None = None
            try:
                over = take(index, delta)
            except Exception as error:
                over, failure = True, error
            if over:
                loop.call_soon_threadsafe(_end, ended, failure)

        self._take = give
        for index, delta in self._held:
            give(index, delta)
        self._held.clear()
        try:
            if straight:
                (answer,) = self._answers
                answer.send_by(functools.partial(give, 0))
            await ended
        finally:
            if straight:
                self._answers[0].send_by(None)

    def _hear(self, index: int, delta: Delta) -> None:
        if self._take is not None:
            self._take(index, delta)
        else:
            self._held.append((index, delta))
            self._came.set()


def _end(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


class Pages(Protocol):
    """Makes the bytes of one stream; *ended* is true when its last ones are made."""

    ended: bool

    def page(self, index: int, delta: Delta) -> bytes:
        """Return what *delta* adds, which may be nothing."""


class CompletionPages:
    """OpenAI's chunks up to [DONE]; an error in the middle is the last event."""

    def __init__(self, completion: Completion) -> None:
        self.ended = False
        self._completion = completion
        self._shape = completion.shape
        self._begun: set[int] = set()
        self._going = len(completion.answers)

    def page(self, index: int, delta: Delta) -> bytes:
        if delta.error is not None:
            self.ended = True
            return wire.event(wire.error_body(_told(delta.error)))
        data = b"" if index in self._begun else self._begin(index)
        plain = None if delta.logprobs or not delta.text else self._shape.text_event(index, delta.text)
        if plain is not None:
            data += plain
        elif delta.text or delta.logprobs:
            logprobs = delta.logprobs if self._completion.wants_logprobs else None
            for chunk in self._shape.delta(index, delta.text, logprobs):
                data += wire.event(chunk)
        return data if delta.finish is None else data + self._end(index, delta.finish)

    def _begin(self, index: int) -> bytes:
        self._begun.add(index)
        first = self._shape.first(index)
        return b"" if first is None else wire.event(first)

    def _end(self, index: int, finish: str) -> bytes:
        data = b"".join(wire.event(chunk) for chunk in self._shape.last(index, finish))
        self._going -= 1
        if self._going:
            return data
        self.ended = True
        if self._completion.include_usage:
            usages = [answer.usage for answer in self._completion.answers]
            usage = wire.usage_of(usages, self._completion.choices)
            data += wire.event(self._shape.closing(usage, usages[0].timings()))
        return data + wire.DONE


class ResponsePages:
    """A response's events: OpenAI names each one's type before it, and there is no [DONE]."""

    def __init__(self, responding: Responding) -> None:
        self.ended = False
        self._responding = responding
        self._begun = False

    def page(self, index: int, delta: Delta) -> bytes:
        made = [] if self._begun else self._responding.shape.begin()
        self._begun = True
        if delta.error is None:
            made += response_events(self._responding, delta)
        else:
            made += self._responding.shape.fail(_told(delta.error).message)
        self.ended = delta.error is not None or delta.finish is not None
        return b"".join(f"event: {event['type']}\n".encode() + wire.event(event) for event in made)


def response_events(responding: Responding, delta: Delta) -> list[Event]:
    """Return a response's own events for *delta*, which is no error."""
    usage = responding.answers[0].usage
    made = responding.shape.feed(delta.text)
    if delta.finish is not None:
        made += responding.shape.end(delta.finish, wire.usage_of([usage], 1), usage.timings())
    return made


def _told(error: Exception) -> JandError:
    return error if isinstance(error, JandError) else EngineError("cannot finish the answer")
