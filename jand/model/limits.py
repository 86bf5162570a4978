"""The least and the most that each number of `parameters.init` may be: one table for the JSON, for overrides of a start and for the worker.

A worker imports this before it loads anything, so it pulls in nothing.
"""

from __future__ import annotations

from typing import Final

INIT: Final[dict[str, tuple[int, int]]] = {
    "ctx_len": (1, 1 << 24),
    "ngl": (-1, 1 << 20),
    "n_parallel": (1, 256),
    "n_threads": (1, 512),
    "n_threads_batch": (1, 512),
    "n_batch": (1, 1 << 16),
}
"""256 sequences are llama.cpp's own limit and 512 threads ggml's (LLAMA_MAX_SEQ, GGML_MAX_N_THREADS); the others keep products of them far from what C's numbers hold."""

PLAIN_CACHE_TYPES: Final = frozenset({"f32", "f16", "bf16"})
"""What values in the KV cache may be without flash attention; llama.cpp refuses to make a context with any other."""
