"""Names of quantisations in all the styles that people use, and the order that choices are made by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.model.quantisation import (
    BY_QUALITY,
    FILE_TYPES,
    TENSOR_TYPES,
    SplitPart,
    bits_per_weight,
    canonical,
    file_type_name,
    find_quantization,
    is_projector_name,
    is_side_file,
    no_better_than,
    quality,
    split_names,
    split_part,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zephyr-7b-beta.Q2_K.gguf", "Q2_K"),
        ("zephyr-7b-beta.Q4_K_M.gguf", "Q4_K_M"),
        ("ggml-model-q4_k.gguf", "Q4_K_M"),
        ("ggml-model-q5_k.gguf", "Q5_K_M"),
        ("ggml-model-f16.gguf", "F16"),
        ("mmproj-model-f16.gguf", "F16"),
        ("Meta-Llama-3.1-8B-Instruct-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("DeepSeek-R1-UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("Q4_K_M/foo-00001-of-00003.gguf", "Q4_K_M"),
        ("BF16/model-00002-of-00009.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4_MOE"),
        ("gpt-oss-120b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("model.i1-Q6_K.gguf", "Q6_K"),
        ("phi-2_Q8_0.gguf", "Q8_0"),
        ("model-fp16.gguf", "F16"),
        ("model.FP32.gguf", "F32"),
        ("Llama-3.2-1B-Instruct-Q6_K_L.gguf", "Q6_K_L"),
        ("gemma-3-270m-q4-k-m.gguf", "Q4_K_M"),
        ("bitnet-TQ2_0.gguf", "TQ2_0"),
        ("model-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("model-nvfp4.gguf", "NVFP4"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Kunoichi-7B-Q5_K_S-imatrix.gguf", "Q5_K_S"),
        ("llama2-7b-gguf-Q3_K_L.json", "Q3_K_L"),
        ("llama2-7b-gguf-Q2.json", "Q2_K"),
        ("llava-ggml-Q5.json", "Q5_K_M"),
        ("llama-70b-finetune-q5.json", "Q5_K_M"),
        ("Qwen2-Q4-Q8_0.gguf", "Q8_0"),
    ],
)
def test_the_quantisation_is_found_in_every_style_of_name(name: str, expected: str) -> None:
    assert find_quantization(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf",
        "llama-2-7b.bin",
        "Qwen2.5-7B.gguf",
        "mix-55IQ2_XXS-34Q2_KX.gguf",
        "faq4.gguf",
        "F160-notes.txt",
        "",
    ],
)
def test_a_name_that_says_nothing_gives_none(name: str) -> None:
    assert find_quantization(name) is None


def test_the_last_quantisation_of_a_path_counts() -> None:
    assert find_quantization("F16/model-Q8_0.gguf") == "Q8_0"


@given(
    st.sampled_from(BY_QUALITY),
    st.sampled_from(["{}", "m-{}.gguf", "m.{}.gguf", "{}/m.gguf", "m_{}-00001-of-00002.gguf"]),
)
def test_every_known_name_is_found_in_either_case_and_stays_itself(name: str, style: str) -> None:
    assert find_quantization(style.format(name)) == find_quantization(style.format(name.lower())) == name
    assert canonical(name.lower()) == name


@given(st.text())
def test_any_text_is_searched_without_harm(text: str) -> None:
    found = find_quantization(text)
    assert found is None or canonical(found) == found
    is_side_file(text)
    split_names(text)


def test_file_types_have_the_numbers_that_the_gguf_package_gives_them() -> None:
    import gguf

    theirs = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    theirs.pop(1024)
    assert {number: FILE_TYPES[number] for number in theirs} == theirs


def test_tensor_types_have_the_sizes_that_the_gguf_package_gives_them() -> None:
    """But for Q8_1, whose size there is that of an old version; ggml-common.h says 36, and no file has it."""
    import gguf

    theirs = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    theirs[9] = ("Q8_1", 32, 36)
    assert {number: tuple(TENSOR_TYPES[number]) for number in theirs} == theirs


def test_a_guessed_file_type_has_the_same_name_and_a_newer_one_none() -> None:
    assert file_type_name(1024 + 15) == file_type_name(15) == "Q4_K_M"
    assert file_type_name(999) is None
    assert file_type_name(None) is None


def test_file_types_that_files_still_have_can_all_be_compared() -> None:
    removed = {"Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8"}
    assert set(FILE_TYPES.values()) - removed <= set(BY_QUALITY)


def test_the_order_is_by_quality_and_not_by_size() -> None:
    order = [
        "F16",
        "Q8_0",
        "Q6_K",
        "Q5_K_M",
        "Q4_K_M",
        "Q4_K_S",
        "IQ4_NL",
        "IQ4_XS",
        "Q4_0",
        "Q3_K_L",
        "Q3_K_M",
        "IQ3_M",
    ]
    order += ["Q3_K_S", "Q2_K", "IQ1_S"]
    assert sorted(order, key=lambda name: quality(name) or 0) == order
    assert (bits_per_weight("Q4_0") or 0) > (bits_per_weight("IQ4_XS") or 0)


def test_what_a_machine_tries_begins_with_the_best_it_wants() -> None:
    tried = no_better_than("q4_k")
    assert tried[0] == "Q4_K_M"
    assert "Q5_K_M" not in tried
    assert "Q2_K" in tried
    assert no_better_than("nonsense") == ()


def test_an_unsloth_file_ranks_and_weighs_like_its_namesake() -> None:
    assert quality("UD-Q4_K_M") == quality("Q4_K_M")
    assert bits_per_weight("ud-q4_k_m") == bits_per_weight("Q4_K_M") == 4.89
    assert bits_per_weight("Q9_X") is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("big-00001-of-00003.gguf", SplitPart("big", 1, 3)),
        ("Q4_K_M/big-Q4_K_M-00003-of-00003.GGUF", SplitPart("Q4_K_M/big-Q4_K_M", 3, 3)),
        ("big-00004-of-00003.gguf", None),
        ("big-00000-of-00003.gguf", None),
        ("big-1-of-3.gguf", None),
        ("big-00001-of-00003.safetensors", None),
        ("-00001-of-00003.gguf", None),
        ("big.gguf", None),
    ],
)
def test_the_name_of_a_split_part_is_taken_apart(name: str, part: SplitPart | None) -> None:
    assert split_part(name) == part


def test_all_parts_of_a_split_model_are_listed_in_order() -> None:
    parts = split_names("d/big-00002-of-00003.gguf")
    assert parts == ("d/big-00001-of-00003.gguf", "d/big-00002-of-00003.gguf", "d/big-00003-of-00003.gguf")
    assert split_names("big.gguf") == ("big.gguf",)


@pytest.mark.parametrize(
    "name",
    [
        "mmproj-model-f16.gguf",
        "llava.proj",
        "imatrix.gguf",
        "model-imatrix-f16.gguf",
        "imatrix_unsloth.gguf",
        "mtp-Qwen3-Q8_0.gguf",
        "model-eagle3-Q4_K_M.gguf",
        "dflash-model.gguf",
        "dspark-model.gguf",
        "ggml-lora-f16.gguf",
        "my-finetune-lora-f16.gguf",
        "adapter.gguf",
        "ggml-vocab-llama-bpe.gguf",
    ],
)
def test_what_only_goes_with_a_model_is_told_by_its_name(name: str) -> None:
    assert is_side_file(name)
    assert is_side_file(f"folder/{name}")


@pytest.mark.parametrize(
    "name",
    [
        "zephyr-7b-beta.Q4_K_M.gguf",
        "gpt4-alpaca-lora-30b.Q4_K_M.gguf",
        "NeuralDaredevil-8B-lorablated.Q4_K_M.gguf",
        "Kunoichi-7B-Q4_K_M-imatrix.gguf",
        "GLM-4.5-MTP-Q4_K_M.gguf",
        "mmproj-folder/model.gguf",
        "lora/model-Q4_0.gguf",
    ],
)
def test_a_model_is_not_taken_for_a_side_file(name: str) -> None:
    assert not is_side_file(name)


def test_a_projector_is_told_by_its_name() -> None:
    assert is_projector_name("x/llava-ggml.PROJ")
    assert is_projector_name("Model-mmproj-BF16.gguf")
    assert not is_projector_name("mmproj/model.gguf")
