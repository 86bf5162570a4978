"""How much of the prompts that wait a step reads: little beside answers that flow, much where nobody waits for the next token. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP_S: Final = 0.15
"""What a step may take while somebody's answer flows; prompts are read in parts that keep to it."""
FIRST_CHUNK: Final = 128
"""Tokens that are read beside flowing answers before it is known how long they take; and prompts that have no more together are read at once."""
LEAST_CHUNK: Final = 65
"""One token goes with those of the other answers, and ggml's CPU attention reads fast from 64 on (GGML_FA_TILE_Q): less would take longer, the more so the longer the prompt."""
YOUNG_CHUNKS: Final = 4
"""So many times as much is read in a step while no answer has got further than its first token."""


class Portions:
    """Of a context whose batches hold *capacity* tokens. *chunk* is how many tokens of prompts a step reads beside answers that flow."""

    def __init__(self, capacity: int) -> None:
        self.chunk = FIRST_CHUNK
        self._capacity = capacity

    def share(self, prompts: Sequence[int], *, flowing: int, young: bool) -> list[int]:
        """Return how many tokens of each of *prompts*, which have so many left, the next step reads beside *flowing* answers, which are *young* before their second token.

        Of prompts that came together about half are read first, so that half of those who wait do so half as long, and then the others in one pass: answers that keep step share every
        pass over the weights, and one that has only just begun may wait a little for that.
        """
        room = enough = self._capacity - flowing
        if flowing:
            room = enough = min(room, YOUNG_CHUNKS * self.chunk if young else self.chunk)
        elif (waiting := sum(prompts)) > FIRST_CHUNK:
            enough = waiting * 7 // 16  # a little less than half, for a prompt that is begun is read to its end
        shares = []
        for left in prompts:
            taken = min(left, room) if enough > 0 else 0
            room, enough = room - taken, enough - taken
            shares.append(taken)
        return shares

    def record(self, read: int, seconds: float) -> None:
        """Take the time of a step that read *read* tokens beside answers that flowed."""
        if read >= LEAST_CHUNK:
            fitting = int(read * STEP_S / max(seconds, 1e-6))
            self.chunk = max(LEAST_CHUNK, min(self._capacity, (3 * self.chunk + fitting) // 4))
