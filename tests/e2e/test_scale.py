"""Many drops at once, with a real daemon: all seen, none twice, and the socket answers meanwhile."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

SPEC = json.dumps({"origin": "tests/tiny"})


def write_folders(target: Path, names: list[str]) -> None:
    gguf_files.bare_header(target.parent / "one.gguf", size=20_000)
    for name in names:
        folder = target / name
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(SPEC)
        shutil.copyfile(target.parent / "one.gguf", folder / f"{name}.gguf")


async def read_events(daemon: DaemonProcess, seen: list[tuple[str, str]]) -> None:
    """Keep (type, model) of every event until cancelled."""
    async with daemon.session.get("http://jand/v1/events") as response:
        kind = ""
        async for line in response.content:
            if line.startswith(b"event:"):
                kind = line.split(b":", 1)[1].strip().decode()
            elif line.startswith(b"data:") and kind.startswith("model."):
                seen.append((kind, json.loads(line[5:])["id"]))


async def test_a_thousand_folders_dropped_at_once(tmp_path: Path, soak: bool) -> None:
    count = 1000 if soak else 300
    names = [f"m{number:04}" for number in range(count)]
    write_folders(tmp_path / "staged", names)
    seen: list[tuple[str, str]] = []
    slowest = 0.0
    async with DaemonProcess(tmp_path, "--log-level", "info") as daemon:
        listening = asyncio.create_task(read_events(daemon, seen))
        moving = asyncio.create_task(
            asyncio.to_thread(lambda: [(tmp_path / "staged" / name).rename(daemon.models / name) for name in names])
        )

        async def all_listed() -> bool:
            nonlocal slowest
            began = time.perf_counter()
            listed = await daemon.call("GET", "/v1/models?state=downloaded")
            slowest = max(slowest, time.perf_counter() - began)
            ids = [model["id"] for model in listed["data"]]
            assert len(ids) == len(set(ids))
            return sorted(ids) == names

        await until(all_listed, 60, what="all drops to be listed")
        await moving
        await until(lambda: len(seen) >= count, 20, what="an event for each")
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    registered = [model for kind, model in seen if kind == "model.registered"]
    assert sorted(registered) == names


async def test_a_burst_of_junk_that_overflows_the_queue(tmp_path: Path, soak: bool) -> None:
    """Files without number in one folder and a model among them: the registry equals a fresh scan soon after."""
    count = 20_000 if soak else 3_000
    write_folders(tmp_path / "staged", ["good"])
    async with DaemonProcess(tmp_path) as daemon:

        def burst() -> None:
            junk = daemon.models / "junk"
            junk.mkdir()
            for number in range(count):
                (junk / f"note{number}.txt").write_bytes(b"x")
            (tmp_path / "staged" / "good").rename(daemon.models / "good")

        await asyncio.to_thread(burst)
        await daemon.until_state("good", "downloaded", 5)
        before = await picture(daemon)
        await daemon.call("POST", "/v1/rescan")
        assert await picture(daemon) == before


async def picture(daemon: DaemonProcess) -> dict[str, Any]:
    models = await daemon.models_by_id()
    return {name: (model["path"], model["state"], model["files"]) for name, model in models.items()}


ODD_NAMES = [
    "with space",
    "new\nline",
    "ünïcödé-模型",
    "quote'\"double",
    "percent%20slash",
    "trailing.",
    "-dash",
    "x" * 200,
    b"invalid-\xff-utf8".decode("utf-8", "surrogateescape"),
]


async def test_odd_names_are_served_under_their_ids(tmp_path: Path) -> None:
    write_folders(tmp_path / "models", ODD_NAMES)
    async with DaemonProcess(tmp_path) as daemon:
        listed = await daemon.call("GET", "/v1/models")
        assert len(listed["data"]) == len(ODD_NAMES)
        from urllib.parse import quote

        for model in listed["data"]:
            found = await daemon.find(quote(model["id"], safe=""))
            assert found is not None, model["id"]
            assert found["path"] == model["path"]
            assert found["state"] == "downloaded"


async def test_extra_models_are_served_and_never_written_to(tmp_path: Path) -> None:
    write_folders(tmp_path / "shared", ["other"])
    (tmp_path / "shared" / "bare").mkdir()
    shutil.copyfile(tmp_path / "one.gguf", tmp_path / "shared" / "bare" / "bare.gguf")
    before = sorted(str(path) for path in (tmp_path / "shared").rglob("*"))
    async with DaemonProcess(
        tmp_path / "root", "--extra-models", str(tmp_path / "shared"), "--settle", "0.1"
    ) as daemon:
        await daemon.until_state("other", "downloaded")
        await daemon.until_state("bare", "downloaded")
        refused = await daemon.call("DELETE", "/v1/models/other", status=409)
        assert refused["error"]["code"] == "not-possible"

    assert sorted(str(path) for path in (tmp_path / "shared").rglob("*")) == before
