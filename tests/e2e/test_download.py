"""A JSON alone: what it lacks is fetched by a real daemon from the stand-in hub, and survives what people do meanwhile."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB, gguf_bytes
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

REPO = "somebody/small-GGUF"
NAME = "small.Q4_K_M.gguf"
CONTENT = gguf_bytes(6 * MIB, seed=1)
SPEC: dict[str, Any] = {"origin": REPO, "download_url": NAME}


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as running:
        running.add(REPO, {NAME: CONTENT, "README.md": b"hello"})
        yield running


def serve(root: Path, hub: FakeHub, *flags: str) -> DaemonProcess:
    environ = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    return DaemonProcess(root, "--settle", "0.1", "--no-reuse", *flags, environ=environ)


def drop(daemon: DaemonProcess, name: str = "small", **fields: Any) -> Path:
    folder = daemon.models / name
    folder.mkdir(parents=True)
    (folder / f"{name}.json").write_text(json.dumps({**SPEC, **fields}))
    return folder


async def fetched_half(daemon: DaemonProcess, name: str = "small") -> None:
    async def half() -> bool:
        model = await daemon.find(name)
        return bool(model and model["progress"] and model["progress"]["bytes_done"] > MIB)

    await until(half, 20, what="a part of the download")


async def test_a_json_alone_is_registered_at_once_and_completed(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate = 8 * MIB
    async with serve(tmp_path, hub) as daemon:
        folder = drop(daemon)
        await daemon.until_state("small", "downloading", 2)
        await fetched_half(daemon)
        model = await daemon.find("small")
        assert model is not None
        assert model["progress"]["bytes_total"] == len(CONTENT)
        assert model["progress"]["files"][0]["name"] == NAME
        assert not (folder / NAME).exists()
        await daemon.until_state("small", "downloaded")
        model = await daemon.find("small")

    assert (folder / NAME).read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "small.json"]
    assert model is not None
    assert (model["error"], model["progress"]) == (None, None)


async def test_a_killed_daemon_goes_on_where_it_was(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate = 4 * MIB
    async with serve(tmp_path, hub) as daemon:
        folder = drop(daemon)
        await fetched_half(daemon)
        daemon.signal(signal.SIGKILL)
        await daemon.wait()
        hub.rate = None
        served = hub.served(NAME)
        daemon.spawn()
        await daemon.ready()
        await daemon.until_state("small", "downloaded")

    assert (folder / NAME).read_bytes() == CONTENT
    assert hub.served(NAME) - served < len(CONTENT) - MIB // 2


async def test_a_deleted_model_leaves_nothing(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate = 2 * MIB
    async with serve(tmp_path, hub) as daemon:
        drop(daemon)
        await fetched_half(daemon)
        await daemon.call("DELETE", "/v1/models/small")
        assert list(daemon.models.iterdir()) == []
        served = hub.served(NAME)
        await daemon.call("POST", "/v1/rescan")
        assert hub.served(NAME) <= served + MIB


async def test_what_a_person_puts_there_meanwhile_wins(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate = MIB
    theirs = gguf_bytes(2 * MIB, seed=9)
    async with serve(tmp_path, hub) as daemon:
        folder = drop(daemon)
        await fetched_half(daemon)
        (tmp_path / "theirs.gguf").write_bytes(theirs)
        (tmp_path / "theirs.gguf").rename(folder / NAME)
        await daemon.until_state("small", "downloaded")

    assert (folder / NAME).read_bytes() == theirs


async def test_a_wrong_file_never_gets_its_name(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.append(Fault(at="cdn", times=None, flip_at=3 * MIB))
    async with serve(tmp_path, hub) as daemon:
        folder = drop(daemon)

        async def refused() -> Any:
            model = await daemon.find("small")
            return model if model and model["error"] else None

        model = await until(refused, 30, what="the error of the model")
        assert model["error"]["code"] == "bad-digest"
        assert hashlib.sha256(CONTENT).hexdigest() in model["error"]["message"] + model["error"]["hint"]
        assert model["error"]["retry_at"] is not None
        assert not (folder / NAME).exists()
        assert len(hub.seen("cdn")) == 2


async def test_a_gated_repository_says_what_to_do(tmp_path: Path, hub: FakeHub) -> None:
    hub.add("somebody/gated-GGUF", {NAME: CONTENT}).gated = True
    async with serve(tmp_path, hub) as daemon:
        drop(daemon, "gated", origin="somebody/gated-GGUF")

        async def refused() -> Any:
            model = await daemon.find("gated")
            return model if model and model["error"] else None

        model = await until(refused, 30, what="the error of the model")
        assert model["state"] == "downloading"
        assert model["error"]["code"] == "hub-gated"
        assert model["error"]["hint"]


async def test_a_hub_that_was_away_is_tried_again_at_a_word(tmp_path: Path, hub: FakeHub) -> None:
    hub.faults.append(Fault(at="api", times=None, status=404, headers={"X-Error-Code": "RepoNotFound"}))
    async with serve(tmp_path, hub) as daemon:
        drop(daemon)

        async def refused() -> bool:
            model = await daemon.find("small")
            return bool(model and model["error"])

        await until(refused, 30, what="the error of the model")
        hub.faults.clear()
        await daemon.call("PUT", "/v1/models/small/resume")
        await daemon.until_state("small", "downloaded")
        model = await daemon.find("small")
        assert model is not None
        assert model["error"] is None


async def test_pause_and_resume(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate = 2 * MIB
    async with serve(tmp_path, hub) as daemon:
        drop(daemon)
        await fetched_half(daemon)
        paused = await daemon.call("PUT", "/v1/models/small/pause")
        assert (paused["paused"], paused["state"]) == (True, "downloading")
        hub.rate = None
        await daemon.call("PUT", "/v1/models/small/resume")
        await daemon.until_state("small", "downloaded")
        refused = await daemon.call("PUT", "/v1/models/small/pause", status=409)
        assert refused["error"]["code"] == "not-possible"


async def test_register_from_a_repository_by_the_command_line(tmp_path: Path, hub: FakeHub) -> None:
    hub.add("TheBloke/tiny-GGUF", {"tiny.Q2_K.gguf": gguf_bytes(MIB, 2), "tiny.Q4_K_M.gguf": gguf_bytes(2 * MIB, 3)})
    async with serve(tmp_path, hub) as daemon:
        command = [
            sys.executable,
            "-m",
            "jand",
            "pull",
            "TheBloke/tiny-GGUF:Q2_K",
            "--socket",
            str(daemon.socket),
            "--json",
        ]
        pulled = await run(command)
        assert pulled.returncode == 0, pulled.stderr
        model = json.loads(pulled.stdout)
        assert model["state"] == "downloaded"
        assert [file["name"] for file in model["files"]] == ["tiny.Q2_K.gguf"]
        again = await run(command)
        assert again.returncode == 73
        assert "cannot register" in again.stderr
        missing = await run([*command[:4], "no-such-entry", *command[5:]])
        assert missing.returncode == 66


async def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    import asyncio

    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=60)


async def test_the_recommended_one_is_chosen_and_says_why(tmp_path: Path, hub: FakeHub) -> None:
    hub.add(
        "TheBloke/tiny-GGUF", {"tiny.Q8_0.gguf": gguf_bytes(3 * MIB, 2), "tiny.Q4_K_M.gguf": gguf_bytes(2 * MIB, 3)}
    )
    async with serve(tmp_path, hub) as daemon:
        answer = await daemon.call(
            "POST", "/v1/models", {"origin": "TheBloke/tiny-GGUF", "import_format": "thebloke"}, status=201
        )
        await daemon.until_state(answer["id"], "downloaded")
        model = await daemon.find(answer["id"])

    assert model is not None
    assert [file["name"] for file in model["files"]] == ["tiny.Q4_K_M.gguf"]
    assert model["details"]["chosen_quantization"] == "Q4_K_M"
    assert model["details"]["chosen_because"]


async def test_a_copy_shares_the_binaries_and_either_can_be_deleted(tmp_path: Path, hub: FakeHub) -> None:
    async with serve(tmp_path, hub) as daemon:
        folder = drop(daemon)
        await daemon.until_state("small", "downloaded")
        body = {"id": "small-long", "parameters": {"init": {"ctx_len": 64}}}
        copied = await daemon.call("POST", "/v1/models/small/copy", body, status=201)
        assert copied["parameters"]["init"]["ctx_len"] == 64
        assert copied["state"] == "downloaded"
        await daemon.call("POST", "/v1/models/small/copy", body, status=409)
        answer = await daemon.call("DELETE", "/v1/models/small")
        assert [kept["name"] for kept in answer["kept"]] == [NAME]
        assert await daemon.state("small-long") == "downloaded"
        await daemon.call("DELETE", "/v1/models/small-long")
        assert not folder.exists()


async def test_the_catalogue(tmp_path: Path, hub: FakeHub) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "mine.json").write_text(json.dumps(SPEC))
    async with serve(tmp_path, hub) as daemon:
        entries = {entry["id"]: entry for entry in (await daemon.call("GET", "/v1/catalog"))["data"]}
        assert not entries["mine"]["registered"]
        assert len(entries) > 3
        await daemon.call("POST", "/v1/models", {"catalog": "mine"}, status=201)
        await daemon.until_state("mine", "downloaded")
        await daemon.call("POST", "/v1/models", {"catalog": "mine"}, status=409)
        await daemon.call("POST", "/v1/models", {"catalog": "../../etc/passwd"}, status=404)
        for bad in ({"origin": 5}, {"origin": REPO, "folder": "../x/.."}, {"origin": REPO, "folder": "."}, {}):
            answer = await daemon.call("POST", "/v1/models", bad, status=400)
            assert answer["error"]["code"] == "bad-request", bad
    assert sorted(path.name for path in tmp_path.iterdir()) == [".jand", "catalog", "models"]
