"""Names that may become files, and names of partials."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.download.naming import NOTES_ENDING, checked_name, partial_stem
from jand.errors import BadFileNameError

HOSTILE = [
    "",
    "/",
    "..",
    "a/..",
    "../a",
    "/etc/passwd",
    "a\\b",
    "C:a",
    "C:/a",
    "//server/share/a",
    "a/./b",
    "a//b",
    "a/",
    ".hidden",
]
HOSTILE += [
    "a/.jand-part/b",
    "con",
    "NUL.gguf",
    "com1",
    "a.",
    "a ",
    "a\0b",
    "a\nb",
    "a?b",
    'a"b',
    "a|b",
    "x" * 256,
    "é" * 128,
    "\ud800",
]
HOSTILE += ["/".join("abcdefghijklmnopqrstuvwxyz")]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(BadFileNameError):
        checked_name(name)


@pytest.mark.parametrize(
    "name", ["a.gguf", "Q4_K_M/model-00001-of-00003.gguf", "modèle (1)+x@y,~=!.gguf", "console.gguf", "-a.gguf"]
)
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert checked_name(name) == name


@given(st.text(max_size=300))
def test_what_is_taken_stays_below_its_folder_everywhere(name: str) -> None:
    try:
        checked_name(name)
    except BadFileNameError:
        return
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind("/base") / name
        assert path.is_relative_to("/base")
        assert ".." not in path.parts


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=255),
        max_size=20,
        unique=True,
    )
)
def test_each_name_has_a_partial_of_its_own_that_any_folder_can_hold(names: list[str]) -> None:
    stems = [partial_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    for stem in stems:
        assert "/" not in stem
        assert len((stem + NOTES_ENDING).encode()) <= 255


def test_a_partial_can_be_recognised_by_people() -> None:
    assert partial_stem("zephyr-7b-beta.Q2_K.gguf") == "zephyr-7b-beta.Q2_K.gguf"
    assert partial_stem("Q4/a.gguf") == "Q4%2Fa.gguf"
