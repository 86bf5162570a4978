"""Partials of one folder, which come and go without knowing of one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from jand.download.naming import PARTIAL_FOLDER
from jand.download.partial import Partial

if TYPE_CHECKING:
    from pathlib import Path


def test_one_that_begins_while_another_takes_the_folder_away_begins_all_the_same(tmp_path: Path) -> None:
    def come_and_go(name: str) -> None:
        for _ in range(700):
            partial = Partial(tmp_path, name)
            partial.open()
            try:
                partial.append(b"x")
                assert partial.size == 1
                partial.discard()
            finally:
                partial.close()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(come_and_go, ["a.gguf", "b.gguf", "c.gguf"]))
    assert list(tmp_path.iterdir()) == []


def test_one_whose_own_folder_is_gone_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    partial = Partial(folder, "a.gguf")
    partial.open()
    partial.discard()
    partial.close()
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        partial.open()
    partial.close()
    folder.mkdir()
    partial.open()
    partial.close()
    assert [entry.name for entry in folder.iterdir()] == [PARTIAL_FOLDER]
