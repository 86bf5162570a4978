"""Partials that nobody wants: kept for a day, then removed; kept for ever while somebody wants them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from jand.download.sweep import discard, folders_with_partials, sweep

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
NOW = 1_700_000_000.0


def partial(directory: Path, name: str, *owners: str, **notes: object) -> Path:
    folder = directory / ".jand-part"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.part.json").write_text(
        json.dumps({"source": "https://example.com/x", "owners": owners, **notes})
    )
    path = folder / f"{name}.part"
    path.write_bytes(b"x" * 100)
    return path


def run(directory: Path, *owners: str, at: float) -> tuple[str, ...]:
    return sweep(directory, owners, now=at, keep_s=DAY)


def test_an_orphan_goes_a_day_after_it_was_first_seen_as_one(tmp_path: Path) -> None:
    path = partial(tmp_path, "a", "one")
    assert run(tmp_path, at=NOW) == ()
    assert run(tmp_path, at=NOW + DAY - 1) == ()
    assert path.exists()
    assert run(tmp_path, at=NOW + DAY + 1) == ("a",)
    assert not (tmp_path / ".jand-part").exists()


def test_a_partial_that_is_wanted_stays_and_an_owner_who_comes_back_saves_it(tmp_path: Path) -> None:
    path = partial(tmp_path, "a", "one", "two")
    run(tmp_path, at=NOW)
    assert run(tmp_path, "two", at=NOW + 10 * DAY) == ()
    assert run(tmp_path, at=NOW + 11 * DAY) == ()
    assert path.exists()


def test_a_clock_that_was_set_back_keeps_it_longer_and_not_for_ever(tmp_path: Path) -> None:
    path = partial(tmp_path, "a", "one")
    run(tmp_path, at=NOW)
    assert run(tmp_path, at=NOW - 100 * DAY) == ()
    assert run(tmp_path, at=NOW - 99.5 * DAY) == ()
    assert path.exists()
    assert run(tmp_path, at=NOW - 98 * DAY) == ("a",)


def test_a_partial_without_notes_is_judged_by_its_last_write(tmp_path: Path) -> None:
    path = partial(tmp_path, "a", "one")
    path.with_name("a.part.json").unlink()
    os.utime(path, (NOW, NOW))
    assert run(tmp_path, "one", at=NOW + DAY / 2) == ()
    assert run(tmp_path, "one", at=NOW + DAY * 2) == ("a",)


def test_notes_without_a_partial_go_too(tmp_path: Path) -> None:
    partial(tmp_path, "a", "one").unlink()
    run(tmp_path, at=NOW)
    assert run(tmp_path, at=NOW + 2 * DAY) == ("a",)
    assert not (tmp_path / ".jand-part").exists()


def test_a_deleted_models_partials_go_at_once_but_for_those_that_others_want(tmp_path: Path) -> None:
    mine, shared, others = (
        partial(tmp_path, "a", "one"),
        partial(tmp_path, "b", "one", "two"),
        partial(tmp_path, "c", "two"),
    )
    discard(tmp_path, "one")
    assert [path.exists() for path in (mine, shared, others)] == [False, True, True]
    discard(tmp_path, "two")
    assert not (tmp_path / ".jand-part").exists()


def test_partials_are_found_where_no_model_is_left_and_not_behind_links(tmp_path: Path) -> None:
    tree, outside = tmp_path / "models", tmp_path / "outside"
    for directory in (tree / "a" / "deep", tree / "b", outside):
        directory.mkdir(parents=True)
        partial(directory, "x", "one")
    partial(tree, "x", "one")
    (tree / "link").symlink_to(outside)
    assert set(folders_with_partials(tree)) == {tree, tree / "a" / "deep", tree / "b"}


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_what_is_no_folder_of_ours_is_left_alone(tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = partial(outside, "a", "one")
    os.utime(victim, (NOW, NOW))
    directory = tmp_path / "model"
    if kind != "missing":
        directory.mkdir()
    if kind == "file":
        (directory / ".jand-part").write_text("not a folder")
    if kind == "link":
        (directory / ".jand-part").symlink_to(outside / ".jand-part")
    assert run(directory, at=NOW + 100 * DAY) == ()
    discard(directory, "one")
    assert victim.exists()
