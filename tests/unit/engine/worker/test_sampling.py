"""Looking closer at few tokens chooses what llama.cpp's chain chooses among all of them."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.llama import lib
from jand.engine.worker.sampling import _candidates, token_array
from jand.engine.worker.shortlist import Shortlist

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

VOCABULARY = 32768


@contextlib.contextmanager
def made_chain(seed: int, top_k: int) -> Iterator[Any]:
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_top_k(top_k),
        lib.llama_sampler_init_top_p(0.95, 0),
        lib.llama_sampler_init_min_p(0.05, 0),
        lib.llama_sampler_init_temp(1.3),
        lib.llama_sampler_init_dist(seed),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    yield chain
    lib.llama_sampler_free(chain)


def choose_among_all(logits: npt.NDArray[np.float32], seed: int, top_k: int) -> int:
    with made_chain(seed, top_k) as chain:
        candidates = _candidates(logits)
        array = token_array(candidates)
        lib.llama_sampler_apply(chain, ctypes.byref(array))
        return int(array.data[array.selected].id)


def choose_by(few: Shortlist, logits: npt.NDArray[np.float32], seed: int, top_k: int = 40) -> int | None:
    with made_chain(seed, top_k) as chain:
        return few.choose(chain, logits)


@given(
    st.lists(st.tuples(st.integers(0, 2**31), st.floats(0.5, 30)), min_size=1, max_size=8), st.integers(1, VOCABULARY)
)
def test_few_candidates_choose_as_all_do(cases: list[tuple[int, float]], top_k: int) -> None:
    """One after the other with the same list, which learns how far to look."""
    few = Shortlist(VOCABULARY, top_k)
    assert few.is_possible == (top_k <= VOCABULARY / 8)
    for seed, spread in cases if few.is_possible else []:
        logits = np.random.default_rng(seed).normal(-3, spread, VOCABULARY).astype(np.float32)
        assert choose_by(few, logits, seed, top_k) in (None, choose_among_all(logits, seed, top_k))


def test_what_other_answers_did_changes_nothing() -> None:
    """Not even where many tokens have the same logit, among which the chain's sorting cuts by the length of the list."""
    random = np.random.default_rng(3)
    logits = (np.round(random.normal(0, 4, (20, VOCABULARY)) * 4) / 4).astype(np.float32)

    def answer() -> list[int | None]:
        few = Shortlist(VOCABULARY, 40)
        return [choose_by(few, row, 7) for row in logits]

    first = answer()
    narrow = Shortlist(VOCABULARY, 1)
    for seed in range(50):
        choose_by(narrow, random.normal(0, 30, VOCABULARY).astype(np.float32), seed, 1)
    assert answer() == first


def test_logits_as_they_are_need_no_look_at_the_whole() -> None:
    few = Shortlist(VOCABULARY, 40)
    for seed in range(50):
        logits = np.random.default_rng(seed).normal(0, 3 + seed % 4, VOCABULARY).astype(np.float32)
        assert choose_by(few, logits, seed) == choose_among_all(logits, seed, 40)


def test_odd_logits_are_left_to_the_whole() -> None:
    """All alike, not numbers, or all but one impossible."""
    few = Shortlist(VOCABULARY, 40)
    for logits in (np.zeros(VOCABULARY), np.full(VOCABULARY, np.nan), np.full(VOCABULARY, -np.inf)):
        assert choose_by(few, logits.astype(np.float32), 1) is None
    lone = np.full(VOCABULARY, -np.inf, dtype=np.float32)
    lone[7] = 0
    assert choose_by(few, lone, 1) is None
