"""A context of llama.cpp: its memory of sequences, one batch, decoding. Only the thread that owns it may call anything here.

ggml aborts the process on a sequence, position or batch that does not fit, so each method checks what it is given.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jand.engine.protocol import DEFAULT_CTX_LEN
from jand.engine.worker.llama import lib
from jand.engine.worker.options import CACHE_TYPES, FLASH_ATTENTION, MICRO_BATCH
from jand.errors import StartError
from jand.errors.scarcity import or_raise_the_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from jand.engine.worker.options import Options
    from jand.engine.worker.pictures import PictureBatch
    from jand.engine.worker.weights import Weights

MOST_VIEWS: Final = 1024

PAD: Final = 256
"""llama.cpp rounds a context up to this many tokens."""

MEAN: Final = 1
"""The pooling for models that name none, by llama.cpp's number."""
EMBEDDING_SEQUENCES: Final = 64
DEFAULT_EMBEDDING_TOKENS: Final = 2048
MOST_EMBEDDING_TOKENS: Final = 8192
"""The memory for a batch's intermediate results grows with its square."""

WARM_UP_ALONE_BYTES: Final = 1 << 30
"""A model below that warms up on one thread: on a busy machine several would wait for one another longer than it takes."""


class Outcome(IntEnum):
    """What a decode came to; FATAL stands for every other negative number."""

    DONE = 0
    NO_ROOM = 1
    ABORTED = 2
    INVALID = -1
    FATAL = -2


class Batch:
    """Tokens for one decode, filled through views on the C arrays: hundreds of ctypes stores per token chunk would cost more than sampling."""

    atomic = False

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self._batch = lib.llama_batch_init(capacity, 0, 1)
        as_array = np.ctypeslib.as_array
        self._tokens = as_array(self._batch.token, (capacity,))
        self._positions = as_array(self._batch.pos, (capacity,))
        self._outputs = as_array(self._batch.logits, (capacity,))
        self._sequences = np.zeros(capacity, dtype=np.int32)
        as_array(self._batch.n_seq_id, (capacity,))[:] = 1
        pointers = as_array(ctypes.cast(self._batch.seq_id, ctypes.POINTER(ctypes.c_size_t)), (capacity,))
        pointers[:] = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uintp) * self._sequences.itemsize

    def clear(self) -> None:
        self.count = 0

    def add(self, sequence: int, tokens: Sequence[int] | npt.NDArray[np.int32], position: int, *, output: bool) -> int:
        """Append *tokens* at *position* of *sequence*; with *output* the last one's logits are wanted. Return the index of the last."""
        start, end = self.count, self.count + len(tokens)
        if not start < end <= self.capacity:
            raise ValueError("the batch has no room for that")
        if end == start + 1:  # what each step does for each answer, and a slice takes three times as long
            self._tokens[start], self._positions[start] = tokens[0], position
            self._sequences[start] = sequence
        else:
            self._tokens[start:end] = tokens
            self._positions[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
            self._sequences[start:end] = sequence
            self._outputs[start:end] = 0
        self._outputs[end - 1] = output
        self.count = end
        return end - 1

    def want_all_outputs(self) -> None:
        """Ask for an output of every token, as pooling does."""
        self._outputs[: self.count] = 1

    @property
    def raw(self) -> Any:
        self._batch.n_tokens = self.count
        return self._batch


def _bytes_of(array: npt.NDArray[np.uint8]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


class Context:
    """Owns a `llama_context` of *sequences* conversations of *ctx_len* tokens each."""

    def __init__(self, weights: Weights, handle: Any, sequences: int, ctx_len: int) -> None:
        self.weights = weights
        self.handle = handle
        self.sequences = sequences
        self.ctx_len = ctx_len
        self.n_batch = int(lib.llama_n_batch(handle))
        self.n_ubatch = int(lib.llama_n_ubatch(handle))
        self.pooling = int(lib.llama_pooling_type(handle))
        self._memory = lib.llama_get_memory(handle) or None
        self._n_vocab = weights.facts.n_vocab
        self._copying = False
        self._views: dict[int, npt.NDArray[np.float32]] = {}
        """Arrays over rows of logits by their address: llama.cpp keeps one buffer for them and moves it seldom."""
        self.can_remove_part = False
        """Whether the end of a sequence can be taken back; a recurrent model forgets only as a whole. Set by `warm_up`."""

    @property
    def has_memory(self) -> bool:
        return self._memory is not None

    def decode(self, batch: Batch | PictureBatch) -> Outcome:
        """Run *batch*; the GIL is free meanwhile. Whatever is not DONE may have left part of the batch in the memory: ask `last_position`."""
        if batch.count > (self.n_ubatch if batch.atomic else self.n_batch):
            raise ValueError("more tokens than a batch of this context holds")
        if batch.atomic:
            lib.llama_set_causal_attn(self.handle, False)
        try:
            code = int(lib.llama_decode(self.handle, batch.raw))
            self._copying = False
        finally:
            if batch.atomic:
                lib.llama_set_causal_attn(self.handle, True)
        return Outcome(code) if code in set(Outcome) else Outcome.FATAL

    def logits(self, index: int) -> npt.NDArray[np.float32] | None:
        """Return a view on the logits of the batch's token *index*, valid and writable until the next decode."""
        pointer = lib.llama_get_logits_ith(self.handle, index)
        if not pointer:
            return None
        address = ctypes.addressof(pointer.contents)
        if (view := self._views.get(address)) is None:  # making one costs more than choosing a token from it
            if len(self._views) > MOST_VIEWS:
                self._views.clear()
            view = self._views[address] = np.ctypeslib.as_array(pointer, (self._n_vocab,))
        return view

    def embedding(self, sequence: int) -> npt.NDArray[np.float32] | None:
        pointer = lib.llama_get_embeddings_seq(self.handle, sequence)
        return np.ctypeslib.as_array(pointer, (self.weights.facts.n_embd,)).copy() if pointer else None

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Drop *sequence* from position *start* on; false where the model cannot forget a part (nothing is changed then)."""
        self._check(sequence)
        return bool(lib.llama_memory_seq_rm(self._memory, sequence, start, -1)) if self._memory else True

    def forget_all(self) -> None:
        if self._memory:
            lib.llama_memory_clear(self._memory, True)

    def copy(self, source: int, target: int, end: int) -> None:
        """Give *target* what *source* holds before position *end*, in place of its own. The bytes go over with the next decode."""
        self._check(source)
        self._check(target)
        if source == target or end < 1 or not self.can_remove_part:
            raise ValueError(f"cannot copy {end} tokens of sequence {source}")
        lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self._copying = True
        self.forget(target, end)

    def exchange(self, moved: int, free: int, most_bytes: int) -> bool:
        """Let two sequences change places, through memory of at most *most_bytes*; false where they stay, for they hold more or llama.cpp refuses.

        What *moved* holds is never lost; what *free* holds may be: ask `last_position`.
        """
        self._check(moved)
        self._check(free)
        sizes = [int(lib.llama_state_seq_get_size(self.handle, sequence)) for sequence in (moved, free)]
        if self._copying or sum(sizes) > most_bytes:
            return False
        states = [np.empty(size, dtype=np.uint8) for size in sizes]
        for sequence, state in zip((moved, free), states, strict=True):
            if lib.llama_state_seq_get_data(self.handle, _bytes_of(state), state.size, sequence) != state.size:
                return False
        if not lib.llama_state_seq_set_data(self.handle, _bytes_of(states[0]), sizes[0], free):
            self.forget(free)
            return False
        if not lib.llama_state_seq_set_data(self.handle, _bytes_of(states[1]), sizes[1], moved):
            self.forget(moved)
        return True

    def first_position(self, sequence: int) -> int:
        """Return the lowest position still held, -1 for none: a sliding window lets go of what is behind it."""
        self._check(sequence)
        return int(lib.llama_memory_seq_pos_min(self._memory, sequence)) if self._memory else -1

    def last_position(self, sequence: int) -> int:
        self._check(sequence)
        return int(lib.llama_memory_seq_pos_max(self._memory, sequence)) if self._memory else -1

    def adapt(self, adapters: Sequence[tuple[Any, float]]) -> None:
        """Put *adapters* with their scales on all that is decoded from now on; a context has one set for all its sequences."""
        handles = (ctypes.c_void_p * len(adapters))(
            *(ctypes.cast(handle, ctypes.c_void_p).value for handle, _ in adapters)
        )
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
        kind = lib.llama_set_adapters_lora.argtypes[1]
        if lib.llama_set_adapters_lora(self.handle, ctypes.cast(handles, kind), len(adapters), scales):
            raise StartError(
                "llama.cpp cannot apply the LoRA adapters to this model", param="lora", reason="lora-failed"
            )

    def set_threads(self, generating: int, reading: int) -> None:
        lib.llama_set_n_threads(self.handle, generating, reading)

    def _check(self, sequence: int) -> None:
        if not 0 <= sequence < self.sequences:
            raise ValueError(f"there is no sequence {sequence}")

    def warm_up(self) -> None:
        """Decode two tokens, the smallest batch that takes the paths of a prompt, and find out what this model's memory can take back."""
        first = max(self.weights.bos, 0)
        if self.weights.facts.size < WARM_UP_ALONE_BYTES:
            self.set_threads(1, 1)
        batch = Batch(2)
        batch.add(0, [first, first], 0, output=True)
        if self.pooling > 0:
            batch.want_all_outputs()
        outcome = self.decode(batch)
        if outcome is not Outcome.DONE:
            raise StartError(f"the first decode failed ({outcome.name.lower()})", reason="warm-up-failed")
        lib.llama_synchronize(self.handle)
        self.can_remove_part = self.has_memory and bool(lib.llama_memory_seq_rm(self._memory, 0, 1, -1))
        self.forget_all()


def open_context(weights: Weights, options: Options, *, atomic_images: bool = False) -> Context:
    """Make the context for generation; its memory is taken here, so that a running answer never lacks it.

    *atomic_images*: a whole image must fit into one micro-batch.
    """
    trained = weights.facts.n_ctx_train
    ctx_len = options.ctx_len or min(DEFAULT_CTX_LEN, trained or DEFAULT_CTX_LEN)
    padded = -(-ctx_len // PAD) * PAD
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = padded * options.n_parallel
    parameters.n_seq_max = options.n_parallel
    parameters.kv_unified = False  # see `prefixes`
    parameters.n_batch = max(options.n_batch, options.n_parallel)
    parameters.n_ubatch = min(MICRO_BATCH * (4 if atomic_images else 1), parameters.n_batch)
    apply_common(parameters, options)
    return _open(weights, parameters, options.n_parallel, ctx_len)


def open_embedding_context(weights: Weights, options: Options) -> Context:
    """Make a context that pools whole inputs: one batch holds them and no micro-batch splits them, which would silently change the vectors."""
    facts = weights.facts
    trained = facts.n_ctx_train or DEFAULT_EMBEDDING_TOKENS
    tokens = min(options.ctx_len or DEFAULT_EMBEDDING_TOKENS, MOST_EMBEDDING_TOKENS)
    tokens = min(tokens, trained) if not facts.causal else tokens  # an encoder has no positions beyond
    parameters = lib.llama_context_default_params()
    parameters.n_ctx = -(-tokens // PAD) * PAD
    parameters.n_seq_max = EMBEDDING_SEQUENCES
    parameters.kv_unified = True
    parameters.n_batch = parameters.n_ubatch = tokens
    parameters.embeddings = True
    parameters.pooling_type = facts.pooling or MEAN
    apply_common(parameters, options)
    return _open(weights, parameters, EMBEDDING_SEQUENCES, tokens)


def apply_common(parameters: Any, options: Options) -> None:
    parameters.n_threads = options.n_threads
    parameters.n_threads_batch = options.n_threads_batch
    parameters.flash_attn_type = FLASH_ATTENTION[options.flash_attn]
    parameters.type_k = CACHE_TYPES[options.cache_type_k]
    parameters.type_v = CACHE_TYPES[options.cache_type_v]


def _open(weights: Weights, parameters: Any, sequences: int, ctx_len: int) -> Context:
    handle = lib.llama_init_from_model(weights.handle, parameters)
    if not handle:
        raise StartError(
            f"llama.cpp cannot make a context of {parameters.n_ctx} tokens for {sequences} at a time",
            hint=f"lower ctx_len or n_parallel{or_raise_the_limit()}; the last lines of the worker's log say more",
            reason="context-failed",
        )
    return Context(weights, handle, sequences, ctx_len)
