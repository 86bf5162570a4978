"""No bytes whatever may harm the daemon: one type of error, little time, little memory; checked against ggml's own reader."""

from __future__ import annotations

import io
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jand.errors import GgufError
from jand.model.gguf import read_header
from tests.fakes.ggml_peer import accepted
from tests.fakes.gguf_bytes import Field, Kind, Tensor, Value, What, array, text, u32, write
from tests.fakes.gguf_files import mutations, scrambles
from tests.fakes.gguf_mutations import sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LLAMA = ("general.architecture", text("llama"))
WEIGHTS = Tensor("blk.0.attn_q.weight", (256, 4), 12, 4 * 144)


def judge(data: bytes, size: int | None = None) -> str:
    """Say what a scan would: "whole", "short" of its weights, or what is wrong."""
    size = len(data) if size is None else size
    try:
        return "whole" if read_header(io.BytesIO(data), size).size_needed <= size else "short"
    except GgufError as raised:
        error = raised
    assert error.message.startswith("cannot use the file: ")
    assert error.hint
    assert "\n" not in error.message
    assert len(error.message) < 400
    return error.message


def cost(work: Callable[[], object]) -> tuple[float, int]:
    """Measure the CPU seconds of *work*, and in a second run the bytes of its peak."""
    begun = time.thread_time()
    work()
    seconds = time.thread_time() - begun
    tracemalloc.start()
    try:
        work()
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_mutation_is_found_out_and_the_sound_file_is_not(*, soak: bool) -> None:
    """Also the worst of them costs milliseconds."""
    assert judge(sound().whole) == "whole"
    slowest = 0.0
    for name, data in mutations(seed=1, count=26_000 if soak else 1_300):
        begun = time.thread_time()
        verdict = judge(data)
        slowest = max(slowest, time.thread_time() - begun)
        assert verdict != "whole", name
    assert slowest < 0.2


def test_mutations_are_the_same_for_the_same_seed() -> None:
    assert list(mutations(7, 60)) == list(mutations(7, 60))
    assert list(mutations(7, 60)) != list(mutations(8, 60))


def test_ggml_itself_refuses_the_mutations_that_break_its_rules(tmp_path: Path) -> None:
    """Otherwise finding them out would prove nothing. It does not care for lacking weights, nor for what the keys mean."""
    beyond_ggml = {"cut-within-the-weights", "no-architecture", "no-weights", "impossible-part"}
    files = [tmp_path / name for name, _ in mutations(2, 104)]
    for file, (_, data) in zip(files, mutations(2, 104), strict=True):
        file.write_bytes(data)
    verdicts = accepted(files)
    assert len(verdicts) == len(files)
    assert {file.name[6:] for file, good in zip(files, verdicts, strict=True) if good} == beyond_ggml


@pytest.mark.timeout(120)
def test_what_ggml_accepts_is_accepted_and_nothing_else(tmp_path: Path, *, soak: bool) -> None:
    """Over headers with bytes changed anywhere, of which some are still good.

    Stricter than ggml only in wanting an architecture; more lenient only towards tensor types that do not exist yet.
    """
    files = []
    for number, data in enumerate(scrambles(seed=3, count=20_000 if soak else 1_000)):
        files.append(tmp_path / f"{number}.gguf")
        files[-1].write_bytes(data)
    theirs: list[bool] = []
    for start in range(0, len(files), 500):
        theirs += accepted(files[start : start + 500])
    assert len(theirs) == len(files)
    assert 0 < sum(theirs) < len(files)
    for file, good in zip(files, theirs, strict=True):
        data = file.read_bytes()
        verdict = judge(data)
        if good:
            assert verdict in {"whole", "short"} or "which architecture" in verdict, file.name
        elif verdict in {"whole", "short"}:
            assert read_header(io.BytesIO(data), len(data)).unknown_types, file.name


@pytest.mark.timeout(300)
def test_arbitrary_bytes_raise_one_type_of_error(*, soak: bool) -> None:
    beginnings = st.sampled_from(
        [b"", b"GGUF", b"GGUF\x03\x00\x00\x00", b"GGUF\x00\x00\x00\x03", sound().whole[:24], sound().whole[:200]]
    )

    @settings(max_examples=20_000 if soak else 300, deadline=None, database=None)
    @given(beginnings, st.binary(max_size=4096), st.integers(0, 1 << 62))
    def check(beginning: bytes, rest: bytes, beyond: int) -> None:
        judge(beginning + rest)
        judge(beginning + rest, len(beginning + rest) + beyond)

    check()


@pytest.mark.timeout(300)
def test_any_field_may_hold_any_number(*, soak: bool) -> None:
    """The lengths, counts, types and places themselves, two at a time."""
    fields, good = sound().fields, sound().whole
    numbers = st.one_of(
        st.integers(0, 64), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << 63, (1 << 64) - 1, 1 << 31])
    )

    @settings(max_examples=20_000 if soak else 300, deadline=None, database=None)
    @given(st.lists(st.tuples(st.sampled_from(fields), numbers), min_size=1, max_size=2))
    def check(changes: list[tuple[Field, int]]) -> None:
        data = bytearray(good)
        for field, number in changes:
            value = number % (1 << 8 * field.width)
            data[field.offset : field.offset + field.width] = value.to_bytes(field.width, "little")
        judge(bytes(data))

    check()


def _with(what: What, value: int, index: int = 0) -> bytes:
    field = [each for each in sound().fields if each.what is what][index]
    data = bytearray(sound().whole)
    data[field.offset : field.offset + field.width] = value.to_bytes(field.width, "little")
    return bytes(data).ljust(4145, b"\x01")


@pytest.mark.parametrize(
    "data",
    [
        _with(What.ELEMENT_COUNT, 1 << 40),
        _with(What.ELEMENT_COUNT, 50_000_000, 1),
        _with(What.ELEMENT_COUNT, 50_000_000, 2),
        _with(What.TENSOR_COUNT, 10**9),
        _with(What.TENSOR_COUNT, 100_000),
        _with(What.KEY_COUNT, 4096),
        _with(What.TEXT_LENGTH, 10**12),
        _with(What.SIZE, 1 << 62),
        b"GGUF\x03\x00\x00\x00"
        + bytes([1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 127])
        + b"\xff" * 4100,
        b"GGUF" + b"\xff" * 4141,
    ],
)
def test_a_malicious_file_of_4_kb_costs_nothing(data: bytes) -> None:
    """Those that cost the gguf package gigabytes and minutes (reference/downloads.md 3.2)."""
    seconds, peak = cost(lambda: judge(data))
    assert seconds < 0.1
    assert peak < 1 << 20


def sparse(tmp_path: Path, head: bytes, size: int) -> Callable[[], str]:
    """Prepare a file of *size* bytes with *head* at its beginning and nothing after it, and return what judges it."""
    path = tmp_path / "sparse.gguf"
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(size)

    def work() -> str:
        with path.open("rb", buffering=0) as stream:
            try:
                return "whole" if read_header(stream, size).size_needed <= size else "short"
            except GgufError as error:
                return error.message

    return work


def before_elements(kind: Kind, count: int) -> bytes:
    """Write a header that breaks off after it has promised *count* elements."""
    written = write([LLAMA, ("x", array(kind, [])), ("y", u32(1))], [WEIGHTS])
    place = next(field.offset for field in written.fields if field.what is What.ELEMENT_COUNT)
    return written.header[:place] + count.to_bytes(8, "little")


def test_a_sparse_giant_with_millions_of_empty_strings_is_refused_before_they_are_counted(tmp_path: Path) -> None:
    work = sparse(tmp_path, before_elements(Kind.TEXT, 40_000_000), 4 << 30)
    assert "lists more than" in work()
    seconds, peak = cost(work)
    assert seconds < 0.1
    assert peak < 1 << 20


def test_the_most_strings_that_are_allowed_take_a_bounded_time(tmp_path: Path) -> None:
    work = sparse(tmp_path, before_elements(Kind.TEXT, 4 << 20), 4 << 30)
    begun = time.thread_time()
    assert "holds zeros only" in work()
    assert time.thread_time() - begun < 3


def test_strings_are_stepped_over_in_little_memory(tmp_path: Path) -> None:
    _, peak = cost(sparse(tmp_path, before_elements(Kind.TEXT, 400_000), 4 << 30))
    assert peak < 2 << 20


def test_arrays_beyond_the_largest_header_are_refused(tmp_path: Path) -> None:
    """Each of them is within its own bound, and none is read; the bytes between them are a hole."""
    path = tmp_path / "arrays.gguf"
    names = [f"x{number}" for number in range(5)]
    written = write([LLAMA, *((name, array(Kind.U8, [])) for name in names)], [WEIGHTS])
    ends = [field.offset + 8 for field in written.fields if field.what is What.ELEMENT_COUNT]
    with path.open("wb") as stream:
        for begin, end in zip([0, *ends], ends, strict=False):
            stream.write(written.header[begin : end - 8] + (64 << 20).to_bytes(8, "little"))
            stream.seek(64 << 20, io.SEEK_CUR)
        stream.truncate(1 << 30)
    with path.open("rb") as stream, pytest.raises(GgufError, match="larger than 256 MiB"):
        read_header(stream, 1 << 30)


def many(pairs: Iterable[int]) -> list[Tensor]:
    return [Tensor(f"blk.{number}.with.a.rather.long.name.weight", (8,), 0, 32) for number in pairs]


@pytest.mark.timeout(60)
def test_the_most_keys_and_tensors_that_are_allowed_fit_into_little_memory() -> None:
    values = [LLAMA, *((f"key.{number}".ljust(1000, "k"), text(b"v" * 1000)) for number in range(4095))]
    data = write(values, many(range(20_000))).header
    seconds, peak = cost(lambda: judge(data))
    assert seconds < 2
    assert peak < 32 << 20


@pytest.mark.parametrize(
    ("values", "tensors"),
    [
        ([(b"k" * 1025, u32(1))], [WEIGHTS]),
        ([("general.name", text(b"n" * (1 << 16))), ("x" * 1024, u32(1))], [Tensor("t" * 257, (8,), 0, 32)]),
        ([("big", text(b"b" * ((16 << 20) + 1)))], [WEIGHTS]),
    ],
)
def test_what_is_longer_than_its_bound_is_refused(
    values: list[tuple[str | bytes, Value]], tensors: list[Tensor]
) -> None:
    assert " bytes (near byte " in judge(write([LLAMA, *values], tensors).whole)


def test_a_header_that_ends_in_a_hole_is_incomplete_and_not_damaged() -> None:
    """So a copy that laid out its file first is waited for."""
    whole = sound().whole
    last = max(field.offset for field in sound().fields if field.what is What.NAME_LENGTH)
    hole = judge(whole[:last].ljust(len(whole), b"\x00"))
    assert "holds zeros only" in hole
