"""What of a prompt need not be read again: the slot holds it from before, or another slot does and it is copied.

Each conversation has a stream of llama.cpp's memory to itself: a step then looks at its own tokens alone, where one stream for all (`kv_unified`) would have it pass over
those of every other. A copy between two streams is of the whole stream, however little of it is wanted, so it must spare a good deal of reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.engine.worker import media
from jand.engine.worker.slots import common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.engine.worker.answer import Wanted
    from jand.engine.worker.context import Context
    from jand.engine.worker.slots import Slot

LEAST_SHARED: Final = 32
SHARED_PART: Final = 64
"""A copy must spare this part of a stream's tokens: copying all of them takes about as long as reading some of that."""


class Prefixes:
    """Belongs to the engine's thread, as *context* does."""

    def __init__(self, context: Context, slots: Sequence[Slot]) -> None:
        self._context = context
        self._slots = slots
        self._window = context.weights.facts.n_swa
        self._worth = max(LEAST_SHARED, context.ctx_len // SHARED_PART)

    def is_being_read(self, prompt: list[int]) -> bool:
        """Whether another conversation is just reading what *prompt* begins with: waiting for it is quicker than reading it twice."""
        if not self._context.can_remove_part:
            return False
        return any(
            common_prefix(slot.work.answer.wanted.prompt, prompt) >= len(slot.tokens) + self._worth
            for slot in self._slots
            if slot.reading and slot.work is not None
        )

    def borrow(self, slot: Slot, wanted: Wanted) -> None:
        """Let *slot* begin with what another one holds of the prompt, where that is a good deal more than it holds itself."""
        if not self._context.can_remove_part:
            return
        prompt = wanted.prompt
        donor = max(self._slots, key=lambda other: common_prefix(other.tokens, prompt))
        shared = media.whole(wanted.pictures, common_prefix(donor.tokens, prompt))
        if donor is not slot and shared >= common_prefix(slot.tokens, prompt) + self._worth:
            self._context.copy(donor.number, slot.number, media.position(wanted.pictures, shared))
            slot.tokens = donor.tokens[:shared]

    def keep(self, slot: Slot, wanted: Wanted) -> int:
        """Keep of *slot* what the prompt begins with, less one token: a decode needs something to decode. Return how many tokens are kept."""
        prompt = wanted.prompt if wanted.cache_prompt else []
        keep = min(common_prefix(slot.tokens, prompt), max(0, len(prompt) - 1))
        keep = media.whole(wanted.pictures, keep)
        start = media.position(wanted.pictures, keep)
        if self._window and self._context.first_position(slot.number) > max(0, start - self._window):
            keep = 0  # the window has let go of what the next token would look at; nothing would report it
        if keep < len(slot.tokens) and not (
            keep and self._context.can_remove_part and self._context.forget(slot.number, start)
        ):
            self._context.forget(slot.number)
            keep = 0
        del slot.tokens[keep:]
        return keep
