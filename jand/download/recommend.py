"""Which variant of a model suits a machine: a pure rule with its arithmetic shown.

The rule is the contract's ("Recommended"). Where a GPU can hold a variant whole, the best quality that fits there, up to Q6_K; else in memory less a reserve, Q4_K_M or the next
smaller one, since generation there is bound by memory bandwidth. GB are 10^9 bytes, as hubs count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from jand.errors import NothingFitsError
from jand.model.quantisation import quality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.download.variants import Variant
    from jand.model.gguf import Header

GB: Final = 10**9

BUFFERS: Final = GB // 2
"""Compute buffers and the process itself."""

UNKNOWN_SHAPE: Final = 5 * GB // 2
"""What is added to a file's size where its header cannot be read: the allowance in TheBloke's tables."""

LEAST_RESERVE: Final = 2 * GB
DEFAULT_CONTEXT: Final = 4096

BEST_ON_GPU: Final = "Q6_K"
BEST_IN_MEMORY: Final = "Q4_K_M"
WORST_ON_GPU: Final = "IQ3_XXS"
"""Below it, a better variant in memory is worth more than the GPU's speed."""

# Bytes for each element of a KV cache type, from the block sizes of ggml.
_CACHE_BYTES: Final = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

# One layer in so many sees the whole context, the others a window: fixed in llama.cpp for each architecture, not in the file.
_WINDOW_PATTERN: Final = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4}
_BATCH: Final = 512


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that the engine can use; *memory* in bytes, its total and not what is free, so that a choice can be repeated."""

    name: str
    memory: int


@dataclass(frozen=True, slots=True)
class Machine:
    """*memory* in bytes: what is installed, or the limit of the control group where that is less."""

    memory: int
    gpus: tuple[Gpu, ...] = ()

    @property
    def memory_budget(self) -> int:
        return max(0, self.memory - max(LEAST_RESERVE, self.memory // 5))

    @property
    def gpu_budget(self) -> int:
        largest = max((gpu.memory for gpu in self.gpus), default=0)
        return max(0, largest * 9 // 10 - GB // 2)


@dataclass(frozen=True, slots=True)
class Use:
    """How a model is to run. *ctx_len* tokens for each of *n_parallel* conversations; *on_gpu* false where the JSON keeps all layers off it."""

    ctx_len: int | None = None
    n_parallel: int = 1
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    on_gpu: bool = True


class Place(StrEnum):
    GPU = "gpu"
    MEMORY = "memory"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what a variant needs, in bytes, where that fits, and whether it was taken."""

    name: str
    quantization: str | None
    files: tuple[str, ...]
    size: int
    need: int
    place: Place
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    variant: Variant
    place: Place
    reason: str
    table: tuple[Row, ...]


def kv_cache_bytes(header: Header, use: Use) -> int:
    """Return the size of the KV cache of all conversations together."""
    layers = header.block_count or 0
    heads = max(header.head_count) if isinstance(header.head_count, tuple) else header.head_count or 1
    width = (header.embedding_length or 0) // max(heads, 1)
    per_head = (header.key_length or width) * _cache_bytes(use.cache_type_k) + (
        header.value_length or width
    ) * _cache_bytes(use.cache_type_v)
    kv_heads = header.head_count_kv if header.head_count_kv is not None else heads
    each = kv_heads if isinstance(kv_heads, tuple) else (kv_heads,) * layers
    cells = _context(header, use) * use.n_parallel
    pattern = _WINDOW_PATTERN.get(header.architecture)
    if pattern is None or not header.sliding_window:
        return int(sum(each) * per_head * cells)
    window = min(cells, header.sliding_window * use.n_parallel + _BATCH)
    return int(
        sum(
            count * per_head * (cells if layer % pattern == pattern - 1 else window) for layer, count in enumerate(each)
        )
    )


def _cache_bytes(cache_type: str) -> float:
    return _CACHE_BYTES.get(cache_type.lower(), 2.0)


def _context(header: Header, use: Use) -> int:
    return use.ctx_len or min(header.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def beside_weights(header: Header | None, use: Use, projector_size: int) -> int:
    """Return what a model needs beside its weights, in bytes."""
    if header is None or not header.block_count:
        return projector_size + UNKNOWN_SHAPE
    return projector_size + kv_cache_bytes(header, use) + BUFFERS


def recommend(
    variants: Sequence[Variant], machine: Machine, *, beside: int, use: Use, disk_free: int | None = None
) -> Choice:
    """Choose one of *variants* (of the same weights) for *machine*; *beside* is what each needs beside its weights.

    *disk_free* bytes are there for what must be fetched. Raises NothingFitsError, and nothing is to be downloaded then.
    """
    gpu_budget = machine.gpu_budget if use.on_gpu else 0
    room = [variant for variant in variants if disk_free is None or variant.size <= disk_free]
    on_gpu = [variant for variant in room if variant.size + beside <= gpu_budget]
    in_memory = [variant for variant in room if variant.size + beside <= machine.memory_budget]
    chosen, place = _choose(on_gpu, in_memory)
    table = tuple(
        Row(
            name=variant.name,
            quantization=variant.quantization,
            files=tuple(file.path for file in variant.files),
            size=variant.size,
            need=variant.size + beside,
            place=Place.GPU if variant in on_gpu else Place.MEMORY if variant in in_memory else Place.NOWHERE,
            chosen=variant is chosen,
        )
        for variant in sorted(variants, key=lambda each: each.size)
    )
    if chosen is None:
        raise _nothing_fits(table, machine, gpu_budget, disk_free)
    return Choice(chosen, place, _reason(chosen, place, beside, machine, gpu_budget), table)


def _choose(on_gpu: Sequence[Variant], in_memory: Sequence[Variant]) -> tuple[Variant | None, Place]:
    good = [variant for variant in on_gpu if _between(variant, BEST_ON_GPU, WORST_ON_GPU)]
    if good:
        return min(good, key=_by_quality), Place.GPU
    if in_memory:
        modest = [variant for variant in in_memory if _between(variant, BEST_IN_MEMORY, None)]
        # Where all are larger than what suits memory best, the smallest of them is nearest to it.
        return (min(modest, key=_by_quality) if modest else min(in_memory, key=_by_size)), Place.MEMORY
    if on_gpu:
        return max(on_gpu, key=_by_size), Place.GPU
    return None, Place.NOWHERE


def _between(variant: Variant, best: str, worst: str | None) -> bool:
    rank, highest = variant.rank, quality(best)
    if rank is None or highest is None or rank < highest:
        return False
    lowest = quality(worst) if worst else None
    return lowest is None or rank <= lowest


def _by_quality(variant: Variant) -> tuple[int, int, str]:
    return variant.rank if variant.rank is not None else 10**6, variant.size, variant.files[0].path


def _by_size(variant: Variant) -> tuple[int, str]:
    return variant.size, variant.files[0].path


def _reason(chosen: Variant, place: Place, beside: int, machine: Machine, gpu_budget: int) -> str:
    needs = f"{chosen.name} needs {gb(chosen.size + beside)} ({gb(chosen.size)} of weights, {gb(beside)} beside them)"
    if place is Place.GPU:
        return f"{needs} and is the best up to {BEST_ON_GPU} that fits whole in the {gb(gpu_budget)} a model may take of the GPU"
    return (
        f"{needs} of the {gb(machine.memory_budget)} of memory that a model may take here; "
        f"more than {BEST_IN_MEMORY} is slower there for little gain"
    )


def _nothing_fits(table: Sequence[Row], machine: Machine, gpu_budget: int, disk_free: int | None) -> NothingFitsError:
    smallest = min(table, key=lambda row: row.need)
    budget = max(machine.memory_budget, gpu_budget)
    if smallest.need <= budget and disk_free is not None:
        message = f"cannot choose a variant: the smallest, {smallest.name}, takes {gb(smallest.size)} and the disk has {gb(disk_free)} free"
        return NothingFitsError(
            message,
            hint="make room on the disk, or name a file in download_url",
            smallest=smallest.size,
            budget=disk_free,
        )
    message = f"cannot choose a variant: the smallest, {smallest.name}, needs {gb(smallest.need)} and this machine can give {gb(budget)}"
    hint = "take a smaller model, lower ctx_len or n_parallel, or name a file in download_url to have it all the same"
    return NothingFitsError(message, hint=hint, smallest=smallest.need, budget=budget)


def gb(size: int) -> str:
    """Write *size* bytes for people, as hubs do."""
    return f"{size / GB:.2f} GB" if size >= GB // 10 else f"{size / 10**6:.1f} MB"
