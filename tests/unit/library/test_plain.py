"""The short way through a scan says what the rules for everything say, for whatever lies in an entry."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from jand.library.headers import HeaderCache
from jand.library.plain import scan_plain
from jand.library.scan import scan_entry
from jand.library.stamps import read_stamp
from tests.fakes import gguf_files
from tests.fakes.models_tree import LATER_S, ModelsTree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jand.library.findings import EntryScan
    from jand.library.stamps import Listings


@pytest.fixture
def models(tmp_path: Path) -> ModelsTree:
    """Make a tree with one plain entry `x`."""
    models = ModelsTree(tmp_path / "models")
    models.spec("x/x.json")
    models.gguf("x/x.gguf")
    return models


def listed(models: ModelsTree) -> Listings:
    listings: Listings = {}
    read_stamp(str(models.path), "x", listings=listings)
    return listings


def both_ways(models: ModelsTree, headers: HeaderCache | None = None) -> tuple[EntryScan | None, EntryScan, EntryScan]:
    """Scan `x` the short way alone, with what a listing says, and by looking at everything."""
    now = time.time() + LATER_S
    known = HeaderCache() if headers is None else headers
    return (
        scan_plain(models.tree, "x", known, now=now, listings=listed(models)),
        scan_entry(models.tree, "x", known, now=now, listings=listed(models)),
        scan_entry(models.tree, "x", HeaderCache(), now=now),
    )


def other_json(**fields: Any) -> Callable[[ModelsTree], object]:
    return lambda models: models.spec("x/x.json", **fields)


def link(models: ModelsTree, name: str) -> None:
    away = models.path.parent / name
    (models.path / "x" / name).rename(away)
    (models.path / "x" / name).symlink_to(away)


def link_folder(models: ModelsTree) -> None:
    (models.path / "x").rename(models.path.parent / "away")
    (models.path / "x").symlink_to(models.path.parent / "away")


PLAIN: dict[str, Callable[[ModelsTree], object]] = {
    "as it is": lambda models: None,
    "folder's name": lambda models: (models.path / "x/x.json").rename(models.path / "x/model.json"),
    "another name": lambda models: (models.path / "x/x.gguf").rename(models.path / "x/y-Q4_K_M.bin"),
    "no other files that count": lambda models: [models.text(f"x/{name}", "") for name in ("README.md", "config.json")],
    "temporary names": lambda models: models.text("x/other.gguf.part", "GGUF"),
    "parameters": other_json(id="other", parameters={"init": {"ctx_len": "2048"}, "runtime": {"stop": "x"}}),
    "a quantisation that is not there": other_json(metadata={"quantization": "Q8_0"}),
    "read-only": lambda models: setattr(models, "writable", False),
}

ODD: dict[str, Callable[[ModelsTree], object]] = {
    "two JSONs": lambda models: models.spec("x/y.json"),
    "two binaries": lambda models: models.gguf("x/y.gguf"),
    "a projector": lambda models: models.projector("x/mmproj-x.gguf"),
    "a projector alone": lambda models: models.projector("x/x.gguf"),
    "an adapter": lambda models: models.gguf("x/x.gguf", kind="adapter"),
    "a side file": lambda models: (models.path / "x/x.gguf").rename(models.path / "x/imatrix.gguf"),
    "a part": lambda models: (models.path / "x/x.gguf").rename(models.path / "x/x-00001-of-00002.gguf"),
    "a folder below": lambda models: models.gguf("x/Q8_0/y.gguf"),
    "a file without an ending": lambda models: models.gguf("x/weights"),
    "a download's control file": lambda models: models.text("x/x.gguf.aria2", ""),
    "no JSON": lambda models: (models.path / "x/x.json").unlink(),
    "no binary": lambda models: (models.path / "x/x.gguf").unlink(),
    "a broken JSON": lambda models: models.text("x/x.json", "{"),
    "an unknown field": other_json(orgin="x"),
    "a remote model": other_json(import_format="openai"),
    "a named binary": other_json(download_url="y.gguf"),
    "a named projector": other_json(metadata={"mmproj": "p.gguf"}),
    "a LoRA": other_json(parameters={"init": {"lora": ["a.gguf"]}}),
    "half a binary": lambda models: os.truncate(models.path / "x/x.gguf", 100),
    "a web page": lambda models: models.text("x/x.gguf", "<html>"),
    "a linked binary": lambda models: link(models, "x.gguf"),
    "a linked JSON": lambda models: link(models, "x.json"),
    "a linked folder": link_folder,
    "an accent": lambda models: (models.path / "x/x.gguf").rename(models.path / "x/\u00e9.gguf"),
    "bytes that are no text": lambda models: (models.path / "x/x.gguf").rename(
        models.path / "x" / os.fsdecode(b"\xff.gguf")
    ),
    "nothing": lambda models: shutil.rmtree(models.path / "x"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_the_short_way_says_the_same(models: ModelsTree, name: str) -> None:
    PLAIN[name](models)

    plain, scan, thorough = both_ways(models)

    assert plain == scan == thorough
    assert [found.whole for found in thorough.models] == [True]


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_the_rules(models: ModelsTree, name: str) -> None:
    ODD[name](models)

    plain, scan, thorough = both_ways(models)

    assert plain is None
    assert scan == thorough


def test_a_binary_that_somebody_writes_to_is_left_to_the_rules(models: ModelsTree) -> None:
    with (models.path / "x/x.gguf").open("ab"):
        plain, scan, thorough = both_ways(models)

        assert plain is None
        assert scan == thorough
        assert [found.whole for found in scan.models] == [False]


def test_a_json_that_is_saved_keeps_what_the_short_way_found(models: ModelsTree) -> None:
    headers = HeaderCache()
    before, _, _ = both_ways(models, headers)
    models.text("x/x.json", "{")

    scan = scan_entry(models.tree, "x", headers, now=time.time(), listings=listed(models))

    assert before is not None
    assert [found.spec for found in scan.models] == [found.spec for found in before.models]


def test_copies_of_a_header_are_known_and_one_that_is_cut_is_not(models: ModelsTree) -> None:
    """A file is judged by its own length, whatever is known of its beginning."""
    gguf_files.bare_header(models.at("y/y.gguf"))
    models.spec("y/y.json")
    os.truncate(models.path / "y/y.gguf", 120)
    headers = HeaderCache()

    whole = scan_entry(models.tree, "x", headers, now=time.time() + LATER_S)
    cut = scan_entry(models.tree, "y", headers, now=time.time() + LATER_S)

    assert whole.models[0].whole
    assert cut.models[0].error is not None
    assert cut.models[0].error.code == "incomplete-binary"
