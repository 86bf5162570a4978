"""Answers in OpenAI's shapes, whole and streamed. Pure."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from jand.engine.worker import wire
from jand.engine.worker.reading import Called, Said, Thought

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.engine.worker.answer import TokenLogprob
    from jand.engine.worker.reading import Piece, Reader

_PLACE: Final = "\u2063text\u2063"
"""Stands for the text in an event; no id and no model's name contains it."""


class Shape(Protocol):
    """How one kind of completion looks."""

    def whole(
        self, choices: list[dict[str, Any]], usage: dict[str, Any], timings: dict[str, Any]
    ) -> dict[str, Any]: ...

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None, finish: str) -> dict[str, Any]: ...

    def first(self, index: int) -> dict[str, Any] | None:
        """Return the chunk before all text of a choice, where there is one."""

    def delta(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None) -> list[dict[str, Any]]:
        """Return the chunks for more text, none where it must be held back."""

    def text_event(self, index: int, text: str) -> bytes | None:
        """Return the event for more text without logprobs, the quick way; None where `delta` must be asked."""

    def last(self, index: int, finish: str) -> list[dict[str, Any]]: ...

    def closing(self, usage: dict[str, Any], timings: dict[str, Any]) -> dict[str, Any]: ...


class _Common:
    prefix = ""
    whole_object = ""
    chunk_object = ""

    def __init__(self, model: str) -> None:
        self._id = self.prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = model
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def _text_event(self, index: int, text: str, chunk: Callable[[str], dict[str, Any]]) -> bytes:
        """Put *text* into the event that *chunk* makes: it differs in nothing but its text, and encoding it anew for each token takes ten times as long."""
        if index not in self._around:
            before, _, after = wire.event(chunk(_PLACE)).partition(wire.encode(_PLACE))
            self._around[index] = before, after
        before, after = self._around[index]
        return before + wire.encode(text) + after

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}

    def whole(self, choices: list[dict[str, Any]], usage: dict[str, Any], timings: dict[str, Any]) -> dict[str, Any]:
        return {**self._frame(self.whole_object, choices), "usage": usage, "timings": timings}

    def closing(self, usage: dict[str, Any], timings: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk that `stream_options.include_usage` asks for."""
        return {**self._frame(self.chunk_object, []), "usage": usage, "timings": timings}


class ChatShape(_Common):
    """*reader* makes what tells thoughts, text and calls of one choice apart."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, model: str, reader: Callable[[], Reader]) -> None:
        super().__init__(model)
        self._make_reader = reader
        self._readers: dict[int, Reader] = {}
        self._calls: dict[int, int] = {}

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None, finish: str) -> dict[str, Any]:
        reader = self._make_reader()
        pieces = [*reader.feed(text), *reader.end()]
        said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
        thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
        calls = [_call(piece) for piece in pieces if isinstance(piece, Called)]
        message: dict[str, Any] = {"role": "assistant", "content": said or None if calls else said}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = calls
        reason = "tool_calls" if calls and finish == "stop" else finish
        return {"index": index, "message": message, "logprobs": _chat_logprobs(logprobs), "finish_reason": reason}

    def first(self, index: int) -> dict[str, Any] | None:
        return self._chunk(index, {"role": "assistant", "content": ""}, None, None)

    def delta(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None) -> list[dict[str, Any]]:
        deltas = self._deltas(index, self._reader(index).feed(text))
        if logprobs and not deltas:
            deltas = [{"content": ""}]  # what is held back has its probabilities now
        return [self._chunk(index, delta, None if at else logprobs, None) for at, delta in enumerate(deltas)]

    def text_event(self, index: int, text: str) -> bytes | None:
        if not self._reader(index).passes_on:
            return None
        return self._text_event(index, text, lambda place: self._chunk(index, {"content": place}, None, None))

    def last(self, index: int, finish: str) -> list[dict[str, Any]]:
        reader = self._reader(index)
        chunks = [self._chunk(index, delta, None, None) for delta in self._deltas(index, reader.end())]
        reason = "tool_calls" if reader.called and finish == "stop" else finish
        return [*chunks, self._chunk(index, {}, None, reason)]

    def _reader(self, index: int) -> Reader:
        if index not in self._readers:
            self._readers[index] = self._make_reader()
        return self._readers[index]

    def _deltas(self, index: int, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        for piece in pieces:
            match piece:
                case Said(text):
                    deltas.append({"content": text})
                case Thought(text):
                    deltas.append({"reasoning_content": text})
                case Called():
                    number = self._calls.get(index, 0)
                    self._calls[index] = number + 1
                    deltas.append({"tool_calls": [{"index": number, **_call(piece)}]})
        return deltas

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Sequence[TokenLogprob] | None, finish: str | None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": _chat_logprobs(logprobs), "finish_reason": finish}
        return self._frame(self.chunk_object, [choice])


def _call(piece: Called) -> dict[str, Any]:
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class TextShape(_Common):
    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._offsets: dict[int, int] = {}

    def choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None, finish: str) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": self._logprobs(index, logprobs), "finish_reason": finish}

    def first(self, index: int) -> dict[str, Any] | None:
        return None

    def delta(self, index: int, text: str, logprobs: Sequence[TokenLogprob] | None) -> list[dict[str, Any]]:
        choice = {"index": index, "text": text, "logprobs": self._logprobs(index, logprobs), "finish_reason": None}
        return [self._frame(self.chunk_object, [choice])]

    def text_event(self, index: int, text: str) -> bytes | None:
        return self._text_event(index, text, lambda place: self.delta(index, place, None)[0])

    def last(self, index: int, finish: str) -> list[dict[str, Any]]:
        choice = {"index": index, "text": "", "logprobs": None, "finish_reason": finish}
        return [self._frame(self.chunk_object, [choice])]

    def _logprobs(self, index: int, logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
        if logprobs is None:
            return None
        offsets = []
        for entry in logprobs:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(entry.piece.decode("utf-8", "replace"))
        return {
            "tokens": [entry.piece.decode("utf-8", "replace") for entry in logprobs],
            "token_logprobs": [entry.logprob for entry in logprobs],
            "top_logprobs": [
                {piece.decode("utf-8", "replace"): value for piece, value in entry.top} for entry in logprobs
            ],
            "text_offset": offsets,
        }


def _chat_logprobs(logprobs: Sequence[TokenLogprob] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    return {
        "content": [
            {
                **_described(entry.piece, entry.logprob),
                "top_logprobs": [_described(piece, value) for piece, value in entry.top],
            }
            for entry in logprobs
        ],
        "refusal": None,
    }


def _described(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}
