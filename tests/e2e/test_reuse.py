"""Binaries that other programs have already: named by a JSON, linked by a person, or found by the daemon when one is missing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files, neighbours
from tests.fakes.daemon import DaemonProcess
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

SIZE = 300_000
NAME = "noise.Q4_K_M.gguf"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    return folder


def make_binary(folder: Path, name: str, *, size: int = SIZE) -> Path:
    """Write a whole GGUF whose content is its own: *name* is in its header."""
    folder.mkdir(parents=True, exist_ok=True)
    return gguf_files.bare_header(folder / name, size=size, name=name)


def drop(models: Path, model: str, **fields: Any) -> Path:
    folder = models / model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{model}.json").write_text(json.dumps({"origin": "tests/none", **fields}))
    return folder


def daemon_for(tmp_path: Path, home: Path, hub: FakeHub | None, *flags: str) -> DaemonProcess:
    """Start with *home* for HOME and without the variables by which other programs find their folders."""
    others = ("XDG_CACHE_HOME", "OLLAMA_MODELS", "LLAMA_CACHE")
    environ = {"HOME": str(home), **dict.fromkeys(others, "")}
    if hub is not None:
        environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    return DaemonProcess(tmp_path / "root", "--settle", "0.1", *flags, environ=environ)


async def until_error(daemon: DaemonProcess, model: str, code: str) -> None:
    async def told() -> bool:
        found = await daemon.find(model)
        return found is not None and found["error"] is not None and found["error"]["code"] == code

    await until(told, 10, what=f"{model} to say {code}")


async def test_a_binary_is_used_in_place_by_path_by_url_and_by_either_kind_of_link(tmp_path: Path, home: Path) -> None:
    binary = make_binary(tmp_path / "else where", "weights.gguf")
    at_home = make_binary(home, "mine.gguf")
    async with daemon_for(tmp_path, home, None) as daemon:
        drop(daemon.models, "by-path", download_url=str(binary))
        drop(daemon.models, "by-url", download_url=binary.as_uri())
        drop(daemon.models, "by-home", download_url="~/mine.gguf")
        drop(daemon.models, "by-relative", download_url="../../../else where/weights.gguf")
        os.link(binary, drop(daemon.models, "by-hard-link") / "weights.gguf")
        (drop(daemon.models, "by-link") / "weights.gguf").symlink_to(binary)
        for model in ("by-path", "by-url", "by-home", "by-relative", "by-hard-link", "by-link"):
            await daemon.until_state(model, "downloaded")
        models = await daemon.models_by_id()
        kept = [
            (await daemon.call("DELETE", f"/v1/models/{model}"))["kept"]
            for model in ("by-path", "by-url", "by-home", "by-relative", "by-hard-link", "by-link")
        ]

    assert models["by-url"]["files"][0]["name"] == str(binary), "%20 is a space"
    assert models["by-home"]["files"][0]["name"] == str(at_home)
    assert [len(files) for files in kept] == [1, 1, 1, 1, 0, 1]
    assert binary.stat().st_nlink == 1
    assert at_home.exists()


async def test_a_missing_binary_is_linked_from_each_program_and_nothing_is_downloaded(
    tmp_path: Path, home: Path
) -> None:
    repo = "some_body/noise-GGUF"
    theirs = {}
    async with FakeHub() as hub, daemon_for(tmp_path, home, hub) as daemon:
        sources = {layout: make_binary(tmp_path, f"{layout}.Q4_K_M.gguf") for layout in neighbours.LAYOUTS}
        hub.add(repo, {source.name: source for source in sources.values()})
        for layout, source in sources.items():
            theirs[layout] = neighbours.LAYOUTS[layout](home, repo, source.name, source)
            drop(daemon.models, layout, origin=repo, download_url=source.name)
        before = {layout: path.stat() for layout, path in theirs.items()}
        for layout in sources:
            await daemon.until_state(layout, "downloaded")
        models = await daemon.models_by_id()
        await daemon.call("DELETE", "/v1/models/ollama")

        assert hub.served() == 0
        assert not (daemon.models / "ollama").exists()
        assert theirs["ollama"].exists()
        for layout in sources.keys() - {"ollama"}:
            folder, name, after = daemon.models / layout, sources[layout].name, theirs[layout].stat()
            assert (folder / name).samefile(theirs[layout])
            assert not (folder / name).is_symlink()
            assert sorted(path.name for path in folder.iterdir()) == sorted([name, f"{layout}.json"])
            assert (after.st_mtime_ns, after.st_mode) == (before[layout].st_mtime_ns, before[layout].st_mode)
            assert models[layout]["details"]["reused_from"] == {name: str(theirs[layout])}


async def test_the_importers_choice_is_looked_for_with_all_its_parts_and_the_rest_is_fetched(
    tmp_path: Path, home: Path
) -> None:
    names = [f"Q4_K_M/big-Q4_K_M-0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    parts = [
        gguf_files.bare_header(tmp_path / name.rpartition("/")[2], size=SIZE, split=(number, 3))
        for number, name in enumerate(names, 1)
    ]
    neighbours.hub_cache(home, "some/big-GGUF", names[0], parts[0])
    neighbours.lm_studio(home, "some/big-GGUF", names[2].rpartition("/")[2], parts[2])
    async with FakeHub() as hub, daemon_for(tmp_path, home, hub) as daemon:
        hub.add("some/big-GGUF", dict(zip(names, parts, strict=True)))
        folder = drop(daemon.models, "big", origin="some/big-GGUF")
        await daemon.until_state("big", "downloaded", 20)

        assert hub.served(names[1]) == SIZE
        assert sum(request.served for request in hub.seen("cdn") if request.headers.get("range") is None) <= SIZE
    assert [(folder / name).stat().st_nlink for name in names] == [2, 1, 2]


async def test_without_the_hub_repository_and_name_are_enough(tmp_path: Path, home: Path) -> None:
    cached, studio = make_binary(tmp_path, "cached.Q4_K_M.gguf"), make_binary(tmp_path, "studio.Q5_K_M.gguf")
    by_digest = make_binary(tmp_path, "digest.gguf")
    neighbours.hub_cache(home, "some/cached-GGUF", "cached.Q4_K_M.gguf", cached)
    neighbours.lm_studio(home, "some/studio-GGUF", "studio.Q5_K_M.gguf", studio)
    neighbours.ollama(home, "", "", by_digest)
    async with daemon_for(tmp_path, home, None) as daemon:
        drop(daemon.models, "named", origin="some/studio-GGUF", download_url="studio.Q5_K_M.gguf")
        drop(daemon.models, "chosen", origin="some/cached-GGUF", import_format="thebloke")
        digest = neighbours.digest_of(by_digest)
        drop(daemon.models, "demanded", download_url="digest.gguf", metadata={"sha256": digest})
        drop(daemon.models, "nowhere", origin="some/cached-GGUF", download_url="cached.Q8_0.gguf")
        for model in ("named", "chosen", "demanded"):
            await daemon.until_state(model, "downloaded")
        await until_error(daemon, "nowhere", "no-network")
        chosen = await daemon.find("chosen")

        assert await daemon.state("nowhere") == "downloading"
    assert chosen is not None
    assert chosen["details"]["chosen_quantization"] == "Q4_K_M"


async def test_a_hub_that_does_not_answer_is_not_waited_for_where_this_machine_has_the_file(
    tmp_path: Path, home: Path
) -> None:
    """And where it turns out not to have it, the hub's late answer counts."""
    neighbours.hub_cache(home, "some/noise-GGUF", NAME, make_binary(tmp_path, NAME))
    theirs = neighbours.lm_studio(home, "late/noise-GGUF", NAME, make_binary(tmp_path / "whole", NAME))
    with theirs.open("ab") as stream:
        stream.truncate(SIZE // 2)
    async with FakeHub() as hub, daemon_for(tmp_path, home, hub) as daemon:
        hub.add("late/noise-GGUF", {NAME: tmp_path / "whole" / NAME})
        hub.faults = [
            Fault("api", "some/noise-GGUF", times=None, stall_headers=True),
            Fault("api", "late/noise-GGUF", delay_s=3.0),
        ]
        drop(daemon.models, "here", origin="some/noise-GGUF", download_url=NAME)
        late = drop(daemon.models, "late", origin="late/noise-GGUF", download_url=NAME)
        await daemon.until_state("here", "downloaded", 8)
        await daemon.until_state("late", "downloaded", 20)
        assert await daemon.find("here") is not None
        assert hub.seen("cdn", "some/noise-GGUF") == []
    assert (late / NAME).stat().st_size == SIZE


async def test_what_only_seems_to_be_the_file_is_left_alone_and_the_true_one_is_fetched(
    tmp_path: Path, home: Path
) -> None:
    """Wrong content under the right name and size, one that anybody can write, one that is being written, one that is cut, one that is no file."""
    repo = "some/noise-GGUF"
    kinds = ("wrong", "open-to-all", "being-written", "cut", "pipe")
    true = {kind: make_binary(tmp_path / "true", f"{kind}.gguf") for kind in kinds}
    theirs = {kind: neighbours.lm_studio(home, repo, f"{kind}.gguf", source) for kind, source in true.items()}
    with theirs["wrong"].open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    theirs["open-to-all"].chmod(0o666)
    os.truncate(theirs["cut"], SIZE - 1)
    theirs["pipe"].unlink()
    os.mkfifo(theirs["pipe"])
    with theirs["being-written"].open("ab"):
        async with FakeHub() as hub, daemon_for(tmp_path, home, hub) as daemon:
            hub.add(repo, {f"{kind}.gguf": source for kind, source in true.items()})
            folders = {kind: drop(daemon.models, kind, origin=repo, download_url=f"{kind}.gguf") for kind in kinds}
            for kind in kinds:
                await daemon.until_state(kind, "downloaded", 20)
            models = await daemon.models_by_id()

            assert hub.served() == len(kinds) * SIZE
    for kind in kinds:
        assert (folders[kind] / f"{kind}.gguf").read_bytes() == true[kind].read_bytes(), kind
        assert "reused_from" not in models[kind]["details"]
        assert theirs[kind].exists()


async def test_nothing_is_looked_for_with_reuse_off(tmp_path: Path, home: Path) -> None:
    source = make_binary(tmp_path, NAME)
    theirs = neighbours.hub_cache(home, "some/noise-GGUF", NAME, source)
    async with FakeHub() as hub, daemon_for(tmp_path, home, hub, "--no-reuse") as daemon:
        hub.add("some/noise-GGUF", {NAME: source})
        drop(daemon.models, "noise", origin="some/noise-GGUF", download_url=NAME)
        await daemon.until_state("noise", "downloaded")

        assert hub.served() == SIZE
    assert theirs.stat().st_nlink == 1


async def test_a_hard_link_outlives_the_other_programs_file_and_a_restart_tells_where_it_is_from(
    tmp_path: Path, home: Path
) -> None:
    source = make_binary(tmp_path, NAME)
    theirs = neighbours.ollama(home, "", "", source)
    async with FakeHub() as hub, daemon_for(tmp_path, home, hub) as daemon:
        hub.add("some/noise-GGUF", {NAME: source})
        folder = drop(daemon.models, "noise", origin="some/noise-GGUF", download_url=NAME)
        await daemon.until_state("noise", "downloaded")
        theirs.unlink()
        await daemon.call("POST", "/v1/rescan")

        assert await daemon.state("noise") == "downloaded"
    async with daemon_for(tmp_path, home, None) as daemon:
        model = await daemon.find("noise")

    assert model is not None
    assert (model["state"], model["details"]["reused_from"]) == ("downloaded", {NAME: str(theirs)})
    assert (folder / NAME).read_bytes() == source.read_bytes()


async def test_over_file_systems_it_is_a_symbolic_link_and_the_file_is_fetched_once_the_other_program_deletes_it(
    tmp_path: Path, other_file_system: Path
) -> None:
    source = make_binary(tmp_path, NAME)
    theirs = neighbours.lm_studio(other_file_system, "some/noise-GGUF", NAME, source)
    async with FakeHub() as hub, daemon_for(tmp_path, other_file_system, hub) as daemon:
        hub.add("some/noise-GGUF", {NAME: source})
        folder = drop(daemon.models, "noise", origin="some/noise-GGUF", download_url=NAME)
        await daemon.until_state("noise", "downloaded")
        assert (folder / NAME).readlink() == theirs
        assert hub.served() == 0

        hub.repos.clear()
        theirs.unlink()
        await daemon.call("POST", "/v1/rescan")
        await daemon.until_state("noise", "downloading")
        await until(lambda: not (folder / NAME).is_symlink(), what="the dead link to go")
        await until_error(daemon, "noise", "hub-not-found")

        hub.add("some/noise-GGUF", {NAME: source})
        drop(daemon.models, "noise", origin="some/noise-GGUF", download_url=NAME, metadata={"tags": ["again"]})
        await daemon.until_state("noise", "downloaded")
        assert hub.served() == SIZE


async def test_a_disk_that_is_only_away_keeps_the_link(tmp_path: Path, other_file_system: Path) -> None:
    source = make_binary(tmp_path, NAME)
    neighbours.lm_studio(other_file_system, "some/noise-GGUF", NAME, source)
    async with FakeHub() as hub, daemon_for(tmp_path, other_file_system, hub) as daemon:
        hub.add("some/noise-GGUF", {NAME: source})
        folder = drop(daemon.models, "noise", origin="some/noise-GGUF", download_url=NAME)
        await daemon.until_state("noise", "downloaded")
        (other_file_system / ".lmstudio").rename(other_file_system / "away")
        await daemon.call("POST", "/v1/rescan")
        await daemon.until_state("noise", "downloading")
        assert (folder / NAME).is_symlink()
        (other_file_system / "away").rename(other_file_system / ".lmstudio")
        await daemon.call("POST", "/v1/rescan")
        await daemon.until_state("noise", "downloaded")
        assert hub.served() == 0


async def test_a_deleted_model_does_not_come_back_through_the_links_that_are_kept(
    tmp_path: Path, home: Path, other_file_system: Path
) -> None:
    """A symbolic link is kept, as every link is; of two models that share a file by hard links, each takes its own name along."""
    shared, far = make_binary(tmp_path, "shared.gguf"), make_binary(tmp_path, "far.gguf")
    theirs = neighbours.hub_cache(home, "some/shared-GGUF", "shared.gguf", shared)
    far_away = neighbours.lm_studio(other_file_system, "some/far-GGUF", "far.gguf", far)
    (home / ".lmstudio").symlink_to(other_file_system / ".lmstudio")
    async with daemon_for(tmp_path, home, None) as daemon:
        drop(daemon.models, "one", origin="some/shared-GGUF", download_url="shared.gguf")
        drop(daemon.models, "two", origin="some/shared-GGUF", download_url="shared.gguf")
        drop(daemon.models, "far", origin="some/far-GGUF", download_url="far.gguf")
        for model in ("one", "two", "far"):
            await daemon.until_state(model, "downloaded")
        kept = {model: (await daemon.call("DELETE", f"/v1/models/{model}"))["kept"] for model in ("one", "far")}
        # Whatever adoption would do it would do before it comes to this one.
        make_binary(daemon.models / "far", "later.gguf")
        await daemon.until_state("later", "downloaded")

        assert (await daemon.models_by_id()).keys() == {"two", "later"}
        assert not (daemon.models / "one").exists()
        assert (daemon.models / "two" / "shared.gguf").samefile(theirs)
        assert (daemon.models / "far" / "far.gguf").readlink() == far_away
    assert kept["one"] == []
    assert [file["name"] for file in kept["far"]] == ["far.gguf"]


async def test_a_model_whose_weights_another_program_has_starts_and_answers(tmp_path: Path, home: Path) -> None:
    (weights,) = gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    neighbours.hub_cache(home, "some/tiny-GGUF", "tiny.gguf", weights)
    async with daemon_for(tmp_path, home, None) as daemon:
        drop(daemon.models, "tiny", origin="some/tiny-GGUF")
        await daemon.until_state("tiny", "downloaded")
        await daemon.call("PUT", "/v1/models/tiny/start")
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        answer = await daemon.call("POST", "/v1/chat/completions", body)

    assert answer["usage"]["completion_tokens"] >= 1
