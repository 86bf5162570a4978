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
_PLENTY: Final = 32
"""So many times as many tokens as are kept are more than need be looked at."""


class Shortlist:
    """For vocabularies of *n_vocab* tokens; of one thread."""

    def __init__(self, n_vocab: int) -> None:
        self._most = n_vocab // 8
        self._within = _WITHIN
        self._likely = np.empty(n_vocab, dtype=np.bool_)
        self._numbers = np.zeros(_WORDS * self._most, dtype=np.int32)
        self._numbers[::_WORDS] = np.arange(self._most)
        self._words = self._numbers.copy()
        self._floats = self._words.view(np.float32)
        self._array = lib.llama_token_data_array()
        self._data = self._words.ctypes.data_as(lib.llama_token_data_p)
        self._reference = ctypes.byref(self._array)

    def choose(self, chain: Any, logits: npt.NDArray[np.float32], top_k: int) -> int | None:
        """Return the token that *chain*, which keeps only the *top_k* likeliest, chooses by *logits*; None where all must be looked at.

        The chain sees them in the order of the vocabulary, by numbers of their own: it must not ask who they are.
        """
        found = self._find(logits, top_k)
        if found is None:
            return None
        end = _WORDS * len(found)
        self._words[:end] = self._numbers[:end]  # the chain sorts what it is given
        self._floats[1:end:_WORDS] = logits[found]
        array = self._array
        array.data, array.size, array.selected, array.sorted = (
            self._data,
            len(found),
            -1,
            False,
        )  # it may point elsewhere now
        lib.llama_sampler_apply(chain, self._reference)
        if not 0 <= array.selected < array.size:
            raise RuntimeError("no token was chosen")
        return int(found[array.data[array.selected].id])

    def _find(self, logits: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp] | None:
        """Return at least *count* tokens, those of the highest *logits*, in the order of the vocabulary; None where finding them would not be quicker."""
        highest, within = float(np.maximum.reduce(logits)), self._within
        for _ in range(_LOOKS):
            np.greater(logits, highest - within, self._likely)
            found = self._likely.nonzero()[0]
            if len(found) < count:  # costs another look: the next shall need none
                within *= 1.5
                self._within *= 1.25
            elif len(found) > self._most:
                within *= 0.7
                self._within *= 0.8
            else:
                if len(found) > _PLENTY * count:
                    self._within *= 0.95
                return found
        self._within = _WITHIN
        return None


@functools.cache
def shortlist(n_vocab: int) -> Shortlist:
    """Return the one for *n_vocab*: what one answer has touched is at hand for the next."""
    return Shortlist(n_vocab)
