"""Which files of a listing are one model, by names of every style in use."""

from __future__ import annotations

import pytest

from jand.download.repository import HubFile
from jand.download.variants import base_of, projectors_of, variants_of


def names(*paths: str) -> list[tuple[str, str | None, int]]:
    return [
        (found.base, found.quantization, len(found.files)) for found in variants_of(HubFile(path, 10) for path in paths)
    ]


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("zephyr-7b-beta.Q2_K.gguf", "zephyr-7b-beta"),
        ("zephyr-7b-beta.Q3_K_L.gguf", "zephyr-7b-beta"),
        ("ggml-model-q4_k.gguf", "ggml-model"),
        ("ggml-model-f16.gguf", "ggml-model"),
        ("Qwen3-4B-UD-Q4_K_XL.gguf", "qwen3-4b"),
        ("Qwen3-4B-Q4_K_M.gguf", "qwen3-4b"),
        ("Qwen3-4B-IQ4_NL.gguf", "qwen3-4b"),
        ("BF16/Qwen3-4B-BF16-00001-of-00002.gguf", "qwen3-4b"),
        ("gpt-oss-20b-mxfp4.gguf", "gpt-oss-20b"),
        ("model.i1-Q4_K_M.gguf", "model.i1"),
        ("model.gguf", "model"),
        ("Q4_K_M.gguf", ""),
    ],
)
def test_siblings_share_a_base(path: str, base: str) -> None:
    assert base_of(path) == base


def test_side_files_are_no_variants() -> None:
    found = names(
        "m-Q4_K_M.gguf", "mmproj-m-f16.gguf", "imatrix.gguf", "lora-m.gguf", "README.md", "config.json", "m.bin"
    )
    assert found == [("m", "Q4_K_M", 1)]


def test_split_parts_are_one_and_only_when_all_are_there() -> None:
    parts = [f"Q8_0/m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert names(*parts) == [("m", "Q8_0", 3)]
    assert names(*parts[:2]) == []
    assert [file.path for file in variants_of(HubFile(path, 1) for path in reversed(parts))[0].files] == parts


def test_the_projector_to_take_is_near_the_top_and_of_good_quality() -> None:
    found = projectors_of(
        HubFile(path, 1)
        for path in ["m-Q4.gguf", "mmproj-Q8_0.gguf", "sub/mmproj-F16.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf"]
    )
    assert [file.path for file in found] == [
        "mmproj-BF16.gguf",
        "mmproj-Q8_0.gguf",
        "mmproj-F32.gguf",
        "sub/mmproj-F16.gguf",
    ]
