"""What is read from good GGUFs, and what people are told about files that are none."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from jand.errors import GgufError, IncompleteGgufError, LegacyGgmlError
from jand.model.gguf import Header, read_header
from tests.fakes.gguf_bytes import Kind, Tensor, Value, Written, array, text, u32, write
from tests.fakes.gguf_files import (
    GGJT_FILE,
    LFS_POINTER,
    SMOLLM2_BYTES,
    TEMPLATE,
    WEB_PAGE,
    bare_header,
    projector,
    smollm2,
    tiny_llama,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WEIGHTS = Tensor("blk.0.attn_q.weight", (256, 4), 12, 4 * 144)
LLAMA = ("general.architecture", text("llama"))


def read(path: Path) -> Header:
    with path.open("rb") as stream:
        return read_header(stream, path.stat().st_size)


def parse(data: bytes, *, name: str = "") -> Header:
    return read_header(io.BytesIO(data), len(data), name=name)


def of(values: Sequence[tuple[str | bytes, Value]], tensors: Sequence[Tensor] = (WEIGHTS,)) -> Written:
    return write([LLAMA, *values], tensors)


def vocabulary(tokens: int, merges: int) -> bytes:
    """Write a header with a real model's amount of words, without a Python object for each."""
    word = (9).to_bytes(8, "little") + b"word or 2"
    pair = (11).to_bytes(8, "little") + b"first secon"
    small = write([LLAMA, ("tokenizer.ggml.tokens", array(Kind.TEXT, [])), ("merges", array(Kind.TEXT, []))], [WEIGHTS])
    places = [field.offset for field in small.fields if field.what == "element-count"]
    head = small.header
    return (
        head[: places[0]] + tokens.to_bytes(8, "little") + word * tokens
        + head[places[0] + 8 : places[1]] + merges.to_bytes(8, "little") + pair * merges
        + head[places[1] + 8 :].rstrip(b"\x00") + bytes(4096)
    )  # fmt: skip


def test_the_real_model_is_read_to_its_last_byte() -> None:
    """The extent of its tensors is the size of the file: SmolLM2-135M-Instruct, Q4_1."""
    header = read(smollm2())

    assert header.size_needed == smollm2().stat().st_size == SMOLLM2_BYTES
    assert (header.version, header.byte_order, header.alignment, header.data_offset) == (3, "little", 32, 1_785_664)
    assert (header.architecture, header.type, header.name) == ("llama", "model", "Smollm2 135M 8k Lc100K Mix1 Ep2")
    assert (header.basename, header.size_label, header.license) == ("smollm2", "135M", "apache-2.0")
    assert (header.finetune, header.organization) == ("8k-lc100k-mix1-ep2", "HuggingFaceTB")
    assert (header.parameters, header.tensor_count, header.unknown_types) == (134_515_008, 272, ())
    assert (header.file_type, header.quantization) == (3, "Q4_1")
    assert (header.context_length, header.block_count, header.embedding_length) == (8192, 30, 576)
    assert (header.head_count, header.head_count_kv) == (9, 3)
    assert (header.vocab_size, header.tokenizer, header.bos_token_id, header.eos_token_id) == (49_152, "gpt2", 1, 2)
    assert header.chat_template is not None
    assert header.chat_template.startswith("{% for message in messages %}")
    assert header.has_template
    assert not any((header.is_embedding, header.is_projector, header.is_adapter))
    assert (header.split_no, header.split_count) == (0, 1)


def test_no_tensor_of_the_real_model_is_read() -> None:
    """Its header alone is enough, and little more than it is taken from the stream."""
    with smollm2().open("rb") as file:
        stream = io.BytesIO(file.read(1_785_664 + 4096))
    assert read_header(stream, SMOLLM2_BYTES).size_needed == SMOLLM2_BYTES
    assert stream.tell() <= 1_785_664 + 4096


def test_a_large_vocabulary_is_stepped_over_in_a_fraction_of_a_second() -> None:
    """As many words as Gemma 3 has; the bound is 200 ms on a quiet core, and doubled here for a busy one."""
    data = vocabulary(262_144, 514_906)
    seconds = []
    for _ in range(3):
        begun = time.thread_time()
        assert parse(data).vocab_size == 262_144
        seconds.append(time.thread_time() - begun)
    assert min(seconds) < 0.4


def test_the_gguf_package_reads_the_same_from_a_tiny_llama(tmp_path: Path) -> None:
    import gguf

    (path,) = tiny_llama(tmp_path / "tiny.gguf", context_length=768, name="Tïny", vocab=["\u2581yes", "\u2581no"])
    theirs = gguf.GGUFReader(path)
    ours = read(path)

    assert ours.tensor_count == len(theirs.tensors)
    assert ours.parameters == sum(int(tensor.n_elements) for tensor in theirs.tensors)
    assert ours.data_offset == theirs.data_offset
    assert ours.size_needed == path.stat().st_size == max(int(t.data_offset + t.n_bytes) for t in theirs.tensors)
    for key, value in {
        "general.architecture": ours.architecture,
        "general.name": ours.name,
        "general.file_type": ours.file_type,
        "llama.context_length": ours.context_length,
        "llama.embedding_length": ours.embedding_length,
        "llama.block_count": ours.block_count,
        "llama.attention.head_count": ours.head_count,
        "llama.attention.head_count_kv": ours.head_count_kv,
        "tokenizer.ggml.model": ours.tokenizer,
        "tokenizer.ggml.bos_token_id": ours.bos_token_id,
        "tokenizer.ggml.eos_token_id": ours.eos_token_id,
        "tokenizer.chat_template": ours.chat_template,
    }.items():
        field = theirs.get_field(key)
        assert field is not None
        assert field.contents() == value
    assert ours.vocab_size == len(theirs.get_field("tokenizer.ggml.tokens").contents())
    assert (ours.name, ours.context_length, ours.chat_template) == ("Tïny", 768, TEMPLATE)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_each_part_of_a_split_model_says_which_it_is_and_how_large(tmp_path: Path, parts: int) -> None:
    """Only the first part says what the model is; all of them together have its parameters."""
    whole = read(tiny_llama(tmp_path / "whole.gguf")[0])
    headers = [read(path) for path in tiny_llama(tmp_path / "big.gguf", parts=parts)]

    assert [header.split_no for header in headers] == list(range(parts))
    assert {header.split_count for header in headers} == {parts}
    assert [header.architecture for header in headers] == ["llama"] + [""] * (parts - 1)
    assert sum(header.parameters for header in headers) == whole.parameters
    for number, header in enumerate(headers, start=1):
        assert header.size_needed == (tmp_path / f"big-{number:05d}-of-{parts:05d}.gguf").stat().st_size


def test_a_first_part_may_hold_no_tensors() -> None:
    """As llama-gguf-split --no-tensor-first-split writes it."""
    first = of([("split.no", Value(Kind.U16, 0)), ("split.count", Value(Kind.U16, 2))], [])
    header = parse(first.header)
    assert (header.split_count, header.tensor_count, header.size_needed) == (2, 0, len(first.header))


def test_a_projector_is_told_by_its_header(tmp_path: Path) -> None:
    header = read(projector(tmp_path / "llava.proj"))
    assert header.is_projector
    assert header.has_vision
    assert not header.has_audio
    assert not header.is_embedding


def test_an_adapter_is_told_by_its_header() -> None:
    assert parse(of([("general.type", text("adapter"))]).whole).is_adapter


@pytest.mark.parametrize(
    ("architecture", "pooling", "expected"),
    [
        ("bert", None, True),
        ("qwen3", 3, True),
        ("qwen3", 0, False),
        ("llama", None, False),
        ("gemma-embedding", 1, True),
    ],
)
def test_an_embedding_model_is_told_by_its_header(architecture: str, pooling: int | None, *, expected: bool) -> None:
    values = [("general.architecture", text(architecture))]
    values += [] if pooling is None else [(f"{architecture}.pooling_type", u32(pooling))]
    assert parse(write(values, [WEIGHTS]).whole).is_embedding is expected


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("big", [False, True])
def test_both_versions_and_byte_orders_are_read(version: int, *, big: bool) -> None:
    values = [
        LLAMA,
        ("llama.context_length", u32(4096)),
        ("llama.attention.head_count_kv", array(Kind.I32, [8, 4, 2])),
        ("tokenizer.ggml.tokens", array(Kind.TEXT, ["a", "b", "c"])),
    ]
    written = write(values, [WEIGHTS], version=version, big=big)
    header = parse(written.whole)
    assert (header.version, header.byte_order) == (version, "big" if big else "little")
    assert (header.context_length, header.head_count_kv, header.vocab_size) == (4096, (8, 4, 2), 3)
    assert header.size_needed == written.size


@pytest.mark.parametrize("kind", [Kind.U8, Kind.I8, Kind.U16, Kind.I16, Kind.U32, Kind.I32, Kind.U64, Kind.I64])
def test_a_number_may_be_of_any_whole_type(kind: Kind) -> None:
    header = parse(of([("llama.block_count", Value(kind, 33)), ("general.alignment", Value(kind, 64))]).whole)
    assert (header.block_count, header.alignment) == (33, 64)


@pytest.mark.parametrize(
    "value",
    [
        Value(Kind.I32, -1),
        Value(Kind.F32, 32.0),
        Value(Kind.BOOL, True),
        Value(Kind.U64, 1 << 50),
        text("many"),
        array(Kind.I32, [1, 2]),
    ],
)
def test_a_number_that_cannot_be_counts_as_not_said(value: Value) -> None:
    assert parse(of([("llama.block_count", value)]).whole).block_count is None


def test_values_for_each_layer_are_kept_as_they_are() -> None:
    header = parse(
        of([
            ("llama.attention.head_count", array(Kind.U32, [32, 32, 16])),
            ("llama.attention.head_count_kv", array(Kind.I32, [8, 0, 8])),
            ("llama.attention.sliding_window_pattern", array(Kind.BOOL, [True, False, True])),
            ("llama.attention.sliding_window", u32(512)),
            ("llama.attention.key_length", u32(128)),
            ("llama.attention.value_length", u32(64)),
            ("llama.expert_count", u32(8)),
            ("llama.expert_used_count", u32(2)),
        ]).whole
    )  # fmt: skip
    assert (header.head_count, header.head_count_kv) == ((32, 32, 16), (8, 0, 8))
    assert (header.sliding_window, header.sliding_window_pattern) == (512, (1, 0, 1))
    assert (header.key_length, header.value_length) == (128, 64)
    assert (header.expert_count, header.expert_used_count) == (8, 2)


def test_keys_may_come_in_any_order() -> None:
    values = [("llama.context_length", u32(77)), ("tokenizer.ggml.model", text("gpt2")), LLAMA]
    assert parse(write(values, [WEIGHTS]).whole).context_length == 77


def test_texts_that_are_no_utf8_or_play_tricks_on_a_terminal_are_made_harmless() -> None:
    values: list[tuple[str | bytes, Value]] = [
        ("general.name", text(b"Evil\x1b[2J\xff\x00 " + b"x" * 1000)),
        ("tokenizer.chat_template", text(b"{{ a }}\n\xfe{{ b }}")),
        ("general.license", text(b"")),
        (b"key\xff\xfe", u32(1)),
    ]
    header = parse(of(values).whole)
    assert header.name is not None
    assert header.name.isprintable()
    assert header.name.startswith("Evil [2J\ufffd")
    assert len(header.name) <= 256
    assert header.chat_template == "{{ a }}\n\ufffd{{ b }}"
    assert header.license is None


def test_an_absurdly_long_template_counts_as_none() -> None:
    assert parse(of([("tokenizer.chat_template", text(b" " * ((1 << 20) + 1)))]).whole).chat_template is None


@pytest.mark.parametrize(
    ("file_type", "tensors", "expected"),
    [
        (None, [Tensor("a", (32, 8), 8, 8 * 34), Tensor("b", (64,), 0, 256)], "Q8_0"),
        (None, [Tensor("a", (256, 8), 12, 8 * 144), Tensor("b", (64,), 0, 256)], "Q4_K_M"),
        (1024 + 1, [Tensor("a", (256, 8), 14, 8 * 210)], "Q6_K"),
        (17, [Tensor("a", (256, 8), 14, 8 * 210)], "Q5_K_M"),
        (777, [Tensor("a", (32, 8), 39, 8 * 17)], "MXFP4_MOE"),
    ],
)
def test_the_quantisation_is_the_files_own_word_or_that_of_most_weights(
    file_type: int | None, tensors: list[Tensor], expected: str
) -> None:
    values: list[tuple[str | bytes, Value]] = [] if file_type is None else [("general.file_type", u32(file_type))]
    assert parse(of(values, tensors).whole).quantization == expected


def test_a_newer_tensor_type_leaves_the_model_usable() -> None:
    """Where the next tensor begins tells its size; of the last one only the beginning is known."""
    header = parse(
        of([], [Tensor("a", (64, 4), 77, 4000), Tensor("b", (64,), 0, 256), Tensor("c", (64,), 90, 5000)]).whole
    )
    assert header.unknown_types == (77, 90)
    assert header.parameters == 64 * 4 + 64 + 64
    assert header.size_needed == header.data_offset + 4000 + 256


def test_a_removed_tensor_type_is_named() -> None:
    with pytest.raises(GgufError, match=r"the type Q4_0_4_4, which llama\.cpp has removed"):
        parse(of([], [Tensor("a", (64, 4), 31, 144)]).whole)


def test_a_bare_file_has_exactly_the_size_that_was_asked_for(tmp_path: Path) -> None:
    """What tests of other parts rely on: 5 GB on paper, and next to nothing on the disk."""
    path = bare_header(tmp_path / "large.gguf", size=5_000_000_000, file_type=7, context_length=99)
    header = read(path)
    assert header.size_needed == path.stat().st_size == 5_000_000_000
    assert path.stat().st_blocks * 512 < 1 << 20
    assert (header.quantization, header.context_length, header.name) == ("Q8_0", 99, "Bare")


def judge(data: bytes) -> str:
    """Say what a scan would: "whole", "short" of its weights, or the code of the error."""
    try:
        return "whole" if parse(data).size_needed <= len(data) else "short"
    except GgufError as error:
        return error.code


def test_every_cut_of_a_file_is_found_out() -> None:
    """Cut within the header it is incomplete; later the header says that it must be larger."""
    values = [LLAMA, ("tokenizer.ggml.tokens", array(Kind.TEXT, ["x" * 9] * 30)), ("general.name", text("Cut"))]
    written = write(values, [WEIGHTS, Tensor("b", (64,), 0, 256)])
    whole, fields_end = written.whole, written.fields[-1].offset + 8
    verdicts = [judge(whole[:size]) for size in range(len(whole) + 1)]
    assert verdicts == ["incomplete-binary"] * fields_end + ["short"] * (len(whole) - fields_end) + ["whole"]


def test_every_cut_of_a_real_tiny_model_is_found_out(tmp_path: Path) -> None:
    whole = tiny_llama(tmp_path / "tiny.gguf")[0].read_bytes()
    header_bytes = parse(whole).data_offset
    for size in range(0, header_bytes - 31, 37):
        assert judge(whole[:size]) == "incomplete-binary"
    for size in [*range(header_bytes, len(whole), 4001), len(whole) - 1]:
        assert judge(whole[:size]) == "short"
    assert judge(whole) == "whole"


def test_a_beginning_is_enough_and_too_short_a_one_says_how_much_it_needs() -> None:
    """So a download can look at the header first, in pieces that grow."""
    with smollm2().open("rb") as file:
        data = file.read(2 << 20)
    asked = [1 << 10]
    while (needed := still_needed(data[: asked[-1]])) is not None:
        assert asked[-1] < needed <= 1_785_664
        asked.append(max(2 * asked[-1], needed))
    assert len(asked) <= 12
    assert read_header(io.BytesIO(data[: asked[-1]]), SMOLLM2_BYTES).size_needed == SMOLLM2_BYTES


def still_needed(beginning: bytes) -> int | None:
    try:
        read_header(io.BytesIO(beginning), SMOLLM2_BYTES)
    except IncompleteGgufError as error:
        return int(str(error.facts["needed"]))
    return None


class Dripping(io.BytesIO):
    """A stream that returns a few bytes at a time, as a raw one on a network file system may."""

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 4093))


def test_a_stream_that_returns_little_at_a_time_gives_the_same() -> None:
    data = vocabulary(60_000, 40_000)
    assert read_header(Dripping(data), len(data)) == parse(data)


def test_arrays_larger_than_the_window_are_stepped_over() -> None:
    values: list[tuple[str | bytes, Value]] = [
        ("tokenizer.ggml.scores", array(Kind.F32, [0.0] * 300_000)),
        ("precompiled", array(Kind.U8, [7] * 700_000)),
        ("one.long.text", text(b"y" * 900_000)),
        ("tokenizer.ggml.tokens", array(Kind.TEXT, [b"z" * 400_000, b"", b"q" * 300_000, b"k"])),
        ("llama.context_length", u32(4711)),
    ]
    header = parse(of(values).whole)
    assert (header.context_length, header.vocab_size) == (4711, 4)


VALUES = st.one_of(
    st.tuples(st.sampled_from([Kind.U8, Kind.U16, Kind.U32, Kind.U64]), st.integers(0, 255)).map(
        lambda pair: Value(*pair)
    ),
    st.tuples(st.sampled_from([Kind.I8, Kind.I16, Kind.I32, Kind.I64]), st.integers(-128, 127)).map(
        lambda pair: Value(*pair)
    ),
    st.booleans().map(lambda flag: Value(Kind.BOOL, flag)),
    st.floats(width=32).map(lambda number: Value(Kind.F64, number)),
    st.binary(max_size=300).map(text),
    st.lists(st.binary(max_size=20), max_size=20).map(lambda texts: array(Kind.TEXT, texts)),
    st.lists(st.integers(0, 9), max_size=20).map(lambda numbers: array(Kind.I16, numbers)),
)
TENSORS = st.lists(
    st.sampled_from(
        [((256, 2), 12, 288), ((), 0, 4), ((3, 5, 7), 1, 210), ((64, 1, 2, 3), 8, 12 * 34), ((0, 4), 0, 0)]
    ),
    min_size=1,
    max_size=12,
).map(lambda shapes: [Tensor(f"tensor {number}", *shape) for number, shape in enumerate(shapes)])


@given(
    # No key that means something: hypothesis picks those up from the reader's own constants.
    values=st.dictionaries(st.binary(max_size=40).map(lambda rest: b"x." + rest), VALUES, max_size=12),
    tensors=TENSORS,
    version=st.sampled_from([2, 3]),
    big=st.booleans(),
    alignment=st.sampled_from([1, 8, 32, 4096]),
)
def test_whatever_is_written_by_the_rules_is_read(
    values: dict[bytes, Value], tensors: list[Tensor], version: int, alignment: int, *, big: bool
) -> None:
    pairs: list[tuple[str | bytes, Value]] = [LLAMA, ("general.alignment", u32(alignment)), *values.items()]
    written = write(pairs, tensors, version=version, big=big, alignment=alignment)
    header = parse(written.whole)
    assert (header.tensor_count, header.alignment, header.data_offset) == (len(tensors), alignment, len(written.header))
    assert header.size_needed == written.size


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (WEB_PAGE, "a web page"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "a web page"),
        (LFS_POINTER, "a Git LFS pointer to a file of 4,368,438,944 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
        (b"PK\x03\x04" + bytes(30) + b"model.gguf", "a zip archive"),
        (b"PK\x03\x04" + bytes(30) + b"archive/data.pkl", "a PyTorch model"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "an old PyTorch model"),
        (b"\x58\x02\x00\x00\x00\x00\x00\x00" + b'{"__metadata__":{"format":"pt"}}', "a safetensors model"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "a gzip archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7-Zip archive"),
        (b"a.gguf".ljust(257, b"\x00") + b"ustar\x0000", "a tar archive"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"\x7fELF\x02\x01", "a program"),
        (b'{"error": "Invalid username or password."}', "JSON text"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML text"),
        (b"Entry not found", "plain text"),
        ("Zugriff verweigert: Grüße\n".encode() * 400, "plain text"),
        (b"\x8e\x00\x01\x02\x03", "no GGUF (it begins with the bytes 8e 00 01 02)"),
        (b"nsgg\x09\x00", "a saved session of llama.cpp"),
    ],
)
def test_what_is_no_gguf_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(GgufError) as caught:
        parse(data, name="model.gguf")
    assert caught.value.code == "bad-binary"
    assert caught.value.message.startswith('cannot use "model.gguf": it is ')
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GGJT_FILE, "the old GGJT format"),
        (b"lmgg" + bytes(60), "the old GGML format"),
        (b"fmgg\x01" + bytes(60), "the old GGMF format"),
        (b"algg\x01" + bytes(60), "the old GGLA (LoRA) format"),
        (b"GGUF\x01\x00\x00\x00" + bytes(60), "GGUF version 1"),
    ],
)
def test_a_file_from_before_gguf_is_called_legacy(data: bytes, words: str) -> None:
    with pytest.raises(LegacyGgmlError) as caught:
        parse(data)
    assert caught.value.code == "legacy-ggml"
    assert words in caught.value.message
    assert "GGUF version of this model" in caught.value.hint or "newer conversion" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"G", b"GGUF", b"GGUF\x03\x00\x00\x00", bytes(100), bytes(100_000)])
def test_an_empty_file_a_first_few_bytes_and_reserved_space_are_incomplete(data: bytes) -> None:
    with pytest.raises(IncompleteGgufError) as caught:
        parse(data)
    assert caught.value.code == "incomplete-binary"
    assert "copy or download it again" in caught.value.hint


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (write([("general.type", text("imatrix"))], [WEIGHTS]), "importance matrix"),
        (write([("general.name", text("x"))], [WEIGHTS]), "does not say which architecture"),
        (of([], []), "no weights"),
        (of([("split.no", u32(3)), ("split.count", u32(3))]), "part 4 of 3"),
    ],
)
def test_a_faultless_gguf_that_is_no_model_is_refused_with_the_reason(written: Written, words: str) -> None:
    with pytest.raises(GgufError, match=words) as caught:
        parse(written.whole)
    assert type(caught.value) is GgufError
    assert caught.value.hint
