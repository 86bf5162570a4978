"""A grammar that an answer must follow, checked token by token on the engine's thread.

llama.cpp ends the process where a token is accepted that the grammar does not allow, or where a broken grammar is used; both are tested for first. It takes any
byte for the rest of a character, so that a model could write broken UTF-8 into a string; that is looked at here.
"""

from __future__ import annotations

import codecs
import ctypes
import math
import time
from typing import TYPE_CHECKING, Any, Final

from jand.engine.worker.llama import lib
from jand.engine.worker.sampling import single, token_array
from jand.errors import BadRequestError

if TYPE_CHECKING:
    import numpy.typing as npt

    from jand.engine.worker.weights import Weights

SLOW_S: Final = 0.25
MOST_SECONDS: Final = 5.0
"""What the slow steps of one grammar may take together: others wait for each of them."""


class Grammar:
    """Owns one grammar sampler: the state of one answer."""

    def __init__(self, weights: Weights, text: str, *, root: str = "root") -> None:
        self._weights = weights
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._spent_s = 0.0
        self._sampler = lib.llama_sampler_init_grammar(weights.vocab, text.encode(), root.encode())
        if not self._sampler:  # a null pointer here is an object that is false, not None
            raise BadRequestError(
                "cannot understand the grammar", hint="it must be GBNF with a rule named root", param="grammar"
            )

    def allows(self, token: int) -> bool:
        candidates = single(token)
        self._apply(candidates)
        return bool(math.isfinite(candidates["logit"][0])) and self.keeps_characters_whole(token)

    def keeps_characters_whole(self, token: int) -> bool:
        state = self._decoder.getstate()
        try:
            self._decoder.decode(self._weights.piece(token))
            begun = self._decoder.getstate()[0]
        except UnicodeDecodeError:
            return False
        finally:
            self._decoder.setstate(state)
        # Python looks at the beginning of a surrogate, which is no character, only when its last byte comes: too late here.
        return not (begun[:1] == b"\xed" and begun[1:2] >= b"\xa0")

    def restrict(self, candidates: npt.NDArray[Any]) -> None:
        """Make impossible what the grammar does not allow next."""
        self._apply(candidates)

    def accept(self, token: int) -> None:
        if not self.allows(token):
            raise RuntimeError(f"the grammar does not allow token {token}")
        lib.llama_sampler_accept(self._sampler, token)
        self._decoder.decode(self._weights.piece(token))

    def close(self) -> None:
        lib.llama_sampler_free(self._sampler)

    def _apply(self, candidates: npt.NDArray[Any]) -> None:
        if self._spent_s > MOST_SECONDS:
            raise BadRequestError(
                "cannot follow the grammar: it takes too long", hint="make it less ambiguous", param="grammar"
            )
        began = time.monotonic()
        array = token_array(candidates)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        taken = time.monotonic() - began
        self._spent_s += taken if taken > SLOW_S else 0.0
