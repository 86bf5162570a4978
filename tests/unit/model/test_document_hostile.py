"""The reader of model JSONs against whatever may lie in a file: never an exception, always a place, little time and memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, Final

import pyjson5
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jand.model.document import MAX_BYTES, Document, parse
from jand.model.places import MAX_DEPTH, line_and_column
from jand.model.problem import Severity
from jand.model.spec import Spec
from tests.fakes.json_mutations import mutations
from tests.fakes.spec_examples import AZURE

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "models/a/a.json"


BOUND_S = 5.0
"""Ten times what a quiet machine takes and more: whatever is not linear in its input takes minutes. Speed itself is measured in tests/bench."""


def judge(raw: bytes) -> Document:
    """Read *raw* and hold the answer to its promise: a spec, or errors; each located inside the text, short, and fit to be sent."""
    document = parse(raw, PATH)
    lines = raw.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    errors = [problem for problem in document.problems if problem.severity is Severity.ERROR]
    assert (document.spec is None) == bool(errors)
    assert len(document.problems) <= 20
    for problem in document.problems:
        assert problem.path == PATH
        assert problem.code in {"empty-json", "incomplete-json", "bad-json", "bad-spec", "unknown-field"}
        assert problem.line is not None
        assert problem.column is not None
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert f"line {problem.line}, column {problem.column}: " in problem.message
        assert problem.message.isprintable()
        assert len(problem.message) < 1000
    if document.spec is not None:
        json.dumps(document.spec.masked(), allow_nan=False).encode()
    return document


# Any bytes


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_spec_or_a_located_problem(raw: bytes) -> None:
    judge(raw)


PIECES: Final = st.sampled_from(
    [
        *"{}[]:,\"'#/\\ \n-.+",
        "//",
        "/*",
        "*/",
        '"a"',
        "'b'",
        "c",
        "1",
        "-2.5",
        "true",
        "null",
        "NaN",
        '"origin":"x"',
        "\ufeff",
        "é",
        "\0",
        "\u2028",
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_any_heap_of_json_marks_is_a_spec_or_a_located_problem(text: str) -> None:
    judge(text.encode())
    judge(('{"origin": "x", ' + text).encode())


def test_every_mutation_is_a_spec_or_a_located_problem(*, soak: bool) -> None:
    """Also the slowest of them costs a fraction of a second."""
    refused, slowest = 0, 0.0
    for name, raw in mutations(seed=1, count=20_000 if soak else 1_000):
        begun = time.thread_time()
        refused += judge(raw).spec is None
        slowest = max(slowest, time.thread_time() - begun)
        assert slowest < BOUND_S, name
    assert refused > 500


def test_mutations_are_the_same_for_the_same_seed() -> None:
    first = list(mutations(3, 60))

    assert list(mutations(3, 60)) == first
    assert len({name for name, _ in first}) == 60
    assert [raw for _, raw in mutations(4, 60)] != [raw for _, raw in first]


def test_no_mutation_brings_a_key_into_a_problem(*, soak: bool) -> None:
    key = "sk-4f9a1c7e2b8d"
    text = AZURE.replace('"API-KEY": ""', f'"API-KEY": "{key}"')
    for name, raw in mutations(5, 20_000 if soak else 500, bases=(text,)):
        document = judge(raw)
        for problem in document.problems:
            assert key not in problem.message + problem.hint, name
        if document.spec is not None and key in document.spec.secrets():
            assert key not in json.dumps(document.spec.masked()) + repr(document.spec), name


# Time and memory


def filled(begin: str, filling: str, end: str = "") -> bytes:
    """Make a text of 1 MiB."""
    room = MAX_BYTES - len(begin.encode()) - len(end.encode())
    size = len(filling.encode())
    return (begin + filling * (room // size) + end).encode()


FIELDS: Final = ",".join(f'"field{number}":1' for number in range(9_990))
HOSTILE: Final[dict[str, bytes]] = {
    "brackets": filled("", "["),
    "brackets inside": filled('{"a":', "["),
    "objects": filled("", '{"a":'),
    "quotes": filled("", '"'),
    "quote pairs": filled("{", '""'),
    "single quotes": filled("{", "'"),
    "comment openings": filled("", "/*"),
    "comment openings after one": filled("{/**/", "/*"),
    "comments": filled("", "/**/"),
    "line comments": filled("", "//\n"),
    "hash comments": filled("{", "#\n"),
    "digits": filled('{"a":', "1", "}"),
    "digits that never end": filled('{"a":', "1"),
    "fraction": filled('{"a":0.', "1", "}"),
    "fraction, not strict": filled('{"a":+0.', "1", "}"),
    "blanks": filled("{", " "),
    "line ends": filled("{", "\n"),
    "carriage returns": filled("{", "\r"),
    "backslashes": filled('{"', "\\"),
    "escaped quotes": filled('{"a":"', '\\"', '"}'),
    "escaped line ends": filled("{'a':'", "\\\n", "'}"),
    "surrogate pairs": filled("{'a':'", "\\ud83d\\ude00", "'}"),
    "list": filled('{"origin":"a","x":[', "1,", "1]}"),
    "list, not strict": filled('{"origin":"a","x":[', "1 , ", "]}"),
    "flat lists": filled('{"origin":"a","x":[', "[[[]]],", "[]]}"),
    "same field": filled('{"origin":"a",', '"a":1,', '"b":2}'),
    "names": filled("{", "a"),
    "commas": filled("{", ","),
    "colons": filled("{a", ":"),
    "NULs": filled("", "\0"),
    "not UTF-8": b"\xff" * MAX_BYTES,
    "replacement characters": filled("", "\ufffd"),
    "emoji": filled('{"origin":"a","x":"', "😀", '"}'),
    "words": filled("{a:", "x “ "),
    "long origin": filled('{"origin":"', "a", '"}'),
    "long name": filled('{"origin":"a","', "a", '":1}'),
    "long number in quotes": filled('{"origin":"a","created":"', "1", '"}'),
    "long address": filled('{"origin":"a","download_url":"https://', "[/", '"}'),
    "address of keys": filled('{"origin":"a","x":"://?', "&key", '"}'),
    "shares": filled('{"origin":"a","parameters":{"init":{"tensor_split":"', "1,", '"}}}'),
    "faults far apart": filled('{"origin":5,"id":6,"created":"x","owned_by":7,"x":9,', "\r\n", "z:4}"),
    "fields": f'{{"origin":"a",{FIELDS}}}'.encode(),
    "fields, not strict": f'{{"origin":"a",{FIELDS},}}'.encode(),
    "notes": f'{{"origin":"a","metadata":{{{FIELDS.replace("field", "autostar")}}}}}'.encode(),
    "wrong items": f'{{"origin":"a","parameters":{{"init":{{"tensor_split":[{"true," * 9_990}1]}}}}}}'.encode(),
    "many addresses": f'{{"origin":"a","download_url":[{",".join(f"{n}" for n in range(9_990))}]}}'.encode(),
}  # fmt: skip


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


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE)
def test_a_mebibyte_of_anything_costs_under_a_second_and_little_memory(raw: bytes) -> None:
    assert len(raw) <= MAX_BYTES
    seconds, peak = cost(lambda: parse(raw, PATH))
    judge(raw)

    assert seconds < BOUND_S
    assert peak < 100 << 20


# Agreement with other readers


def depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0) if isinstance(value, (dict, list)) else 0


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 1]))
def test_any_json_value_is_kept_under_a_field_of_its_own_and_reported_at_its_name(
    value: Any, indent: int | None
) -> None:
    text = json.dumps({"origin": "a", "field of its own": value}, indent=indent)
    document = judge(text.encode())

    assert document.spec is not None
    assert (document.spec.model_extra or {}) == ({} if value in (None, "", "..") else {"field of its own": value})
    (problem,) = document.problems
    assert (problem.line, problem.column) == line_and_column(text, text.index('"field'))


@given(
    st.lists(
        st.sampled_from(
            ["{", "}", "[", "]", ":", ",", '"a"', "'b'", "c", "1", "-.5", "0x1f", "true", "null", "/*x*/", "//y\n", " "]
        ),
        max_size=14,
    )
)
def test_structure_is_judged_as_the_json5_library_judges_it(pieces: list[str]) -> None:
    text = '{"origin": "a", "x": ' + " ".join(pieces) + "}"
    try:
        expected: Any = pyjson5.decode(text)
    except pyjson5.Json5Exception:
        expected = None
    document = judge(text.encode())

    if expected is None:
        assert document.spec is None
    elif document.spec is None:  # the library lets the last of two equal names win
        assert ["each field once" in problem.message for problem in document.problems] == [True]
    else:
        assert document.spec == Spec.model_validate(expected)


def test_nesting_is_bounded_alike_whichever_reader_comes_first() -> None:
    for end in ("}", ",}"):
        for levels, good in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
            raw = ('{"origin": "a", "x": ' + "[" * levels + "]" * levels + end).encode()
            assert (judge(raw).spec is not None) == good


@settings(max_examples=50)
@given(st.integers(0, len(AZURE) - 1))
def test_a_beginning_of_a_json_is_never_a_model(cut: int) -> None:
    """A copy under way: what is there already must not register as something that it is not."""
    end = AZURE.rindex("}")
    document = judge(AZURE.encode()[:cut])

    assert (document.spec is not None) == (cut > end)
