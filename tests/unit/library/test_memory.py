"""What scans said is believed after a restart only where nothing has changed, and is then what a scan would say."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from jand.library.findings import EntryScan, Tree
from jand.library.headers import HeaderCache, is_racy, make_stamp
from jand.library.memory import Memory
from jand.library.scan import scan_entry
from jand.library.stamps import read_stamp
from tests.fakes import gguf_files
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JSON = '{"origin": "a/b", "parameters": {"init": {"ctx_len": 2048}, "runtime": {"stop": ["x"]}}}'


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "models").mkdir()
    return Tree(tmp_path / "models", "models")


@pytest.fixture
def kept_at(tmp_path: Path) -> Path:
    return tmp_path / "state/headers"


def add(tree: Tree, entry: str, *, text: str = JSON) -> Path:
    """Drop a whole model."""
    folder = tree.path / entry
    folder.mkdir(parents=True)
    (folder / f"{folder.name}.json").write_text(text)
    gguf_files.bare_header(folder / f"{folder.name}.gguf", name=entry, chat_template="{{ x }}" * 30)
    return folder


def age(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    until_sync(lambda: not any(is_racy(make_stamp(path.lstat())) for path in files), what="the files to age")


def live(tree: Tree, kept_at: Path, *entries: str) -> dict[str, EntryScan]:
    """Scan *entries* as a daemon does, and write down what it leaves behind."""
    headers = HeaderCache(kept_at)
    memory = Memory(headers)
    stamps = {entry: read_stamp(str(tree.path), entry, lasting=True) for entry in entries}
    scans = {entry: scan_entry(tree, entry, headers, now=time.time()) for entry in entries}
    memory.save([(scans[entry], stamps[entry]) for entry in entries])
    headers.save()
    return scans


def recall(tree: Tree, kept_at: Path, entry: str, headers: HeaderCache | None = None) -> EntryScan | None:
    stamp = read_stamp(str(tree.path), entry, lasting=True)
    return Memory(headers or HeaderCache(kept_at)).recall(tree, entry, stamp)


def test_what_is_recalled_is_what_a_scan_says_and_reads_nothing(tree: Tree, kept_at: Path) -> None:
    folder = add(tree, "a")
    (folder / "q4").mkdir()
    (folder / "a-high.json").write_text('{"origin": "a/b", "id": "high", "metadata": {"tags": ["t"]}}')
    age(folder)
    scans = live(tree, kept_at, "a")
    headers = HeaderCache(kept_at)

    recalled = recall(tree, kept_at, "a", headers)

    assert recalled == scans["a"]
    assert recalled == scan_entry(tree, "a", HeaderCache(), now=time.time())
    assert [found.spec.parameters.runtime.stop for found in recalled.models] == [None, ("x",)]
    headers.learn("models", "a")
    stamps = {path.name: make_stamp(path.stat()) for path in folder.iterdir() if path.is_file()}
    assert [name for name in ("a.json", "a-high.json") if headers.documents.find(stamps[name]) is None] == []
    assert headers.recall(stamps["a.gguf"]) == recalled.models[0].binaries[0].header


def test_a_json_that_is_being_saved_keeps_the_content_that_was_recalled(tree: Tree, kept_at: Path) -> None:
    folder = add(tree, "a")
    age(folder)
    live(tree, kept_at, "a")
    headers = HeaderCache(kept_at)
    recalled = recall(tree, kept_at, "a", headers)
    (folder / "a.json").write_text("{")

    scan = scan_entry(tree, "a", headers, now=time.time())

    assert recalled is not None
    assert [found.spec for found in scan.models] == [found.spec for found in recalled.models]


def grow(folder: Path) -> None:
    with (folder / "a.gguf").open("ab") as stream:
        stream.write(b"x")


def rewrite_in_place(folder: Path) -> None:
    """Other bytes, with the size and the time of the content that were there before."""
    path = folder / "a.json"
    before = path.stat()
    path.write_text(JSON.replace("2048", "4096"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(folder: Path) -> None:
    other = folder / "a.other"
    other.write_bytes((folder / "a.gguf").read_bytes())
    other.replace(folder / "a.gguf")


CHANGES: dict[str, Callable[[Path], object]] = {
    "grown": grow,
    "rewritten": rewrite_in_place,
    "exchanged": exchange,
    "json gone": lambda folder: (folder / "a.json").unlink(),
    "binary gone": lambda folder: (folder / "a.gguf").unlink(),
    "file added": lambda folder: (folder / "b.json").write_text(JSON),
    "folder added": lambda folder: (folder / "b").mkdir(),
    "control file added": lambda folder: (folder / "a.gguf.aria2").touch(),
    "unreadable": lambda folder: (folder / "a.json").chmod(0),
    "renamed": lambda folder: (folder / "a.gguf").rename(folder / "b.gguf"),
    "second name": lambda folder: os.link(folder / "a.gguf", folder.parent.parent / "elsewhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_believed_of_an_entry_that_changed(tree: Tree, kept_at: Path, change: str) -> None:
    folder = add(tree, "a")
    age(folder)
    live(tree, kept_at, "a")
    CHANGES[change](folder)

    assert recall(tree, kept_at, "a") is None


def test_an_entry_under_another_name_is_another_one(tree: Tree, kept_at: Path) -> None:
    folder = add(tree, "a")
    age(folder)
    live(tree, kept_at, "a")
    folder.rename(tree.path / "b")

    assert recall(tree, kept_at, "b") is None


def test_what_is_odd_is_scanned_each_time(tree: Tree, kept_at: Path) -> None:
    """Problems, what is missing or bare, what may change outside of the entry, and what changed a moment ago; secrets are written nowhere."""
    add(tree, "broken", text="{")
    add(tree, "unknown", text='{"origin": "a/b", "orgin": 1}')
    add(tree, "missing", text='{"origin": "a/b", "download_url": "other.gguf"}')
    add(tree, "secret", text='{"origin": "a/b", "parameters": {"init": {"API-KEY": "sk-1234567890abcdef"}}}')
    (add(tree, "bare") / "bare.json").unlink()
    linked = add(tree, "linked")
    (linked / "more").symlink_to(tree.path / "bare")
    outside = gguf_files.bare_header(tree.path.parent / "outside.gguf")
    add(tree, "elsewhere", text=json.dumps({"origin": "a/b", "download_url": str(outside)}))
    (tree.path / "loose.json").write_text(JSON)
    add(tree, "plain")
    age(tree.path)
    add(tree, "fresh")
    entries = ["", "broken", "unknown", "missing", "secret", "bare", "linked", "elsewhere", "fresh", "plain"]
    live(tree, kept_at, *entries)
    age(tree.path)

    assert [entry for entry in entries if recall(tree, kept_at, entry) is not None] == ["plain"]
    assert b"sk-1234567890abcdef" not in (kept_at.parent / "entries").read_bytes()


@pytest.mark.parametrize("harm", [b"", b"junk", b"\xff" * 100])
def test_a_damaged_file_counts_as_none(tree: Tree, kept_at: Path, harm: bytes) -> None:
    age(add(tree, "a"))
    live(tree, kept_at, "a")
    file = kept_at.parent / "entries"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + harm + content[len(content) // 2 + 1 :])

    assert recall(tree, kept_at, "a") is None


def test_each_file_may_go_by_itself(tree: Tree, kept_at: Path) -> None:
    age(add(tree, "a"))
    scans = live(tree, kept_at, "a")
    kept_at.unlink()

    assert recall(tree, kept_at, "a") == scans["a"]


def test_the_file_may_go_and_comes_back(tree: Tree, kept_at: Path) -> None:
    age(add(tree, "a"))
    live(tree, kept_at, "a")
    (kept_at.parent / "entries").unlink()
    assert recall(tree, kept_at, "a") is None

    scans = live(tree, kept_at, "a")

    assert recall(tree, kept_at, "a") == scans["a"]


def test_other_trees_and_rights_make_another_scan(tree: Tree, kept_at: Path) -> None:
    age(add(tree, "a"))
    live(tree, kept_at, "a")
    read_only = Tree(tree.path, str(tree.path), writable=False)

    recalled = recall(read_only, kept_at, "a")

    assert recalled == scan_entry(read_only, "a", HeaderCache(), now=time.time())
