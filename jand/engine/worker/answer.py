"""One answer being made: what is asked of the engine, and what it tells the event loop about it. Plain data between the two threads."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.engine.worker.media import Picture
    from jand.engine.worker.sampling import Sampling

_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token as text and bytes with its natural log-probability, and the likeliest ones in its place."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to generate. *prompt* holds at least one token; *max_tokens* None means: until the context is full."""

    prompt: list[int]
    sampling: Sampling
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    grammar: str | None = None
    logprobs: int | None = None
    cache_prompt: bool = True
    preserved: frozenset[int] = frozenset()
    """Control tokens that appear in the text all the same: those that mark a tool call."""
    pictures: tuple[Picture, ...] = ()
    """What stands in the prompt where its tokens are negative."""

    @property
    def said(self) -> list[int]:
        """The tokens of the prompt that are text."""
        return [token for token in self.prompt if token >= 0] if self.pictures else self.prompt


@dataclass(slots=True)
class Usage:
    """What an answer took; times in seconds of the monotonic clock, 0 for what has not come to pass."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queued_at: float = 0.0
    started_at: float = 0.0
    first_token_at: float = 0.0
    ended_at: float = 0.0
    images: int = 0
    images_encoded: int = 0
    images_s: float = 0.0

    def timings(self) -> dict[str, Any]:
        """Return llama-server's `timings`, and what images took where there are any."""
        read = self.prompt_tokens - self.cached_tokens
        prompt_ms = max(0.0, self.first_token_at - self.started_at) * 1000
        predicted_ms = max(0.0, self.ended_at - self.first_token_at) * 1000
        seen = {
            "image_n": self.images,
            "image_encoded_n": self.images_encoded,
            "image_ms": round(self.images_s * 1000, 3),
        }
        return {
            **(seen if self.images else {}),
            "cache_n": self.cached_tokens,
            "prompt_n": read,
            "prompt_ms": round(prompt_ms, 3),
            "prompt_per_token_ms": round(prompt_ms / max(1, read), 3),
            "prompt_per_second": round(read / prompt_ms * 1000, 3) if prompt_ms else 0.0,
            "predicted_n": self.completion_tokens,
            "predicted_ms": round(predicted_ms, 3),
            "predicted_per_token_ms": round(predicted_ms / max(1, self.completion_tokens), 3),
            "predicted_per_second": round(self.completion_tokens / predicted_ms * 1000, 3) if predicted_ms else 0.0,
        }


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer. *finish* is None until the last one (`stop` or `length`); *error* ends the answer as well."""

    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class Answer:
    """Made on the event loop; the engine's thread reads *wanted*, writes *usage*, and tells deltas. Listeners and senders must not raise."""

    wanted: Wanted
    usage: Usage = field(default_factory=Usage)
    number: int = field(default_factory=lambda: next(_numbers))
    cancelled: bool = False
    """Set when nobody wants the answer any more; the engine looks between two steps."""
    queued_at: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _unheard: list[Delta] = field(default_factory=list)
    _listener: Callable[[Delta], None] | None = None
    _sender: Callable[[Delta], None] | None = None

    def tell(self, delta: Delta) -> bool:
        """Take *delta* on the engine's thread; false where the event loop must `hear` of it."""
        with self._lock:
            if self._sender is not None:
                self._sender(delta)
                return True
            self._unheard.append(delta)
            return False

    def hear(self) -> None:
        """Give the listener what has come, on the event loop."""
        if self._listener is not None:
            with self._lock:
                unheard, self._unheard = self._unheard, []
            for delta in unheard:
                self._listener(delta)

    def listen(self, listener: Callable[[Delta], None]) -> None:
        """Let *listener* have every delta on the event loop: those that have come now, the others as they come."""
        self._listener = listener
        self.hear()

    def send_by(self, sender: Callable[[Delta], None] | None) -> None:
        """Let *sender* have every further delta on the engine's thread, after the listener has had all before; None lets the listener have them again."""
        while True:
            self.hear()
            with self._lock:
                if not self._unheard:
                    self._sender = sender
                    return
