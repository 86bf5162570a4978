"""The places in the context where answers are made, and which of them a new prompt is given."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from jand.engine.worker import media

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jand.engine.worker.answer import Answer
    from jand.engine.worker.media import Picture
    from jand.engine.worker.sampling import Sampler
    from jand.engine.worker.text import TextStream

SIMILAR: Final = 0.1
"""A slot that holds at least this share of a prompt is preferred to the one that was idle longest."""


@dataclass(eq=False, slots=True)
class Work:
    """An answer in its slot. *limit* is how many tokens it may have; *next_token* was chosen and is not in the memory yet."""

    answer: Answer
    sampler: Sampler
    stream: TextStream
    limit: int
    next_token: int | None = None


@dataclass(eq=False, slots=True)
class Slot:
    """A sequence of the context. *tokens* is exactly what the memory holds of it, also while it is idle: the next prompt may begin alike."""

    number: int
    tokens: list[int] = field(default_factory=list)
    work: Work | None = None
    used_at: float = field(default_factory=time.monotonic)

    @property
    def reading(self) -> bool:
        return self.work is not None and self.work.next_token is None

    @property
    def generating(self) -> bool:
        return self.work is not None and self.work.next_token is not None

    @property
    def position(self) -> int:
        """Where the next token goes in the memory; M-RoPE gives a picture fewer positions than it has tokens."""
        assert self.work is not None
        return media.position(self.work.answer.wanted.pictures, len(self.tokens))

    @property
    def picture(self) -> Picture | None:
        """The picture that is to be read next, or in the middle of which reading is."""
        return media.at(self.work.answer.wanted.pictures, len(self.tokens)) if self.work is not None else None


def choose_slot(slots: Iterable[Slot], prompt: Sequence[int]) -> Slot | None:
    """Return the idle slot that holds most of *prompt*; else an empty one, the lowest first; else the one idle longest. None where all are busy."""
    idle = [slot for slot in slots if slot.work is None]
    if not idle:
        return None
    best = max(idle, key=lambda slot: common_prefix(slot.tokens, prompt))
    if common_prefix(best.tokens, prompt) > SIMILAR * len(prompt):
        return best
    return min(idle, key=lambda slot: (bool(slot.tokens), slot.used_at if slot.tokens else 0.0, slot.number))


def common_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Count the tokens with which both begin."""
    length = min(len(held), len(wanted))
    if not length or held[0] != wanted[0]:
        return 0
    differs = np.asarray(held[:length]) != np.asarray(wanted[:length])
    first = int(differs.argmax())
    return first if differs[first] else length
