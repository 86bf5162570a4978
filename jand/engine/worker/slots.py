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
LOSS: Final = 1 / 8
"""What a token counts that would be dropped, against one that need not be read: somebody may come back to it."""
BESIDE: Final = 8
"""How many tokens a place beside an answer in work counts for."""


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
    """Return the idle slot that holds most of *prompt* and loses little else by it; where none is worth it an empty one, else the one idle longest. None where all are busy.

    Of two that are as good the one beside an answer in work is taken: see `are_scattered`.
    """
    slots = list(slots)
    idle = [slot for slot in slots if slot.work is None]
    if not idle:
        return None
    busy = {slot.number for slot in slots if slot.work is not None}

    def beside(slot: Slot) -> bool:
        return not busy.isdisjoint((slot.number - 1, slot.number + 1))

    def worth(slot: Slot) -> float:
        common = common_prefix(slot.tokens, prompt)
        return common - LOSS * (len(slot.tokens) - common) + (BESIDE if common and beside(slot) else 0)

    best = max(idle, key=lambda slot: (worth(slot), -slot.used_at))
    if worth(best) > SIMILAR * len(prompt):
        return best
    return min(
        idle, key=lambda slot: (bool(slot.tokens), slot.used_at if slot.tokens else 0.0, not beside(slot), slot.number)
    )


def are_scattered(slots: Iterable[Slot]) -> bool:
    """Whether there are gaps between the answers in work.

    llama.cpp takes sequences with a stream each into one pass only where their numbers follow one another (`split_equal` in llama-batch.cpp).
    """
    busy = [slot.number for slot in slots if slot.work is not None]
    return bool(busy) and max(busy) - min(busy) >= len(busy)


def choose_exchange(slots: Sequence[Slot]) -> tuple[Slot, Slot]:
    """Return a busy and an idle slot that change places on the shortest way to answers without gaps; *slots* are scattered, in the order of their numbers."""
    count = sum(slot.work is not None for slot in slots)
    windows = [slots[start : start + count] for start in range(len(slots) - count + 1)]
    window = max(windows, key=lambda each: sum(slot.work is not None for slot in each))
    free = min((slot for slot in window if slot.work is None), key=lambda slot: len(slot.tokens))
    moved = min((slot for slot in slots if slot.work and slot not in window), key=lambda slot: len(slot.tokens))
    return moved, free


def common_prefix(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Count the tokens with which both begin."""
    length = min(len(held), len(wanted))
    if not length or held[0] != wanted[0]:
        return 0
    differs = np.asarray(held[:length]) != np.asarray(wanted[:length])
    first = int(differs.argmax())
    return first if differs[first] else length
