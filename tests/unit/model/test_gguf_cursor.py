"""Strings that another file had as well are stepped over at once, and only where they are the same to the last byte."""

from __future__ import annotations

import io

import pytest

from jand.errors import IncompleteGgufError
from jand.model.gguf import Header, read_header
from tests.fakes.gguf_bytes import Kind, Tensor, array, text, u32, write

TOKENS = [f"token{number}" for number in range(10_000)]


def header_with(tokens: list[str], *, cut: int = 0) -> Header:
    data = write(
        [
            ("general.architecture", text("llama")),
            ("tokenizer.ggml.tokens", array(Kind.TEXT, tokens)),
            ("llama.context_length", u32(77)),
        ],
        [Tensor("weight", (8,), 0, 32)],
    ).whole
    data = data[: len(data) - cut] if cut else data
    return read_header(io.BytesIO(data), len(data))


@pytest.mark.parametrize(
    "tokens",
    [
        TOKENS,
        [*TOKENS[:-1], "a longer one at the end"],
        [*TOKENS[:-1], ""],
        [*TOKENS[:5000], TOKENS[5000] + TOKENS[5001], "", *TOKENS[5002:]],
        ["other", *TOKENS[1:]],
        TOKENS[1:],
    ],
)
def test_what_follows_the_strings_is_found_whatever_was_read_before(tokens: list[str]) -> None:
    for known in (TOKENS, tokens, tokens, TOKENS):
        header = header_with(known)
        assert (header.vocab_size, header.context_length, header.tensor_count) == (len(known), 77, 1)


def test_a_file_that_ends_within_familiar_strings_is_incomplete() -> None:
    header_with(TOKENS)

    with pytest.raises(IncompleteGgufError):
        header_with(TOKENS, cut=1000)
