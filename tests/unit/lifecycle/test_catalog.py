"""The catalogue: whose JSONs count, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.lifecycle.catalog import Catalog
from jand.paths import shipped_example

if TYPE_CHECKING:
    from pathlib import Path


def test_own_entries_go_before_shipped_ones_and_all_are_sorted(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for folder, names in ((own, ("b", "a")), (shipped, ("b", "c"))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.json").write_text(f'{{"origin": "{folder.name}/{name}"}}')
    entries = Catalog(own, shipped).entries()

    assert [(entry.id, entry.spec.origin, entry.shipped) for entry in entries] == [
        ("a", "own/a", False),
        ("b", "own/b", False),
        ("c", "shipped/c", True),
    ]


def test_what_cannot_be_read_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('{"origin": "user/good"}')
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no model")
    catalog = Catalog(tmp_path, tmp_path / "missing")

    assert [entry.id for entry in catalog.entries()] == ["good"]
    assert catalog.find("bad") is None


def test_a_json_that_is_dropped_into_it_is_there_at_once(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, tmp_path / "missing")
    assert catalog.find("new") is None
    (tmp_path / "new.json").write_text('{"origin": "user/new"}')

    found = catalog.find("new")
    assert found is not None
    assert found.spec.origin == "user/new"


def test_what_ships_with_jand_can_be_read_whole(tmp_path: Path) -> None:
    folder = shipped_example() / "catalog"
    entries = Catalog(tmp_path, folder).entries()

    assert {f"{entry.id}.json" for entry in entries} == {path.name for path in folder.glob("*.json")}
    assert all(entry.shipped and entry.spec.metadata.description for entry in entries)
