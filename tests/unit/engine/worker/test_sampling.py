"""Looking closer at few tokens chooses what llama.cpp's chain chooses among all of them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.llama import lib
from jand.engine.worker.sampling import _candidates, likeliest, token_array

if TYPE_CHECKING:
    import numpy.typing as npt

VOCABULARY = 4096


def choose(candidates: npt.NDArray[Any], seed: int, top_k: int) -> int:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_top_k(top_k),
        lib.llama_sampler_init_top_p(0.95, 0),
        lib.llama_sampler_init_min_p(0.05, 0),
        lib.llama_sampler_init_temp(1.3),
        lib.llama_sampler_init_dist(seed),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    array = token_array(candidates)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    token = int(array.data[array.selected].id)
    lib.llama_sampler_free(chain)
    return token


@given(st.integers(0, 2**31), st.floats(0.5, 30), st.integers(1, 60))
def test_few_candidates_choose_as_all_do(seed: int, spread: float, top_k: int) -> None:
    logits = np.random.default_rng(seed).normal(-3, spread, VOCABULARY).astype(np.float32)
    few = likeliest(logits, top_k)
    if few is not None:
        assert len(few) < VOCABULARY / 4
        assert choose(few, seed, top_k) == choose(_candidates(logits), seed, top_k)


def test_what_can_win_is_found_in_logits_as_they_are() -> None:
    logits = np.random.default_rng(1).normal(0, 4, VOCABULARY).astype(np.float32)
    few = likeliest(logits, 40)
    assert few is not None
    best = np.argsort(logits)[::-1][:40]
    assert set(best) <= set(few["id"])


def test_odd_logits_are_left_to_the_whole() -> None:
    """All alike, not numbers, or all but one impossible."""
    for logits in (np.zeros(VOCABULARY), np.full(VOCABULARY, np.nan), np.full(VOCABULARY, -np.inf)):
        assert likeliest(logits.astype(np.float32), 40) is None
    lone = np.full(VOCABULARY, -np.inf, dtype=np.float32)
    lone[7] = 0
    assert likeliest(lone, 40) is None
