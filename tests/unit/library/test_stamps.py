"""Stamps are equal while nothing changes, differ when anything does, and know what no watch tells."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from jand.library.findings import LOOSE
from jand.library.stamps import EntryStamp, read_stamp, read_stamps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    (root / "phi" / "deep").mkdir(parents=True)
    (root / "phi" / "model.json").write_text("{}")
    (root / "phi" / "deep" / "w.gguf").write_bytes(b"x" * 100)
    (root / "loose.json").write_text("{}")
    return root


def stamp(root: Path, entry: str = "phi") -> EntryStamp:
    found = read_stamp(str(root), entry)
    assert found is not None
    return found


def rewrite_with_the_old_time(root: Path) -> None:
    path = root / "phi" / "model.json"
    before = path.stat()
    path.write_text("[]")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange_for_an_equal_one(root: Path) -> None:
    path = root / "phi" / "model.json"
    (root / "new").write_text("{}")
    os.utime(root / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (root / "new").replace(path)


CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "phi" / "deep" / "more").touch(),
    lambda root: (root / "phi" / "deep" / "w.gguf").unlink(),
    lambda root: (root / "phi" / "deep" / "w.gguf").rename(root / "phi" / "deep" / "v.gguf"),
    lambda root: (root / "phi" / "deep" / "w.gguf").chmod(0o600),
    lambda root: (root / "phi" / "deep").rename(root / "phi" / "shallow"),
    lambda root: (root / "phi" / "deep").chmod(0o700),
    lambda root: (root / "phi" / "model.json").write_text("{ }"),
    lambda root: (root / "phi" / "empty").mkdir(),
    lambda root: (root / "phi" / "link").symlink_to("nowhere"),
    rewrite_with_the_old_time,
    exchange_for_an_equal_one,
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_any_change_changes_the_stamp_of_its_entry_alone(change: Callable[[Path], object], root: Path) -> None:
    before, loose = stamp(root), stamp(root, LOOSE)
    assert stamp(root) == before
    change(root)

    assert stamp(root).value != before.value
    assert stamp(root, LOOSE) == loose


def test_loose_files_have_a_stamp_of_their_own(root: Path) -> None:
    before = stamp(root, LOOSE)
    (root / "phi" / "more").touch()
    (root / "folder").mkdir()
    assert stamp(root, LOOSE) == before
    (root / "loose.json").write_text("{ }")
    assert stamp(root, LOOSE) != before


def test_our_own_names_leave_no_trace(root: Path) -> None:
    before = stamp(root), stamp(root, LOOSE)
    (root / ".jand-cookie-1-1").touch()
    (root / "phi" / ".jand-part").mkdir()
    (root / "phi" / ".jand-part" / "w.gguf").write_bytes(b"x")
    assert (stamp(root), stamp(root, LOOSE)) == before


def test_what_is_no_entry_has_no_stamp(root: Path) -> None:
    (root / "nowhere").symlink_to("/nowhere/at/all")
    found = list(read_stamps(str(root), ["loose.json", "missing", "nowhere", "phi"]))
    assert [each is None for each in found] == [True, True, False, False]
    assert list(read_stamps(str(root / "missing"), [LOOSE, "phi"])) == [None, None]


def test_a_link_that_leads_nowhere_is_looked_at_until_it_leads_somewhere(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "far")
    before = stamp(root, "link")
    assert before.dangling
    assert before.needs_polling
    assert before.targets == (str(tmp_path / "far"),)
    assert stamp(root, "link") == before
    (tmp_path / "far").mkdir()
    assert stamp(root, "link").value != before.value
    assert not stamp(root, "link").dangling


def test_the_folders_that_a_watch_must_hold(root: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (root / "phi" / "far").symlink_to(tmp_path / "far")
    (root / "phi" / "last").mkdir()
    inodes = {(root / "phi" / name).stat().st_ino for name in (".", "deep", "last")}
    assert set(stamp(root).folders) == inodes


def test_behind_a_link_everything_counts(root: Path, tmp_path: Path) -> None:
    far = tmp_path / "far"
    (far / "below").mkdir(parents=True)
    (root / "link").symlink_to(far)
    (root / "phi" / "file").symlink_to(far / "w.gguf")
    assert stamp(root, "link").targets == (str(far),)
    assert stamp(root, "link").folders == ()
    assert stamp(root, "link").needs_polling
    assert stamp(root).targets == (str(far / "w.gguf"),)
    before = stamp(root), stamp(root, "link")
    (far / "w.gguf").write_bytes(b"x")
    assert stamp(root) != before[0]
    assert stamp(root, "link") != before[1]
    before = stamp(root), stamp(root, "link")
    (far / "below" / "more").touch()
    assert stamp(root, "link") != before[1]


def test_loops_end(root: Path) -> None:
    (root / "phi" / "self").symlink_to("self")
    (root / "phi" / "here").symlink_to(".")
    (root / "phi" / "up").symlink_to("..")
    (root / "phi" / "deep" / "back").symlink_to(root / "phi")
    assert stamp(root) == stamp(root)


def test_files_with_several_names_need_looking_at(root: Path) -> None:
    assert not stamp(root).needs_polling
    (root / "other").hardlink_to(root / "phi" / "deep" / "w.gguf")
    assert stamp(root).shared
    assert stamp(root, LOOSE).shared


def test_other_file_systems_are_noticed(root: Path) -> None:
    (root / "phi" / "memory").symlink_to("/dev/shm")
    assert stamp(root).crossings == (f"{root}/phi/memory",)


def test_an_entry_that_is_a_link_to_the_tree_itself_holds_all_of_it(root: Path) -> None:
    """As scans have it."""
    (root / "again").symlink_to(root)
    before = stamp(root, "again")
    (root / "phi" / "deep" / "more").touch()
    assert stamp(root, "again") != before
