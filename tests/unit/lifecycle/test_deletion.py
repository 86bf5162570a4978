"""What a DELETE takes and what it leaves."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from jand.errors import NotPossibleError
from jand.library.findings import Binary, Found, Role, Stamp
from jand.lifecycle import deletion
from tests.fakes.records import make_spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def lay_out(tree: Path, json_name: str, binaries: Sequence[str]) -> Found:
    """Write a model with *binaries* into its folder and return what a scan finds."""
    json_path = tree / json_name
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text("{}")
    found: list[Binary] = []
    for name in binaries:
        path = json_path.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"weights")
        found.append(
            Binary(name, str(path), Role.WEIGHTS, size=7, whole=True, owned=not path.is_symlink(), stamp=stamp(path))
        )
    folder = str(json_path.parent.relative_to(tree.parent))
    return Found(f"models/{json_name}", folder, str(json_path.parent), make_spec(), stamp(json_path), tuple(found))


def delete(found: Found, others: Sequence[Found], tree: Path, *, keep_files: bool = False) -> deletion.Deletion:
    return deletion.carry_out("a", deletion.plan(found, others, tree, keep_files=keep_files))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_the_json_its_binaries_and_the_emptied_folders_go(tree: Path) -> None:
    found = lay_out(tree, "a/b/a.json", ["one.gguf", "sub/two.gguf"])
    done = delete(found, [], tree)

    assert done.removed == ("a.json", "one.gguf", "sub/two.gguf")
    assert done.kept == ()
    assert list(tree.iterdir()) == []
    assert tree.is_dir()


def test_what_else_lies_in_the_folder_stays(tree: Path) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    (tree / "a" / "notes.txt").write_text("mine")
    delete(found, [], tree)

    assert [path.name for path in (tree / "a").iterdir()] == ["notes.txt"]


def test_a_binary_that_another_json_uses_stays(tree: Path) -> None:
    found = lay_out(tree, "a/q2.json", ["one.gguf"])
    other = lay_out(tree, "a/q3.json", ["one.gguf"])
    done = delete(found, [other], tree)

    assert [(kept.name, kept.why) for kept in done.kept] == [("one.gguf", "models/a/q3.json uses it too")]
    assert (tree / "a" / "one.gguf").exists()


def test_of_two_hard_links_to_one_file_only_its_own_goes_with_a_model(tree: Path) -> None:
    other = lay_out(tree, "b/b.json", ["one.gguf"])
    (tree / "a").mkdir()
    (tree / "a" / "one.gguf").hardlink_to(tree / "b" / "one.gguf")
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    done = delete(found, [other], tree)

    assert done.kept == ()
    assert not (tree / "a").exists()
    assert (tree / "b" / "one.gguf").exists()


def test_a_binary_to_which_another_model_links_stays(tree: Path) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    (tree / "b").mkdir()
    (tree / "b" / "one.gguf").symlink_to(tree / "a" / "one.gguf")
    other = lay_out(tree, "b/b.json", ["one.gguf"])
    done = delete(found, [other], tree)

    assert [kept.why for kept in done.kept] == ["models/b/b.json uses it too"]
    assert (tree / "b" / "one.gguf").exists()


def test_links_and_what_they_point_to_stay(tree: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.gguf"
    precious.write_bytes(b"weights")
    (tree / "a").mkdir()
    (tree / "a" / "link.gguf").symlink_to(precious)
    found = lay_out(tree, "a/a.json", ["link.gguf"])
    done = delete(found, [], tree)

    assert [kept.name for kept in done.kept] == ["link.gguf"]
    assert precious.exists()
    assert (tree / "a" / "link.gguf").is_symlink()


def test_keep_files_removes_the_json_alone(tree: Path) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    done = delete(found, [], tree, keep_files=True)

    assert done.removed == ("a.json",)
    assert (tree / "a" / "one.gguf").exists()


def test_a_folder_behind_a_link_is_not_touched(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tree / "a").symlink_to(outside)
    found = lay_out(tree, "a/a.json", ["one.gguf"])

    with pytest.raises(NotPossibleError):
        delete(found, [], tree)
    assert {path.name for path in outside.iterdir()} == {"a.json", "one.gguf"}


def test_what_a_download_completed_just_now_goes_too_unless_somebody_else_waits_for_it(
    tree: Path, tmp_path: Path
) -> None:
    """No scan has seen those files yet."""
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    other = lay_out(tree, "a/b.json", [])
    waiting = Found(other.path, other.folder, other.place, other.spec, other.stamp, missing=("shared.gguf",))
    elsewhere = Found(
        "models/c/c.json", "models/c", str(tree / "c"), other.spec, other.stamp, missing=("sub/two.gguf",)
    )
    (tree / "a" / "sub").mkdir()
    for name in ("sub/two.gguf", "shared.gguf"):
        (tree / "a" / name).write_bytes(b"weights")
    (tmp_path / "precious.gguf").write_bytes(b"weights")
    (tree / "a" / "link.gguf").symlink_to(tmp_path / "precious.gguf")
    fetched = ("one.gguf", "sub/two.gguf", "shared.gguf", "link.gguf", "not-yet.gguf")

    kept = deletion.plan(found, [waiting, elsewhere], tree, keep_files=True, fetched=fetched)
    planned = deletion.plan(found, [waiting, elsewhere], tree, keep_files=False, fetched=fetched)
    done = deletion.carry_out("a", planned)

    assert kept.fetched == ()
    assert done.removed == ("a.json", "one.gguf", "sub/two.gguf")
    assert sorted(path.name for path in (tree / "a").iterdir()) == ["b.json", "link.gguf", "shared.gguf"]


@pytest.mark.parametrize("way", ["renamed into place", "removed and made", "written over"])
def test_a_binary_that_is_dropped_anew_in_the_same_instant_stays(tree: Path, way: str) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf", "sub/two.gguf"])
    planned = deletion.plan(found, [], tree, keep_files=False)
    path = tree / "a" / "one.gguf"
    if way == "renamed into place":
        (tree / "new").write_bytes(b"WEIGHTS")
        os.utime(tree / "new", ns=(0, path.stat().st_mtime_ns))
        (tree / "new").rename(path)
    else:
        if way == "removed and made":
            path.unlink()
        path.write_bytes(b"WEIGHTS")
        os.utime(path, ns=(0, 1_000_000_000))
    done = deletion.carry_out("a", planned)

    assert done.removed == ("a.json", "sub/two.gguf")
    assert [(kept.name, kept.why) for kept in done.kept] == [
        ("one.gguf", "it was dropped anew while its model was deleted")
    ]
    assert [file.name for file in (tree / "a").rglob("*")] == ["one.gguf"]
    assert path.read_bytes() == b"WEIGHTS"


def test_a_binary_that_went_on_arriving_goes(tree: Path) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    arriving = dataclasses.replace(found.binaries[0], whole=False, writing=True)
    planned = deletion.plan(dataclasses.replace(found, binaries=(arriving,)), [], tree, keep_files=False)
    with (tree / "a" / "one.gguf").open("ab") as stream:
        stream.write(b" and more")
    done = deletion.carry_out("a", planned)

    assert done.removed == ("a.json", "one.gguf")
    assert list(tree.iterdir()) == []


def test_a_binary_of_which_somebody_changed_the_mode_goes(tree: Path) -> None:
    found = lay_out(tree, "a/a.json", ["one.gguf"])
    planned = deletion.plan(found, [], tree, keep_files=False)
    (tree / "a" / "one.gguf").chmod(0o600)

    assert deletion.carry_out("a", planned).removed == ("a.json", "one.gguf")
