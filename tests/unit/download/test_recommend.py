"""The rule of what suits a machine, by its worked examples and on machines from 4 to 80 GB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.download.recommend import (
    BUFFERS,
    GB,
    UNKNOWN_SHAPE,
    Gpu,
    Machine,
    Place,
    Use,
    beside_weights,
    kv_cache_bytes,
    recommend,
)
from jand.download.repository import HubFile
from jand.download.variants import Variant, variants_of
from jand.errors import NothingFitsError
from jand.model.gguf import read_header
from tests.fakes.downloading import machine
from tests.fakes.hub_files import (
    LLAMA_13B,
    LLAVA_SIZES,
    MISTRAL_7B,
    ZEPHYR_SIZES,
    gguf_header,
    llama_facts,
    llava_files,
    zephyr_files,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.model.gguf import Header

EXAMPLE = Use(ctx_len=2048, n_parallel=4)
"""`parameters.init` of the examples in model-specs.md."""


def header_of(facts: Mapping[str, str | int]) -> Header:
    raw = gguf_header(32, dict(facts)) + bytes(32)
    return read_header(io.BytesIO(raw), len(raw))


def zephyr() -> tuple[Variant, ...]:
    return variants_of(HubFile(path, file.size) for path, file in zephyr_files().items())


def llava() -> tuple[Variant, ...]:
    return variants_of(HubFile(path, file.size) for path, file in llava_files().items())


def chosen(
    variants: tuple[Variant, ...], where: Machine, facts: Mapping[str, str | int], use: Use, projector: int = 0
) -> str:
    choice = recommend(variants, where, beside=beside_weights(header_of(facts), use, projector), use=use)
    return f"{choice.variant.quantization} {choice.place}"


# Worked by hand for Mistral 7B: KV 0.537 GB at 4096 tokens, 1.074 GB at 4 x 2048; 0.5 GB of buffers.
WORKED = [
    (8, 0, "Q4_K_M memory"),
    (16, 0, "Q4_K_M memory"),
    (24, 0, "Q4_K_M memory"),
    (80, 0, "Q4_K_M memory"),
    (16, 6, "Q3_K_L gpu"),
    (16, 8, "Q5_K_M gpu"),
    (16, 12, "Q6_K gpu"),
    (32, 24, "Q6_K gpu"),
    (64, 80, "Q6_K gpu"),
    (16, 4, "Q4_K_M memory"),
    (7, 0, "Q3_K_L memory"),
    (6.6, 0, "Q3_K_M memory"),
    (6.5, 0, "Q3_K_S memory"),
    (6.2, 0, "Q2_K memory"),
]


@pytest.mark.parametrize(("memory_gb", "gpu_gb", "expected"), WORKED)
def test_zephyr_by_the_worked_examples(memory_gb: float, gpu_gb: float, expected: str) -> None:
    assert chosen(zephyr(), machine(memory_gb, gpu_gb), MISTRAL_7B, Use()) == expected


@pytest.mark.parametrize(
    ("memory_gb", "gpu_gb", "expected"),
    [(8, 0, "Q4_K_M memory"), (16, 8, "Q5_K_S gpu"), (16, 12, "Q6_K gpu"), (80, 0, "Q4_K_M memory")],
)
def test_zephyr_as_the_example_wants_it_run(memory_gb: float, gpu_gb: float, expected: str) -> None:
    """Four conversations of 2048 tokens take twice the cache of one of 4096."""
    assert chosen(zephyr(), machine(memory_gb, gpu_gb), MISTRAL_7B, EXAMPLE) == expected


@pytest.mark.parametrize(
    ("memory_gb", "gpu_gb", "expected"),
    [
        (24, 0, "Q4_K_M memory"),
        (32, 0, "Q4_K_M memory"),
        (80, 0, "Q4_K_M memory"),
        (32, 24, "Q5_K_M gpu"),
        (64, 48, "Q5_K_M gpu"),
    ],
)
def test_llava_as_the_example_wants_it_run(memory_gb: float, gpu_gb: float, expected: str) -> None:
    """Its q4_k is Q4_K_M by another name, and the 26 GB of F16 are beyond what is worth it, however large the machine."""
    assert (
        chosen(llava(), machine(memory_gb, gpu_gb), LLAMA_13B, EXAMPLE, LLAVA_SIZES["mmproj-model-f16.gguf"])
        == expected
    )


@pytest.mark.parametrize("memory_gb", [4, 5])
def test_where_nothing_fits_the_numbers_are_told(memory_gb: float) -> None:
    with pytest.raises(NothingFitsError) as caught:
        chosen(zephyr(), machine(memory_gb), MISTRAL_7B, Use())
    assert caught.value.facts["smallest"] == 3_083_098_400 + 536_870_912 + BUFFERS
    assert caught.value.facts["budget"] == (memory_gb - 2) * GB
    assert "the smallest, Q2_K, needs 4.12 GB" in caught.value.message
    assert f"this machine can give {memory_gb - 2:.2f} GB" in caught.value.message


def test_llava_does_not_fit_16_gb_with_four_conversations() -> None:
    with pytest.raises(NothingFitsError):
        chosen(llava(), machine(16), LLAMA_13B, EXAMPLE, LLAVA_SIZES["mmproj-model-f16.gguf"])


def test_without_a_header_the_allowance_of_published_tables_is_taken() -> None:
    """TheBloke's tables: largest memory required = size + 2.50 GB, for Q2_K 3.08 -> 5.58 and Q4_K_M 4.37 -> 6.87."""
    assert beside_weights(None, Use(), 0) == UNKNOWN_SHAPE
    table = {q: round((size + UNKNOWN_SHAPE) / GB, 2) for q, size in ZEPHYR_SIZES.items()}
    assert table["Q2_K"] == 5.58
    assert table["Q4_K_M"] == 6.87
    assert table["Q8_0"] == 10.2


def test_a_gpu_is_left_alone_where_the_json_keeps_layers_off_it() -> None:
    assert chosen(zephyr(), machine(16, 24), MISTRAL_7B, Use(on_gpu=False)) == "Q4_K_M memory"


def test_only_the_largest_gpu_counts() -> None:
    two = Machine(16 * GB, (Gpu("a", 6 * GB), Gpu("b", 6 * GB)))
    assert chosen(zephyr(), two, MISTRAL_7B, Use()) == "Q3_K_L gpu"


def test_a_gpu_that_can_hold_only_the_worst_gives_way_to_memory() -> None:
    tiny_gpu = machine(16, 5.3)
    assert tiny_gpu.gpu_budget > 3_083_098_400 + 536_870_912 + BUFFERS
    assert chosen(zephyr()[:1], tiny_gpu, MISTRAL_7B, Use()) == "Q2_K memory"
    assert chosen(zephyr()[:1], machine(4, 5.3), MISTRAL_7B, Use()) == "Q2_K gpu"


def test_where_all_are_better_than_memory_wants_the_smallest_is_taken() -> None:
    large = tuple(variant for variant in zephyr() if variant.quantization in {"Q5_K_M", "Q6_K", "Q8_0"})
    assert chosen(large, machine(80), MISTRAL_7B, Use()) == "Q5_K_M memory"


def test_a_variant_of_unknown_kind_can_be_chosen_where_it_is_the_only_one() -> None:
    only = variants_of([HubFile("model.gguf", GB)])
    assert chosen(only, machine(8), MISTRAL_7B, Use()) == "None memory"


def test_a_full_disk_is_part_of_the_fit() -> None:
    use = Use()
    beside = beside_weights(header_of(MISTRAL_7B), use, 0)
    choice = recommend(zephyr(), machine(24), beside=beside, use=use, disk_free=4 * GB)
    assert choice.variant.quantization == "Q3_K_L"
    with pytest.raises(NothingFitsError, match=r"the disk has 1\.00 GB free"):
        recommend(zephyr(), machine(24), beside=beside, use=use, disk_free=GB)


def test_the_table_shows_every_variant_and_the_choice() -> None:
    use = Use()
    choice = recommend(zephyr(), machine(16, 8), beside=beside_weights(header_of(MISTRAL_7B), use, 0), use=use)
    assert len(choice.table) == 12
    assert [row.quantization for row in choice.table if row.chosen] == ["Q5_K_M"]
    places = {row.quantization: row.place for row in choice.table}
    assert places["Q5_K_M"] is Place.GPU
    assert places["Q8_0"] is Place.MEMORY
    assert "6.17 GB" in choice.reason


def test_the_cache_counts_key_value_heads_and_cache_types() -> None:
    """32 layers x 8 heads x (128 + 128) x 4096 tokens x 2 bytes."""
    header = header_of(MISTRAL_7B)
    assert kv_cache_bytes(header, Use()) == 32 * 8 * 256 * 4096 * 2
    assert kv_cache_bytes(header, EXAMPLE) == 2 * kv_cache_bytes(header, Use())
    halved = Use(cache_type_k="q8_0", cache_type_v="q8_0")
    assert kv_cache_bytes(header, halved) == kv_cache_bytes(header, Use()) * 34 // 64


def test_a_short_training_context_bounds_the_default() -> None:
    assert kv_cache_bytes(header_of(llama_facts(context=512)), Use()) * 8 == kv_cache_bytes(
        header_of(llama_facts()), Use()
    )


def test_a_sliding_window_costs_less() -> None:
    """Gemma 3 keeps the whole context in one layer of six; 512 tokens and one batch in the others."""
    facts: dict[str, str | int] = {
        "general.architecture": "gemma3",
        "gemma3.context_length": 32768,
        "gemma3.block_count": 12,
        "gemma3.embedding_length": 1024,
        "gemma3.attention.head_count": 4,
        "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": 256,
        "gemma3.attention.value_length": 256,
        "gemma3.attention.sliding_window": 512,
    }
    one_layer = 512 * 2
    assert kv_cache_bytes(header_of(facts), Use(ctx_len=8192)) == one_layer * (2 * 8192 + 10 * 1024)


@given(st.integers(1, 200), st.integers(0, 100), st.integers(1, 32768), st.integers(1, 8))
def test_what_is_chosen_fits_where_it_is_said_to(memory_gb: int, gpu_gb: int, ctx_len: int, n_parallel: int) -> None:
    where = machine(memory_gb, gpu_gb)
    use = Use(ctx_len=ctx_len, n_parallel=n_parallel)
    beside = beside_weights(header_of(MISTRAL_7B), use, 0)
    try:
        choice = recommend(zephyr(), where, beside=beside, use=use)
    except NothingFitsError:
        assert min(ZEPHYR_SIZES.values()) + beside > max(where.memory_budget, where.gpu_budget)
        return
    budget = where.gpu_budget if choice.place is Place.GPU else where.memory_budget
    assert choice.variant.size + beside <= budget


@given(st.integers(1, 100), st.integers(1, 100))
def test_more_memory_never_means_a_worse_choice(less: int, more: int) -> None:
    less, more = sorted((less, more))
    beside = beside_weights(header_of(MISTRAL_7B), Use(), 0)
    ranks = []
    for memory_gb in (less, more):
        try:
            rank = recommend(zephyr(), machine(memory_gb), beside=beside, use=Use()).variant.rank
        except NothingFitsError:
            rank = 10**6
        assert rank is not None
        ranks.append(rank)
    assert ranks[1] <= ranks[0]
