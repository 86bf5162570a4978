"""What a file's name promises, and where a reference in a model JSON leads."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.model import filenames
from jand.model.filenames import Kind, Source

file_names = st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw)
"""Whatever a file may be called."""


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.gguf",
        ".model.gguf.Xa81bz",
        "model.gguf~",
        "model.tmp",
        "model.gguf.TEMP",
        "model.gguf.part",
        "model.partial",
        "sha256-0123abc-partial",
        "sha256-0123abc-partial-14",
        "model.gguf.crdownload",
        "Unconfirmed.download",
        "0f3e.incomplete",
        "model.gguf.aria2",
        ".~tmp~",
        ".syncthing.model.gguf.tmp",
        "~syncthing~model.gguf.tmp",
        "._model.gguf",
        ".DS_Store",
        ".nfs00000000012",
        ".fuse_hidden0001",
        "4913",
        ".jand-part",
        ".json",
    ],
)
def test_a_name_for_what_is_not_finished_is_left_out(name: str) -> None:
    assert filenames.is_temporary(name)
    assert filenames.kind(name) is Kind.OTHER


@pytest.mark.parametrize("name", [".gguf", ".bin", ".proj", "ggml", ".GGUF"])
def test_the_names_of_the_specified_layouts_are_binaries(name: str) -> None:
    assert filenames.kind(name) is Kind.BINARY


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.json", Kind.JSON),
        ("Zephyr-7B.JSON", Kind.JSON),
        ("zephyr-7b-beta.Q2_K.gguf", Kind.BINARY),
        ("llama-partial-ft.gguf", Kind.BINARY),
        ("consolidated.00.bin", Kind.BINARY),
        ("llama-7b.ggmlv3.q4_0", Kind.UNKNOWN),
        ("weights.dat", Kind.UNKNOWN),
        ("sha256-0123abc", Kind.UNKNOWN),
        ("README.md", Kind.OTHER),
        ("model.safetensors", Kind.OTHER),
    ],
)
def test_a_name_promises_a_kind(name: str, kind: Kind) -> None:
    assert filenames.kind(name) is kind


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "added_tokens.json",
        "adapter_config.json",
        "Config.JSON",
    ],
)
def test_a_jsons_of_a_repository_is_no_model(name: str) -> None:
    assert filenames.is_repository_json(name)
    assert filenames.kind(name) is Kind.OTHER


@pytest.mark.parametrize("name", ["model.json", "my-config.json", "zephyr_config_test.json", "map.json", "index.json"])
def test_a_jsons_of_a_person_is_not_taken_for_one_of_a_repository(name: str) -> None:
    assert not filenames.is_repository_json(name)


def test_bytes_that_are_no_text_are_escaped() -> None:
    assert filenames.printable(os.fsdecode(b"caf\xe9.gguf")) == r"caf\xe9.gguf"
    assert filenames.printable("café \n 模型.gguf") == "café \n 模型.gguf"


@given(file_names, file_names)
def test_two_names_never_look_the_same(left: bytes, right: bytes) -> None:
    shown = [filenames.printable(os.fsdecode(raw)) for raw in (left, right)]

    shown[0].encode()
    assert (shown[0] == shown[1]) == (left == right)


def test_a_name_that_looks_escaped_is_told_from_one_that_is() -> None:
    assert filenames.printable(r"caf\xe9") != filenames.printable(os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize(
    ("text", "source", "name"),
    [
        ("zephyr-7b-beta.Q2_K.gguf", Source.REPOSITORY, "zephyr-7b-beta.Q2_K.gguf"),
        ("Q4_K_M/model-00001-of-00002.gguf", Source.REPOSITORY, "Q4_K_M/model-00001-of-00002.gguf"),
        ("https://host/a/b/resolve/main/m.gguf?download=true", Source.URL, "m.gguf"),
        ("https://host/a/b/resolve/main/Q4_K_M/m%201.gguf", Source.URL, "Q4_K_M/m 1.gguf"),
        ("https://host/a/b/blob/v1/m.gguf#L1", Source.URL, "m.gguf"),
        ("https://host/files/resolve.gguf", Source.URL, "resolve.gguf"),
        ("https://host:8080/x/y/model.bin", Source.URL, "model.bin"),
        ("/data/m.gguf", Source.LOCAL, "/data/m.gguf"),
        ("~/m.gguf", Source.LOCAL, "~/m.gguf"),
        ("./m.gguf", Source.LOCAL, "./m.gguf"),
        ("../shared/m.gguf", Source.LOCAL, "../shared/m.gguf"),
        ("file:///data/my%20m.gguf", Source.LOCAL, "/data/my m.gguf"),
        ("file://localhost/data/m.gguf", Source.LOCAL, "/data/m.gguf"),
    ],
)
def test_a_reference_leads_to_a_file(text: str, source: Source, name: str) -> None:
    reference = filenames.parse_reference(text)

    assert (reference.source, reference.name) == (source, name)


@pytest.mark.parametrize(
    "text",
    [
        "a/../../etc/passwd",
        "sub/../m.gguf",
        "https://host/a/b/resolve/main/..%2F..%2Fm.gguf",
        "https://host/a/b/resolve/main/%2e%2e/m.gguf",
        "https://host/",
        "https://[broken/m.gguf",
        "sub//m.gguf",
        "sub\\..\\m.gguf",
        "nul\0.gguf",
        "file://other-host/m.gguf",
        "x" * 300,
    ],
)
def test_a_reference_out_of_the_folder_has_no_name(text: str) -> None:
    assert filenames.parse_reference(text).name == ""


@given(st.text(max_size=60))
def test_what_a_reference_names_in_a_repository_stays_in_the_folder(text: str) -> None:
    reference = filenames.parse_reference(text)

    if reference.source is not Source.LOCAL and reference.name:
        assert os.path.normpath(os.path.join("/f", reference.name)) == f"/f/{reference.name}"  # noqa: PTH118
        os.fsencode(reference.name)
