"""A grammar that an answer must follow, checked token by token on the engine's thread.

llama.cpp ends the process where a token is accepted that the grammar does not allow, or where a broken grammar is used; both are tested for first.
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from jand.engine.worker.llama import lib
from jand.engine.worker.sampling import single, token_array
from jand.errors import BadRequestError

if TYPE_CHECKING:
    import numpy.typing as npt

    from jand.engine.worker.weights import Weights


class Grammar:
    """Owns one grammar sampler: the state of one answer."""

    def __init__(self, weights: Weights, text: str, *, root: str = "root") -> None:
        self._sampler = lib.llama_sampler_init_grammar(weights.vocab, text.encode(), root.encode())
        if not self._sampler:  # a null pointer here is an object that is false, not None
            raise BadRequestError(
                "cannot understand the grammar", hint="it must be GBNF with a rule named root", param="grammar"
            )

    def allows(self, token: int) -> bool:
        candidates = single(token)
        self._apply(candidates)
        return bool(math.isfinite(candidates["logit"][0]))

    def restrict(self, candidates: npt.NDArray[Any]) -> None:
        """Make impossible what the grammar does not allow next."""
        self._apply(candidates)

    def accept(self, token: int) -> None:
        if not self.allows(token):
            raise RuntimeError(f"the grammar does not allow token {token}")
        lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        lib.llama_sampler_free(self._sampler)

    def _apply(self, candidates: npt.NDArray[Any]) -> None:
        array = token_array(candidates)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
