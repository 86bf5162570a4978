"""What a daemon knows of the folders from its last life never hides what they hold now."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from jand.library.headers import is_racy, make_stamp
from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path


def add(models: Path, name: str) -> Path:
    folder = models / name
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text(json.dumps({"origin": f"tests/{name}"}))
    gguf_files.bare_header(folder / f"{name}.gguf", name=name)
    return folder


async def list_after_start(root: Path) -> dict[str, Any]:
    async with DaemonProcess(root) as daemon:
        return await daemon.models_by_id()


async def test_a_second_start_lists_the_same_models_and_what_happened_meanwhile(tmp_path: Path) -> None:
    folders = {name: add(tmp_path / "models", name) for name in ("kept", "edited", "deleted", "grown")}
    files = [path for folder in folders.values() for path in folder.iterdir()]
    until_sync(lambda: not any(is_racy(make_stamp(path.stat())) for path in files), what="the files to age")
    first = await list_after_start(tmp_path)
    assert (tmp_path / ".jand/entries").exists()

    assert await list_after_start(tmp_path) == first

    (folders["edited"] / "edited.json").write_text('{"origin": "tests/edited", "created": 7}')
    shutil.rmtree(folders["deleted"])
    shutil.copytree(folders["kept"], tmp_path / "models/other")
    with (folders["grown"] / "grown.gguf").open("r+b") as stream:
        stream.truncate(100)
    (tmp_path / ".jand/entries").write_bytes((tmp_path / ".jand/entries").read_bytes()[:-1])
    damaged = await list_after_start(tmp_path)
    listed = await list_after_start(tmp_path)

    # What is wrong with a file that grows no more is said after some seconds.
    assert {**listed, "grown": None} == {**damaged, "grown": None}
    assert listed.keys() == {"kept", "edited", "grown", "other/kept"}
    assert listed["kept"] == first["kept"]
    assert listed["edited"]["created"] == 7
    assert listed["grown"]["state"] == "downloading"
