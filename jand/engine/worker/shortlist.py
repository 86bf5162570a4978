"""The tokens that can win, so that llama.cpp's chain need not look at the others: all above some logit, where they are at least as many as top_k keeps.

It is asked once for each token of each answer, mostly after a decode has put the whole model through the processor's caches: what counts then is how much code and memory it
touches. So it works in memory that is used again, and makes numpy do few things. Of a vocabulary of 49,152 the whole takes the chain 0.24 ms, this half of it.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jand.engine.worker.llama import lib

if TYPE_CHECKING:
    import numpy.typing as npt

_WORDS: Final = 3
"""A `llama_token_data` is three words: the token, its logit, its probability."""
_WITHIN: Final = 10.0
"""How far below the highest logit is looked at first; a trained model has some hundred tokens there."""
_LOOKS: Final = 3
_SHARE: Final = 8
"""More than this part of the vocabulary is as well looked at by the chain itself."""
_PLENTY: Final = 32
"""So many times as many tokens as are kept are more than need be looked at."""


class _Room:
    """What is used again for vocabularies of *n_vocab* tokens, by one answer after the other, on one thread."""

    def __init__(self, n_vocab: int) -> None:
        self.most = n_vocab // _SHARE
        self.likely = np.empty(n_vocab, dtype=np.bool_)
        self.numbers = np.zeros(_WORDS * self.most, dtype=np.int32)
        self.numbers[::_WORDS] = np.arange(self.most)
        self.words = self.numbers.copy()
        self.floats = self.words.view(np.float32)
        self.data = self.words.ctypes.data_as(lib.llama_token_data_p)
        self.array = lib.llama_token_data_array()
        self.reference = ctypes.byref(self.array)


_room = functools.cache(_Room)


class Shortlist:
    """Of one answer: how far it looks it learns from that answer alone, so that what others are told changes nothing, not even among tokens with the same logit."""

    def __init__(self, n_vocab: int, top_k: int) -> None:
        """*top_k* is how many the chain keeps."""
        self._room = _room(n_vocab)
        self._top_k = top_k
        self._within = _WITHIN

    @property
    def is_possible(self) -> bool:
        """Whether so many tokens can be a short list of this vocabulary."""
        return 0 < self._top_k <= self._room.most

    def choose(self, chain: Any, logits: npt.NDArray[np.float32]) -> int | None:
        """Return the token that *chain* chooses by *logits*; None where all must be looked at.

        The chain sees them in the order of the vocabulary, by numbers of their own: it must not ask who they are. It may cut otherwise among tokens with the same logit, for its sorting is
        not stable.
        """
        found = self._find(logits)
        if found is None:
            return None
        room, end = self._room, _WORDS * len(found)
        room.words[:end] = room.numbers[:end]  # the chain sorts what it is given
        room.floats[1:end:_WORDS] = logits[found]
        array = room.array
        array.data, array.size = room.data, len(found)  # it may point elsewhere since the last time
        array.selected, array.sorted = -1, False
        lib.llama_sampler_apply(chain, room.reference)
        if not 0 <= array.selected < array.size:
            raise RuntimeError("no token was chosen")
        return int(found[array.data[array.selected].id])

    def _find(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.intp] | None:
        """Return at least as many tokens as are kept, those of the highest *logits*, in the order of the vocabulary; None where finding them would not be quicker."""
        highest, within, likely = float(np.maximum.reduce(logits)), self._within, self._room.likely
        for _ in range(_LOOKS):
            np.greater(logits, highest - within, likely)
            found = likely.nonzero()[0]
            if len(found) < self._top_k:  # costs another look: the next shall need none
                within *= 1.5
                self._within *= 1.25
            elif len(found) > self._room.most:
                within *= 0.7
                self._within *= 0.8
            else:
                if len(found) > _PLENTY * self._top_k:
                    self._within *= 0.95
                return found
        self._within = _WITHIN
        return None
