"""Models that are asked for: each way of registering writes a JSON that goes the way of any airdrop, with a real daemon and a stand-in hub."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.downloading import contents, digest_of
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import CLIP, LLAVA, MIB, ZEPHYR, HubFile, gguf_bytes, llava_files, zephyr_files
from tests.fakes.shell import Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

TINY = "TheBloke/tiny-GGUF"
VARIANTS = {
    f"tiny.{name}.gguf": gguf_bytes(MIB * size, size) for name, size in {"Q2_K": 1, "Q4_K_M": 2, "Q8_0": 4}.items()
}


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as served:
        served.add(TINY, VARIANTS)
        served.plain["/files/some.gguf"] = HubFile(gguf_bytes(MIB, 9))
        yield served


@asynccontextmanager
async def daemon_at(hub: FakeHub, root: Path, *flags: str) -> AsyncIterator[DaemonProcess]:
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "JAND_DOWNLOAD__MIN_FREE": "0"}
    async with DaemonProcess(root, "--settle", "0.1", "--no-reuse", *flags, environ=variables) as daemon:
        yield daemon


@pytest.fixture
async def daemon(hub: FakeHub, tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    async with daemon_at(hub, tmp_path) as running:
        yield running


def written(daemon: DaemonProcess) -> list[str]:
    return sorted(str(path.relative_to(daemon.models)) for path in daemon.models.rglob("*.json"))


async def test_each_way_of_asking_ends_in_a_model_with_its_binaries(
    daemon: DaemonProcess, hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "listed.json").write_text(
        json.dumps({"origin": TINY, "metadata": {"quantization": "Q8_0", "description": "kept"}})
    )
    bodies: list[dict[str, Any]] = [
        {"origin": TINY},
        {"origin": f"hf.co/{TINY}:q2_k"},
        {"catalog": "listed"},
        {"download_url": f"{hub.storage}/files/some.gguf"},
        {"id": "own/id", "origin": TINY, "download_url": "tiny.Q2_K.gguf", "parameters": {"init": {"ctx_len": 64}}},
    ]
    for body in bodies:
        answer = await daemon.call("POST", "/v1/models", body, status=201)
        assert answer["state"] in {"downloading", "downloaded"}
    ids = ["tiny", "tiny-q2_k", "listed", "some", "own%2Fid"]
    for model_id in ids:
        await daemon.until_state(model_id, "downloaded")
    models = {model_id: await daemon.find(model_id) for model_id in ids}

    assert written(daemon) == [
        "listed/listed.json",
        "own-id/own-id.json",
        "some/some.json",
        "tiny-q2_k/tiny-q2_k.json",
        "tiny/tiny.json",
    ]
    files = {model_id: [file["name"] for file in model["files"]] for model_id, model in models.items() if model}
    assert files == {
        "tiny": ["tiny.Q4_K_M.gguf"],
        "tiny-q2_k": ["tiny.Q2_K.gguf"],
        "listed": ["tiny.Q8_0.gguf"],
        "some": ["some.gguf"],
        "own%2Fid": ["tiny.Q2_K.gguf"],
    }
    assert models["own%2Fid"] is not None
    assert models["own%2Fid"]["parameters"]["init"] == {"ctx_len": 64}
    assert contents(daemon.models / "listed")["tiny.Q8_0.gguf"] == digest_of(VARIANTS["tiny.Q8_0.gguf"])


async def test_many_at_once_are_all_answered_although_scans_are_faster_than_writers(daemon: DaemonProcess) -> None:
    bodies = [{"id": f"m{number}", "import_format": "openai"} for number in range(40)]
    answers = await asyncio.gather(*(daemon.call("POST", "/v1/models", body, status=201) for body in bodies))

    assert [answer["id"] for answer in answers] == [body["id"] for body in bodies]
    assert len(await daemon.models_by_id()) == 40


async def test_an_id_that_is_taken_is_a_conflict_wherever_its_json_lies_and_nothing_is_written(
    daemon: DaemonProcess,
) -> None:
    (daemon.models / "loose.json").write_text(json.dumps({"import_format": "openai", "id": "taken"}))
    await daemon.until_state("taken", "downloaded")
    taken = [
        {"id": "taken", "origin": TINY},
        {"origin": TINY, "folder": "loose"},
        {"id": "taken", "catalog": "openai-gpt4-turbo"},
    ]
    for body in taken:
        answer = await daemon.call("POST", "/v1/models", body, status=409)
        assert answer["error"]["code"] == "model-exists"
    racing = await asyncio.gather(
        *(daemon.call("POST", "/v1/models", {"id": "new", "import_format": "openai"}, status=None) for _ in range(5))
    )

    assert written(daemon) == ["loose.json", "new/new.json"]
    assert sorted("error" in answer and "id" not in answer for answer in racing) == [False, True, True, True, True]


async def test_a_dry_run_writes_nothing_and_says_what_is_there_already(daemon: DaemonProcess) -> None:
    body = {"origin": TINY, "quantization": "Q2_K"}
    before = await daemon.call("POST", "/v1/models?dry_run=true", body)
    assert list(daemon.models.iterdir()) == []
    await daemon.call("POST", "/v1/models", body, status=201)
    await daemon.until_state("tiny-Q2_K", "downloaded")
    after = await daemon.call("POST", "/v1/models?dry_run=true", body)
    refused = await daemon.call("POST", "/v1/models?dry_run=true", {"origin": "no/such"}, status=404)

    assert (before["id"], before["path"], before["exists"]) == ("tiny-Q2_K", "models/tiny-Q2_K/tiny-Q2_K.json", False)
    assert before["json"]["metadata"]["quantization"] == "Q2_K"
    assert [file["name"] for file in before["download"]["files"]] == ["tiny.Q2_K.gguf"]
    assert before["download"]["bytes_to_fetch"] == len(VARIANTS["tiny.Q2_K.gguf"])
    assert (after["exists"], after["download"]["files"]) == (True, [])
    assert after["download"]["present"] == {"tiny.Q2_K.gguf": len(VARIANTS["tiny.Q2_K.gguf"])}
    assert refused["error"]["code"] == "hub-not-found"


async def test_a_binary_that_lies_in_the_folder_already_is_the_model_s(daemon: DaemonProcess, hub: FakeHub) -> None:
    """And jand's own description of it makes place."""
    (daemon.models / "there").mkdir()
    gguf_files.bare_header(daemon.models / "there" / "weights-Q4_K_M.gguf")
    await daemon.until_state("weights-Q4_K_M", "downloaded")
    answer = await daemon.call("POST", "/v1/models", {"origin": "user/repo", "folder": "there"}, status=201)
    assert (answer["id"], answer["state"]) == ("there", "downloaded")
    await daemon.until_state("weights-Q4_K_M", None)

    assert written(daemon) == ["there/there.json"]
    assert hub.requests == []


async def test_what_cannot_be_registered_is_refused_and_leaves_no_trace(daemon: DaemonProcess, tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({}, 400, "bad-request"),
        ({"origin": 5}, 400, "bad-request"),
        ({"origin": TINY, "folder": "../x"}, 400, "bad-request"),
        ({"origin": TINY, "parameters": {"init": {"ctx_len": 0}}}, 400, "bad-request"),
        ({"catalog": "../../etc/passwd"}, 404, "model-not-found"),
        ({"catalog": "nothing-like-it"}, 404, "model-not-found"),
    ]
    for body, status, code in refused:
        answer = await daemon.call("POST", "/v1/models", body, status=status)
        assert answer["error"]["code"] == code, body

    assert list(daemon.models.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".jand", "models"]


async def test_the_examples_of_the_specification_resolve_to_the_files_and_addresses_that_it_gives(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add(ZEPHYR, zephyr_files())
    hub.add(LLAVA, llava_files())
    async with daemon_at(hub, tmp_path) as daemon:

        async def known() -> dict[str, Any] | None:
            listed = {entry["id"]: entry for entry in (await daemon.call("GET", "/v1/catalog"))["data"]}
            wanted = ("model-zephyr-7B", "model-llava-v1.5-ggml", "model-azure-openai-gpt4-turbo")
            return listed if all(listed[name]["download"] for name in wanted) else None

        found = await until(known, 20, what="the plans of the catalogue")
        assert found is not None
        registered = await daemon.call("POST", "/v1/models", {"catalog": "model-azure-openai-gpt4-turbo"}, status=201)

    zephyr, llava, azure = (
        found[f"model-{name}"] for name in ("zephyr-7B", "llava-v1.5-ggml", "azure-openai-gpt4-turbo")
    )
    assert [file["url"] for file in zephyr["download"]["files"]] == [
        f"{hub.endpoint}/{ZEPHYR}/resolve/main/zephyr-7b-beta.Q2_K.gguf?download=true"
    ]
    assert {file["name"] for file in llava["download"]["files"]} == {"ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"}
    assert all(file["url"].startswith(f"{hub.endpoint}/{LLAVA}/resolve/main/") for file in llava["download"]["files"])
    assert [row["chosen"] for row in llava["download"]["table"]].count(True) == 1
    assert (azure["download"]["remote"], azure["download"]["files"]) == (True, [])
    assert azure["parameters"]["init"]["API-KEY"] == "env:AZURE_OPENAI_API_KEY"
    assert registered["state"] == "downloaded"


async def test_a_catalogue_without_a_hub_is_listed_soon_with_the_reasons(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path) as daemon:  # which is told to be offline
        listed = (await daemon.call("GET", "/v1/catalog"))["data"]

    unknown = {entry["id"]: entry["unknown"] for entry in listed}
    assert unknown["model-zephyr-7B"]["code"] == "no-network"
    assert unknown["model-azure-openai-gpt4-turbo"] is None


async def test_a_search_finds_what_the_hub_has_with_what_fits(daemon: DaemonProcess) -> None:
    found = (await daemon.call("GET", "/v1/search?q=tiny"))["data"]

    assert [hit["repository"] for hit in found] == [TINY]
    assert [(row["name"], row["chosen"]) for row in found[0]["table"]] == [
        ("Q2_K", False),
        ("Q4_K_M", True),
        ("Q8_0", False),
    ]


# The same by the command line.


async def test_pull_registers_watches_and_ends_when_all_is_there(daemon: DaemonProcess, hub: FakeHub) -> None:
    hub.add(
        "some/vision-GGUF",
        {"vision-Q4_K_M.gguf": gguf_bytes(MIB, 3), "mmproj-F16.gguf": gguf_bytes(MIB // 2, 4, dict(CLIP))},
    )
    shell = Shell(daemon.socket)

    model = await shell.json("pull", f"{TINY}:Q2_K")
    again = await shell("pull", f"hf.co/{TINY}:Q2_K")
    status, shown = await asyncio.to_thread(shell.on_terminal, "pull", "some/vision-GGUF", "--id", "eyes")
    missing = await shell("pull", "no-such-entry", status=66)
    unknown = await shell("pull", f"{TINY}:Q9", status=1)

    assert (model["id"], model["state"]) == ("tiny-Q2_K", "downloaded")
    assert again.stdout == "tiny-Q2_K is downloaded (1.0 MB); start it with: jand start tiny-Q2_K\n"
    assert status == 0
    assert "eyes is downloaded (1.6 MB); start it with: jand start eyes" in shown
    assert "the catalogue does not have it" in missing.stderr
    assert "it has only Q2_K, Q4_K_M, Q8_0" in unknown.stderr
    assert (await daemon.models_by_id()).keys() == {"tiny-Q2_K", "eyes"}


async def test_add_brings_files_folders_and_addresses_and_leaves_the_originals(
    daemon: DaemonProcess, hub: FakeHub, tmp_path: Path, other_file_system: Path
) -> None:
    here = tmp_path / "downloads"
    (here / "pair" / ".cache").mkdir(parents=True)
    gguf_files.bare_header(here / "one-Q4_K_M.gguf", size=200_000)
    gguf_files.bare_header(other_file_system / "far.gguf", size=200_000)
    gguf_files.tiny_llama(here / "split.gguf", parts=2)
    gguf_files.bare_header(here / "pair" / "pair.gguf")
    (here / "pair" / "pair.json").write_text('{"origin": "user/pair"}')
    (here / "pair" / ".cache" / "junk").write_text("not to be taken")
    before = contents(here)
    shell = Shell(daemon.socket)

    one = await shell("add", str(here / "one-Q4_K_M.gguf"))
    far = await shell("add", str(other_file_system / "far.gguf"))
    split = await shell.json("add", str(here / "split-00001-of-00002.gguf"), "--link")
    pair = await shell("add", str(here / "pair"), "--copy")
    await shell("add", f"{hub.storage}/files/some.gguf")

    assert one.stdout.splitlines() == [
        f"{daemon.models}/one-Q4_K_M has 1 file of 200 kB (1 by hard link)",
        "one-Q4_K_M is downloaded (200 kB); start it with: jand start one-Q4_K_M",
    ]
    assert "1 file of 200 kB (1 by copy)" in far.stdout
    assert [model["id"] for model in split["data"]] == ["split"]
    assert (daemon.models / "split" / "split-00002-of-00002.gguf").readlink() == here / "split-00002-of-00002.gguf"
    assert "2 files" in pair.stdout
    assert not (daemon.models / "pair" / "pair.gguf").samefile(here / "pair" / "pair.gguf")
    assert not (daemon.models / "pair" / ".cache").exists()
    assert contents(here) == before
    states = {name: model["state"] for name, model in (await daemon.models_by_id()).items()}
    assert states == dict.fromkeys(("one-Q4_K_M", "far", "split", "pair", "some"), "downloaded")
    assert not [path for path in daemon.models.iterdir() if path.name.startswith(".")]
    (here / "one-Q4_K_M.gguf").unlink()
    assert await daemon.state("one-Q4_K_M") == "downloaded"


async def test_add_refuses_what_is_no_model_before_it_is_dropped(daemon: DaemonProcess, tmp_path: Path) -> None:
    here = tmp_path / "downloads"
    (here / "empty").mkdir(parents=True)
    (here / "page.gguf").write_text("<!DOCTYPE html><html></html>")
    (here / "bad.json").write_text('{"origin": }')
    gguf_files.bare_header(here / "whole.gguf", size=100_000)
    (here / "half.gguf").write_bytes((here / "whole.gguf").read_bytes()[:60_000])
    (here / "x-00001-of-00002.gguf").write_bytes((here / "whole.gguf").read_bytes())
    shell = Shell(daemon.socket)

    for name, status, said in (
        ("page.gguf", 65, "a web page"),
        ("bad.json", 65, "line 1, column"),
        ("half.gguf", 65, "it is incomplete"),
        ("x-00001-of-00002.gguf", 66, "its part x-00002-of-00002.gguf is missing"),
        ("none.gguf", 66, "there is no such file or folder"),
        ("empty", 65, "there is nothing in it"),
    ):
        assert said in (await shell("add", str(here / name), status=status)).stderr
    assert list(daemon.models.iterdir()) == []
    await shell("add", str(here / "whole.gguf"))
    assert "there is something of that name already" in (await shell("add", str(here / "whole.gguf"), status=73)).stderr
    assert "exclude one another" in (await shell("add", str(here), "--link", "--copy", status=2)).stderr
