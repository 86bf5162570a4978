"""Text that is shown is final: whole characters, and never the beginning of a stop string."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.text import TextStream

TEXTS = st.text(alphabet="ab\n é€😀", max_size=40)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(TEXTS, st.lists(st.integers(0, 200), max_size=10))
def test_text_does_not_depend_on_where_tokens_are_cut(text: str, places: list[int]) -> None:
    stream = TextStream()
    parts = [stream.feed(piece) for piece in cut(text.encode(), places)]
    assert "".join(parts) + stream.end() == text
    assert "\ufffd" not in "".join(parts)


@given(
    TEXTS,
    st.lists(st.integers(0, 200), max_size=10),
    st.lists(st.text(alphabet="ab\n é", min_size=1, max_size=4), max_size=3),
)
def test_shown_text_ends_before_the_first_stop_string(text: str, places: list[int], stops: list[str]) -> None:
    stream = TextStream(stops)
    shown = "".join(stream.feed(piece) for piece in cut(text.encode(), places)) + stream.end()
    found = [text.find(stop) for stop in stops if stop in text]
    assert (stream.stopped is not None) == bool(found)
    if found:
        # Which of two overlapping stop strings is seen first may depend on the tokens; none of them is ever shown.
        assert text.startswith(shown)
        assert not any(stop in shown for stop in stops)
        assert len(shown) >= min(found)
    else:
        assert shown == text


def test_beginning_of_a_stop_string_is_held_until_it_is_clear() -> None:
    stream = TextStream(["<end>"])
    assert stream.feed(b"hello <e") == "hello "
    assert stream.feed(b"n") == ""
    assert stream.feed(b"ough") == "<enough"
    assert stream.feed(b"<end>more") == ""
    assert (stream.stopped, stream.feed(b"x"), stream.end()) == ("<end>", "", "")


@pytest.mark.parametrize(("stops", "stopped"), [(["b", "bc"], "bc"), (["c", "bc"], "bc"), (["", "c"], "c")])
def test_longest_of_the_first_stop_strings_counts(stops: list[str], stopped: str) -> None:
    stream = TextStream(stops)
    stream.feed(b"abcd")
    assert stream.stopped == stopped


def test_broken_bytes_become_replacement_characters() -> None:
    stream = TextStream()
    assert stream.feed(b"\xff") == "\ufffd"
    assert stream.feed("é".encode()[:1] + b"a") == "\ufffda"


@given(TEXTS, st.integers(0, 200), st.lists(st.sampled_from(["é€", "zz"])))
def test_character_that_the_end_cuts_off_is_not_shown(text: str, place: int, stops: list[str]) -> None:
    data = text.encode()[: place % (len(text.encode()) + 1)]
    stream = TextStream(stops)
    shown = stream.feed(data) + stream.end()
    if stream.stopped is None:
        assert shown == data.decode("utf-8", "ignore")
