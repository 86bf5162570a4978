"""What stands between HTTP and the engine, on the event loop: requests become answers, deltas become choices."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jand.engine.worker import requests, respond, tools
from jand.engine.worker.answer import Answer, Wanted
from jand.engine.worker.content import read_messages
from jand.engine.worker.media import Read
from jand.engine.worker.notes import log_unknown, note
from jand.engine.worker.reading import THINK, Reader
from jand.engine.worker.requests import ChatRequest, CompletionRequest
from jand.engine.worker.response import ResponseShape
from jand.engine.worker.shapes import ChatShape, Shape, TextShape
from jand.engine.worker.tools import Family
from jand.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jand.engine.worker.content import Image
    from jand.engine.worker.engine import Engine
    from jand.engine.worker.prompts import Message, Prompt, Prompter
    from jand.engine.worker.tools import Offer
    from jand.engine.worker.turns import Turns
    from jand.engine.worker.vision import Vision
    from jand.engine.worker.weights import Weights


@dataclass(frozen=True, slots=True)
class Completion:
    """An accepted request: its answers are queued; *shape* says how they look. *wants_logprobs* is asked for each choice."""

    answers: tuple[Answer, ...]
    shape: Shape
    stream: bool
    include_usage: bool
    wants_logprobs: bool
    choices: int


@dataclass(frozen=True, slots=True)
class Responding:
    """An accepted request for a response, which has one answer."""

    answers: tuple[Answer, ...]
    shape: ResponseShape
    stream: bool


class Service:
    """Knows the model's id and its defaults; the engine does the work, *vision* that on images where the model can see."""

    def __init__(
        self,
        model_id: str,
        weights: Weights,
        engine: Engine,
        turns: Turns,
        prompter: Prompter,
        runtime: Mapping[str, Any],
        vision: Vision | None = None,
    ) -> None:
        self.model_id = model_id
        self.engine = engine
        self.weights = weights
        self._turns = turns
        self._vision = vision
        self._prompter = prompter
        self._defaults = requests.read_defaults(runtime)

    def set_runtime(self, runtime: Mapping[str, Any]) -> None:
        """Take other defaults; ones that no request could have leave those before in force."""
        try:
            requests.check_defaults(runtime)
        except BadRequestError as error:
            note(f"keeping the runtime defaults: {error.message}")
            return
        self._defaults = requests.read_defaults(runtime)

    async def chat(self, data: bytes) -> Completion:
        """Queue the answers to a chat request; BadRequestError and QueueFullError as they come."""
        request, unknown = requests.parse_request(ChatRequest, requests.parse_body(data), self._defaults)
        log_unknown(unknown)
        answers, reader = await self._converse(request)
        return _completion(request, answers, ChatShape(self.model_id, reader))

    async def respond(self, data: bytes) -> Responding:
        """Queue the answer to a request for a response, which is a chat request in other words."""
        translated = respond.translate(requests.parse_body(data))
        try:
            request, unknown = requests.parse_request(ChatRequest, translated.chat, self._defaults)
            log_unknown([name for name in unknown if name not in respond.known_fields()])
            answers, reader = await self._converse(request)
        except BadRequestError as error:
            raise respond.blame(error, translated.places) from error
        echo = {**translated.echo, "temperature": request.temperature, "top_p": request.top_p}
        return Responding(answers, ResponseShape(self.model_id, reader(), echo, self._count), request.stream)

    async def _converse(self, request: ChatRequest) -> tuple[tuple[Answer, ...], Callable[[], Reader]]:
        """Queue the answers to *request*; return them, and what makes a reader for each."""
        offer = tools.make_offer(
            request.tools, request.tool_choice, parallel=request.parallel_tool_calls, template=self._prompter.source
        )
        marker = self._vision.marker if self._vision else None
        with self._turns.promised():
            # Images are large: taking one out of its base64 is a few milliseconds.
            if any(isinstance(message.content, list) for message in request.messages):
                messages, images = await asyncio.to_thread(read_messages, request.messages, marker)
            else:
                messages, images = read_messages(request.messages, marker)
            prompt = await self._render(request, messages, offer)
            read = await self._read(prompt.text, images)
            marks = tools.MARKS[offer.family] if offer is not None else ()
            wanted = self._wanted(request, [read], (*request.stop, *prompt.stops), offer, marks)

            def reader() -> Reader:
                return Reader(
                    family=None if offer is None else offer.family,
                    separate_thoughts=request.reasoning_format != "none",
                    thinking=prompt.text.rstrip().endswith(THINK[0]),
                )

            return self._submit(wanted, read), reader

    async def _read(self, text: str, images: Sequence[Image]) -> Read:
        if self._vision is None or not images:
            return Read(self._tokens(text))
        return await self._vision.read(text, images, add_special=not self.weights.starts_with_bos(text))

    async def _render(self, request: ChatRequest, messages: list[Message], offer: Offer | None) -> Prompt:
        variables = {**request.chat_template_kwargs, "add_generation_prompt": request.add_generation_prompt}
        if tools.find_family(self._prompter.source) is Family.GENERIC:
            return await self._prompter.render(tools.tell_generic(messages, offer), variables)
        if offer is not None:
            variables["tools"] = offer.describe()
        return await self._prompter.render(tools.with_objects(messages), variables)

    async def complete(self, data: bytes) -> Completion:
        """Queue the answers to a text completion; each prompt has `n` of them."""
        request, unknown = requests.parse_request(CompletionRequest, requests.parse_body(data), self._defaults)
        log_unknown(unknown)
        prompts = [Read(self._tokens(prompt) if isinstance(prompt, str) else prompt) for prompt in request.prompts()]
        wanted = self._wanted(request, prompts, tuple(request.stop))
        return _completion(request, self._submit(wanted), TextShape(self.model_id))

    def cancel(self, accepted: Completion | Responding) -> None:
        for answer in accepted.answers:
            self.engine.cancel(answer)

    def _count(self, text: str) -> int:
        return len(self.weights.tokenize(text, special=False, add_special=False))

    def _tokens(self, text: str) -> list[int]:
        return self.weights.tokenize(text, special=True, add_special=not self.weights.starts_with_bos(text))

    def _wanted(
        self,
        request: ChatRequest | CompletionRequest,
        prompts: Sequence[Read],
        stops: tuple[str, ...],
        offer: Offer | None = None,
        marks: Sequence[str] = (),
    ) -> list[Wanted]:
        bias = requests.bias_of(
            request,
            lambda text: self.weights.tokenize(text, special=False, add_special=False),
            self.weights.facts.n_vocab,
        )
        grammar = requests.grammar_of(request)
        if offer is not None and (call_grammar := offer.grammar()) is not None:
            if grammar is not None:
                raise BadRequestError("cannot follow a format and call tools in it", param="response_format")
            grammar = call_grammar
        return [
            Wanted(
                prompt=prompt.tokens,
                pictures=prompt.pictures,
                sampling=request.sampling(bias, choice),
                max_tokens=request.limit,
                stops=stops,
                grammar=grammar,
                logprobs=request.wanted_logprobs,
                preserved=self._control_tokens(marks),
                cache_prompt=request.cache_prompt,
            )
            for prompt in prompts
            for choice in range(request.n)
        ]

    def _control_tokens(self, marks: Sequence[str]) -> frozenset[int]:
        """Return those of *marks* that are tokens of their own."""
        found = [self.weights.tokenize(mark, special=True, add_special=False) for mark in marks if mark]
        return frozenset(tokens[0] for tokens in found if len(tokens) == 1)

    def _submit(self, wanted: list[Wanted], read: Read | None = None) -> tuple[Answer, ...]:
        """Queue what is *wanted*; a prompt that was *read* apart was promised to be taken."""
        answers = tuple(Answer(each) for each in wanted)
        if read is not None and read.images:
            for answer in answers:
                answer.usage.images, answer.usage.images_encoded = read.images, read.encoded
                answer.usage.images_s = read.seconds
        self.engine.submit(*answers, promised=read is not None)
        return answers


def _completion(request: ChatRequest | CompletionRequest, answers: tuple[Answer, ...], shape: Shape) -> Completion:
    return Completion(
        answers, shape, request.stream, request.include_usage, request.wanted_logprobs is not None, request.n
    )
