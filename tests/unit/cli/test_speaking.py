"""Where Markdown that is still coming may be cut: what is before the cut never changes any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.cli.speaking import harmless, split_blocks


@pytest.mark.parametrize(
    ("text", "whole", "rest"),
    [
        ("one", "", "one"),
        ("one\n", "", "one\n"),
        ("one\n\ntwo", "one\n\n", "two"),
        ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n", "three"),
        ("```\ncode\n\nmore", "", "```\ncode\n\nmore"),
        ("```\ncode\n\nmore\n```\n\ntext", "```\ncode\n\nmore\n```\n\n", "text"),
        ("~~~\n```\n\n~~~\n\nx", "~~~\n```\n\n~~~\n\n", "x"),
    ],
)
def test_it_is_cut_at_the_last_empty_line_outside_of_code(text: str, whole: str, rest: str) -> None:
    assert split_blocks(text) == (whole, rest)


@given(st.lists(st.sampled_from(["a", "\n", "\n\n", "```\n", "~~~\n", "- x"])), st.integers(0, 40))
def test_what_comes_later_never_moves_an_earlier_cut_back(pieces: list[str], count: int) -> None:
    text = "".join(pieces)
    earlier, _ = split_blocks("".join(pieces[:count]))
    whole, rest = split_blocks(text)

    assert whole + rest == text
    assert whole.startswith(earlier)


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not any(char < " " and char not in "\n\t" for char in harmless(text))
    assert "\x7f" not in harmless(text)
    assert "\x9b" not in harmless(text)
