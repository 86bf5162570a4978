"""The answer of `/v1/responses`, built item by item: what the model thinks, says and calls, with OpenAI's events on the way. Pure."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from jand.engine.worker.reading import Called, Said, Thought

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.engine.worker.reading import Piece, Reader

_PARTS: Final = {
    "message": ("output_text", "response.output_text"),
    "reasoning": ("reasoning_text", "response.reasoning_text"),
}
"""What the text of an item is called, and how its events begin."""

Event = dict[str, Any]


class ResponseShape:
    """One response; *echo* is what it repeats of its request. Each method returns the events that its news make, which whoever wants the whole drops."""

    def __init__(self, model: str, reader: Reader, echo: dict[str, Any], count: Callable[[str], int]) -> None:
        self._reader = reader
        self._count = count
        self._output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._sequence = 0
        self._response: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            **echo,
            "usage": None,
        }

    def begin(self) -> list[Event]:
        return [self._about("response.created"), self._about("response.in_progress")]

    def feed(self, text: str) -> list[Event]:
        return self._take(self._reader.feed(text))

    def end(self, finish: str, usage: dict[str, Any], timings: dict[str, Any]) -> list[Event]:
        """Finish with what was held back; *finish* `length` makes it an incomplete one. *usage* is a chat completion's."""
        events = self._take(self._reader.end())
        if not self._output:
            events += self._ensure("message")
        cut = finish == "length"
        events += self._close("incomplete" if cut else "completed")
        thoughts = "".join(
            part["text"] for item in self._output if item["type"] == "reasoning" for part in item["content"]
        )
        self._response |= {
            "status": "incomplete" if cut else "completed",
            "completed_at": None if cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": _usage(usage, self._count(thoughts) if thoughts else 0),
            "timings": timings,
        }
        return [*events, self._about("response.incomplete" if cut else "response.completed")]

    def fail(self, message: str) -> list[Event]:
        """End after an error in the middle."""
        self._response |= {
            "status": "failed",
            "error": {"code": "server_error", "message": message},
            "output": self._output,
        }
        return [self._about("response.failed")]

    @property
    def response(self) -> dict[str, Any]:
        return self._response

    def _take(self, pieces: Sequence[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            match piece:
                case Said(text):
                    events += self._add("message", text)
                case Thought(text):
                    events += self._add("reasoning", text)
                case Called():
                    events += self._call(piece)
        return events

    def _add(self, kind: str, text: str) -> list[Event]:
        events = self._ensure(kind)
        assert self._open is not None
        self._open["content"][0]["text"] += text
        return [*events, self._of_text("delta", delta=text)]

    def _ensure(self, kind: str) -> list[Event]:
        """Let an item of *kind* be open."""
        if self._open is not None and self._open["type"] == kind:
            return []
        events = self._close("completed")
        part: dict[str, Any] = {"type": _PARTS[kind][0], "text": ""}
        item: dict[str, Any] = {"type": kind, "status": "in_progress", "content": []}
        if kind == "message":
            part |= {"annotations": [], "logprobs": []}
            item = {"id": f"msg_{secrets.token_hex(24)}", **item, "role": "assistant"}
        else:
            item = {"id": f"rs_{secrets.token_hex(24)}", **item, "summary": []}
        self._output.append(item)
        events.append(self._event("response.output_item.added", item=item))
        item["content"] = [part]
        self._open = item
        return [*events, self._of_part("response.content_part.added", part)]

    def _close(self, status: str) -> list[Event]:
        """Finish the item that is open."""
        item = self._open
        if item is None:
            return []
        part = item["content"][0]
        events = [self._of_text("done", text=part["text"]), self._of_part("response.content_part.done", part)]
        item["status"] = status
        self._open = None
        return [*events, self._event("response.output_item.done", item=item)]

    def _call(self, piece: Called) -> list[Event]:
        events = self._close("completed")
        item: dict[str, Any] = {
            "id": f"fc_{secrets.token_hex(24)}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": piece.name,
            "arguments": "",
        }
        self._output.append(item)
        at = {"item_id": item["id"]}
        events.append(self._event("response.output_item.added", item=item))
        events.append(self._event("response.function_call_arguments.delta", **at, delta=piece.arguments))
        item |= {"arguments": piece.arguments, "status": "completed"}
        done = {**at, "name": piece.name, "arguments": piece.arguments}
        events.append(self._event("response.function_call_arguments.done", **done))
        return [*events, self._event("response.output_item.done", item=item)]

    def _of_text(self, what: str, **more: Any) -> Event:
        assert self._open is not None
        logprobs: dict[str, Any] = {"logprobs": []} if self._open["type"] == "message" else {}
        kind = f"{_PARTS[self._open['type']][1]}.{what}"
        return self._event(kind, item_id=self._open["id"], content_index=0, **more, **logprobs)

    def _of_part(self, kind: str, part: dict[str, Any]) -> Event:
        assert self._open is not None
        return self._event(kind, item_id=self._open["id"], content_index=0, part=part)

    def _about(self, kind: str) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, "response": self._response}
        return self._numbered(event)

    def _event(self, kind: str, **more: Any) -> Event:
        """Return an event about the last item."""
        return self._numbered({"type": kind, "sequence_number": 0, "output_index": len(self._output) - 1, **more})

    def _numbered(self, event: Event) -> Event:
        """Return *event* with its number, as it is now: what it holds goes on changing."""
        event["sequence_number"] = self._sequence
        self._sequence += 1
        copied: Event = json.loads(json.dumps(event))
        return copied


def _usage(usage: dict[str, Any], thought: int) -> dict[str, Any]:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": min(thought, usage["completion_tokens"])},
        "total_tokens": usage["total_tokens"],
    }
