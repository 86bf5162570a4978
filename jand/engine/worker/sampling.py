"""Choosing the next token: llama.cpp's samplers in the order of its own server, one chain for each answer.

Values are checked before they reach C, where a wrong one ends the process. Penalties and biases are applied here to the few logits they concern: the C sampler
looks up every token of the vocabulary, which costs a hundred times as much.
"""

from __future__ import annotations

import ctypes
import functools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jand.engine.worker.llama import lib
from jand.engine.worker.shortlist import Shortlist

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from jand.engine.worker.context import Context
    from jand.engine.worker.grammar import Grammar
    from jand.engine.worker.weights import Weights

RANDOM_SEED: Final = 0xFFFFFFFF
DEFAULT_BREAKERS: Final = ("\n", ":", '"', "*")
_TOKEN_DATA: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_FEW: Final = 16
"""So many single logits are changed in less time than numpy takes to begin."""
_WIDE_TOP_K: Final = 1024
"""Cutting to that many before top_p costs little and spares it sorting a whole vocabulary; the mass beyond is negligible."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen, checked by `requests`; what is at its default here costs nothing."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = DEFAULT_BREAKERS
    seed: int = RANDOM_SEED
    min_keep: int = 0
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = field(default=())


class Sampler:
    """The state of choosing for one answer; lives on the engine's thread and is given back by `close`."""

    def __init__(
        self, weights: Weights, sampling: Sampling, grammar: Grammar | None, prompt: Iterable[int], ctx_len: int
    ) -> None:
        self._n_vocab = weights.facts.n_vocab
        self._sampling = sampling
        self._grammar = grammar
        bias = _biases(weights, sampling)
        self._few_biases = tuple(bias.items()) if len(bias) <= _FEW else ()
        self._biased = np.array(list(bias), dtype=np.int32)
        self._biases = np.array(list(bias.values()), dtype=np.float32)
        self._chain = _chain(weights, sampling, ctx_len)
        self._feeds_chain = sampling.dry_multiplier > 0
        self._takes_best = sampling.temperature <= 0 and not self._feeds_chain
        before_top_k = self._feeds_chain or sampling.top_n_sigma > 0 or sampling.mirostat
        self._shortlist = Shortlist(self._n_vocab, sampling.top_k)
        self._cuts_first = sampling.temperature > 0 and not before_top_k and self._shortlist.is_possible
        window = sampling.repeat_last_n if sampling.repeat_last_n >= 0 else ctx_len
        self._recent: deque[int] = deque(maxlen=window)
        self._counts: Counter[int] = Counter()
        self._penalises = window > 0 and (
            sampling.repeat_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        )
        if self._feeds_chain or self._penalises:
            for token in prompt:
                self._remember(token)

    def sample(self, context: Context, index: int) -> int:
        """Choose the token that follows the batch's token *index* and take it as chosen. Changes that row of logits."""
        logits = context.logits(index)
        if logits is None:  # without logits the C function would end the process
            raise RuntimeError(f"token {index} of the batch has no logits")
        self._adjust(logits)
        if self._grammar is not None:
            token = self._sample_within(logits, self._grammar)
            self._grammar.accept(token)
            lib.llama_sampler_accept(self._chain, token)
        elif (quick := self._choose_quickly(logits)) is not None:
            token = quick
            lib.llama_sampler_accept(self._chain, token)
        else:
            token = int(lib.llama_sampler_sample(self._chain, context.handle, index))  # accepts it too
        if self._penalises:
            self._count(token)
        return token

    def close(self) -> None:
        lib.llama_sampler_free(self._chain)
        if self._grammar is not None:
            self._grammar.close()

    def _sample_within(self, logits: npt.NDArray[np.float32], grammar: Grammar) -> int:
        """Choose first and ask the grammar about that one token; only where it objects look at the whole vocabulary, which is a thousand times as slow."""
        quick = self._choose_quickly(logits)
        token = self._apply(_candidates(logits)) if quick is None else quick
        if grammar.allows(token):
            return token
        restricted = _candidates(logits)
        grammar.restrict(restricted)
        for _ in range(len(restricted)):
            if not np.isfinite(restricted["logit"]).any():
                break
            token = self._apply(restricted.copy())  # the chain sorts and cuts what it is given
            if grammar.keeps_characters_whole(token):
                return token
            restricted["logit"][token] = -np.inf
        raise RuntimeError("the grammar leaves no token")

    def _choose_quickly(self, logits: npt.NDArray[np.float32]) -> int | None:
        """Choose as the chain would, but for tokens with the same logit, looking closer only at tokens that can win. None where all must be looked at."""
        if self._takes_best:
            return int(logits.argmax())
        return self._shortlist.choose(self._chain, logits) if self._cuts_first else None

    def _apply(self, candidates: npt.NDArray[Any]) -> int:
        array = token_array(candidates)
        lib.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            raise RuntimeError("no token was chosen")
        return int(array.data[array.selected].id)

    def _adjust(self, logits: npt.NDArray[np.float32]) -> None:
        if len(self._biased) > _FEW:
            logits[self._biased] += self._biases
        for token, value in self._few_biases:
            logits[token] += value
        if not self._penalises or not self._counts:
            return
        tokens = np.fromiter(self._counts.keys(), dtype=np.int32, count=len(self._counts))
        counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
        values = logits[tokens]
        repeat = self._sampling.repeat_penalty
        values = np.where(values > 0, values / repeat, values * repeat)
        logits[tokens] = values - counts * self._sampling.frequency_penalty - self._sampling.presence_penalty

    def _remember(self, token: int) -> None:
        if self._feeds_chain:
            lib.llama_sampler_accept(self._chain, token)
        if self._penalises:
            self._count(token)

    def _count(self, token: int) -> None:
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._recent.append(token)
        self._counts[token] += 1


def token_array(candidates: npt.NDArray[Any]) -> Any:
    """Describe *candidates* (kept alive by the caller) to llama.cpp."""
    array = lib.llama_token_data_array()
    array.data = candidates.ctypes.data_as(lib.llama_token_data_p)
    array.size = len(candidates)
    array.selected = -1
    array.sorted = False
    return array


def single(token: int) -> npt.NDArray[Any]:
    return np.array([(token, 1.0, 0.0)], dtype=_TOKEN_DATA)


def _candidates(logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    candidates = _numbered(len(logits)).copy()
    candidates["logit"] = logits
    return candidates


@functools.cache
def _numbered(count: int) -> npt.NDArray[Any]:
    numbered = np.zeros(count, dtype=_TOKEN_DATA)
    numbered["id"] = np.arange(count, dtype=np.int32)
    return numbered


def _biases(weights: Weights, sampling: Sampling) -> dict[int, float]:
    bias = dict(sampling.logit_bias)
    bias.update(dict.fromkeys(weights.suppressed, -np.inf))
    if sampling.ignore_eos:
        bias.update(dict.fromkeys(weights.end_tokens(), -np.inf))
    return bias


def _chain(weights: Weights, sampling: Sampling, ctx_len: int) -> Any:
    """Build the chain; it owns its samplers. Order as in llama.cpp's server: dry, top_n_sigma, top_k, typical, top_p, min_p, xtc, temperature, choice."""
    parameters = lib.llama_sampler_chain_default_params()
    chain = lib.llama_sampler_chain_init(parameters)

    def add(sampler: Any) -> None:
        if not sampler:  # a null sampler in a chain ends the process when it is used
            raise RuntimeError("llama.cpp refuses a sampler")
        lib.llama_sampler_chain_add(chain, sampler)

    if sampling.dry_multiplier > 0:
        breakers = [text.encode() for text in sampling.dry_sequence_breakers]
        add(
            lib.llama_sampler_init_dry(
                weights.vocab,
                sampling.dry_multiplier,
                sampling.dry_base,
                sampling.dry_allowed_length,
                sampling.dry_penalty_last_n if sampling.dry_penalty_last_n >= 0 else ctx_len,
                (ctypes.c_char_p * len(breakers))(*breakers),
                len(breakers),
            )
        )
    if sampling.temperature <= 0:
        add(lib.llama_sampler_init_greedy())
        return chain
    if sampling.mirostat:
        _add_mirostat(add, weights, sampling)
        return chain
    _add_cuts(add, sampling, weights.facts.n_vocab)
    if sampling.dynatemp_range > 0:
        add(lib.llama_sampler_init_temp_ext(sampling.temperature, sampling.dynatemp_range, sampling.dynatemp_exponent))
    else:
        add(lib.llama_sampler_init_temp(sampling.temperature))
    add(lib.llama_sampler_init_dist(sampling.seed))
    return chain


def _add_mirostat(add: Any, weights: Weights, sampling: Sampling) -> None:
    add(lib.llama_sampler_init_temp(sampling.temperature))
    if sampling.mirostat == 1:
        add(
            lib.llama_sampler_init_mirostat(
                weights.facts.n_vocab, sampling.seed, sampling.mirostat_tau, sampling.mirostat_eta, 100
            )
        )
    else:
        add(lib.llama_sampler_init_mirostat_v2(sampling.seed, sampling.mirostat_tau, sampling.mirostat_eta))


def _add_cuts(add: Any, sampling: Sampling, n_vocab: int) -> None:
    keep = sampling.min_keep
    if sampling.top_n_sigma > 0:
        add(lib.llama_sampler_init_top_n_sigma(sampling.top_n_sigma))
    if 0 < sampling.top_k < n_vocab:
        add(lib.llama_sampler_init_top_k(sampling.top_k))
    elif sampling.top_p < 1.0 or sampling.typical_p < 1.0:
        add(lib.llama_sampler_init_top_k(_WIDE_TOP_K))
    if sampling.typical_p < 1.0:
        add(lib.llama_sampler_init_typical(sampling.typical_p, keep))
    if sampling.top_p < 1.0:
        add(lib.llama_sampler_init_top_p(sampling.top_p, keep))
    if sampling.min_p > 0.0:
        add(lib.llama_sampler_init_min_p(sampling.min_p, keep))
    if sampling.xtc_probability > 0.0:
        add(lib.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, keep, sampling.seed))
