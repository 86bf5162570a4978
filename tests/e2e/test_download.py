"""What a model lacks is fetched: from a JSON dropped alone to a model that can be started, through kills, deletions and refusals, with a real daemon and a stand-in hub."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon_downloading import (
    SLOW,
    daemon_at,
    drop,
    fetched,
    is_released,
    model_of,
    until_bytes,
    until_error,
)
from tests.fakes.downloading import NAME, REPO, contents, digest_of, noise
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import CLIP, MIB, HubFile, gguf_bytes
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.fakes.daemon import DaemonProcess

    Events = list[tuple[str, dict[str, Any]]]

pytestmark = pytest.mark.timeout(60)

CONTENT = noise(8 * MIB)


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as served:
        served.add(REPO, {NAME: CONTENT})
        yield served


@asynccontextmanager
async def events_of(daemon: DaemonProcess, model: str) -> AsyncIterator[Callable[[], Awaitable[Events]]]:
    """Listen to *model* from now on; what is given returns all events up to the one that shows it downloaded."""
    async with daemon.session.get(f"http://jand/v1/events?model={model}") as stream:
        await stream.content.readline()

        async def until_downloaded() -> Events:
            told: Events = []
            kind = ""
            while not told or told[-1][1]["state"] != "downloaded":
                line = (await stream.content.readline()).decode().strip()
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    told.append((kind, json.loads(line.removeprefix("data: "))))
            return told

        yield until_downloaded


async def let_folders_settle(daemon: DaemonProcess) -> None:
    """Return when a bare binary that was dropped now has been adopted: whatever else waited for folders to settle has happened too."""
    (daemon.models / "later").mkdir()
    gguf_files.bare_header(daemon.models / "later" / "later.gguf")
    await daemon.until_state("later", "downloaded")


async def test_a_json_alone_is_registered_at_once_fetched_and_can_be_started(hub: FakeHub, tmp_path: Path) -> None:
    """The whole story, with a model that llama.cpp really loads: three states, progress, and the reason of the choice."""
    weights = gguf_files.tiny_llama(tmp_path / "tiny.gguf")[0]
    hub.add("tests/tiny-GGUF", {"tiny.Q4_K_M.gguf": weights, "tiny.Q8_0.gguf": weights, "README.md": b"# Tiny"})
    hub.rate = weights.stat().st_size * 2
    async with daemon_at(hub, tmp_path) as daemon, events_of(daemon, "tiny") as told_until_downloaded:
        drop(daemon, "tiny", origin="tests/tiny-GGUF")
        await daemon.until_state("tiny", "downloading", 2)
        told = await told_until_downloaded()
        assert (await daemon.call("PUT", "/v1/models/tiny/start"))["state"] == "running"
        model = await model_of(daemon, "tiny")

    kinds = [kind for kind, _ in told]
    assert kinds[0] == "model.registered"
    assert told[0][1]["files"] == []
    assert kinds[-1] == "model.state"
    arriving = [data["progress"] for kind, data in told if kind == "model.progress" and data["progress"]]
    assert len(arriving) >= 3
    counts = [progress["bytes_done"] for progress in arriving]
    assert counts == sorted(counts)
    assert arriving[-1]["bytes_total"] == weights.stat().st_size
    assert max(progress["bytes_per_second"] for progress in arriving) > 0
    assert [file["name"] for file in arriving[-1]["files"]] == ["tiny.Q4_K_M.gguf"]
    assert {data["state"] for _, data in told} == {"downloading", "downloaded"}
    assert model["state"] == "running"
    assert model["details"]["chosen_quantization"] == "Q4_K_M"
    assert "memory that a model may take here" in model["details"]["chosen_because"]
    assert [(file["name"], file["present"]) for file in model["files"]] == [("tiny.Q4_K_M.gguf", True)]


async def test_what_is_to_come_is_shown_with_size_and_digest_and_progress_is_told_at_most_ten_times_a_second(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.rate = 2 * SLOW
    async with daemon_at(hub, tmp_path) as daemon, events_of(daemon, "noise") as told_until_downloaded:
        began = asyncio.get_running_loop().time()
        drop(daemon, download_url=NAME)
        model = await until_bytes(daemon, 1)
        told = await told_until_downloaded()
        seconds = asyncio.get_running_loop().time() - began

    assert model["files"] == [{"name": NAME, "size": len(CONTENT), "present": False, "sha256": digest_of(CONTENT)}]
    progress = [kind for kind, _ in told if kind == "model.progress"]
    assert 3 <= len(progress) <= 10 * seconds + 3


@pytest.mark.soak
async def test_a_killed_daemon_goes_on_where_it_was_and_the_file_is_identical(
    hub: FakeHub, tmp_path: Path, *, soak: bool
) -> None:
    kills = 5 if soak else 1
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon)
        for number in range(1, kills + 1):
            hub.rate = SLOW
            await until_bytes(daemon, number * MIB)
            daemon.signal(signal.SIGKILL)
            await daemon.wait()
            assert not (folder / NAME).exists()
            daemon.spawn()
            await daemon.ready()
        hub.rate = None
        await daemon.until_state("noise", "downloaded")
        model = await model_of(daemon)

    assert contents(folder) == {NAME: digest_of(CONTENT), "noise.json": digest_of((folder / "noise.json").read_bytes())}
    starts = [request.start for request in hub.seen("cdn") if request.served and request.start]
    assert len(starts) == kills, "each start went on with a partial"
    assert fetched(hub) <= len(CONTENT) + kills * 4 * MIB
    assert model["details"]["chosen_because"].startswith("Q4_K_M needs"), "the reason of the first choice is kept"


async def test_a_deleted_json_ends_the_transfer_and_one_that_comes_back_finds_its_bytes(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon, download_url=NAME)
        await until_bytes(daemon, 2 * MIB)
        (folder / "noise.json").unlink()
        await daemon.until_state("noise", None)
        (partial,) = (folder / ".jand-part").glob("*.part")
        await until(lambda: is_released(partial), what="the transfer to let go of its partial")
        size = partial.stat().st_size
        assert 2 * MIB <= size < len(CONTENT)
        hub.rate = None
        drop(daemon, download_url=NAME)
        await daemon.until_state("noise", "downloaded")

    assert hub.seen("cdn")[-1].start == size
    assert contents(folder)[NAME] == digest_of(CONTENT)
    assert not (folder / ".jand-part").exists()


async def test_partials_whose_json_went_a_day_ago_go_and_those_that_are_wanted_stay(
    hub: FakeHub, tmp_path: Path
) -> None:
    """Also where no model is left in the folder; and nothing is judged before the first scan has said who wants what."""
    yesterday = {"source": "https://hub/x", "orphaned_at": 1_700_000_000}
    for name in ("gone", "noise"):
        folder = tmp_path / "models" / name / ".jand-part"
        folder.mkdir(parents=True)
        (folder / f"{NAME}.part").write_bytes(CONTENT[:MIB])
        (folder / f"{NAME}.part.json").write_text(json.dumps({**yesterday, "owners": [f"models/{name}/{name}.json"]}))
    (tmp_path / "models" / "noise" / "noise.json").write_text(json.dumps({"origin": REPO}))
    hub.faults.append(Fault("api", times=None, status=500))
    async with daemon_at(hub, tmp_path) as daemon:
        await until(lambda: not (tmp_path / "models" / "gone" / ".jand-part").exists(), what="the stale partial to go")
        kept = tmp_path / "models" / "noise" / ".jand-part"
        await until(lambda: "orphaned_at" not in _plain(kept / f"{NAME}.part.json"), what="the other to be kept")
        assert (kept / f"{NAME}.part").stat().st_size == MIB
        assert await daemon.state("noise") == "downloading"


def _plain(notes: Path) -> dict[str, Any]:
    return {name: value for name, value in json.loads(notes.read_bytes()).items() if value is not None}


async def test_delete_in_the_middle_leaves_nothing(hub: FakeHub, tmp_path: Path) -> None:
    """Neither the partial nor a file that was completed an instant ago."""
    projector = gguf_bytes(MIB // 4, 1, dict(CLIP))
    hub.add(REPO, {NAME: CONTENT, "mmproj-noise-f16.gguf": projector})
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon)
        await until((folder / "mmproj-noise-f16.gguf").exists, 10, what="the smaller file")
        answer = await daemon.call("DELETE", "/v1/models/noise")
        assert answer["kept"] == []
        assert list(daemon.models.iterdir()) == []
        assert await daemon.models_by_id() == {}
        await let_folders_settle(daemon)

        assert (await daemon.models_by_id()).keys() == {"later"}
        assert [path.name for path in daemon.models.iterdir()] == ["later"]
        assert fetched(hub) < len(CONTENT)


async def test_a_person_who_copies_the_binary_in_wins(hub: FakeHub, tmp_path: Path) -> None:
    """Their file is used as it is, although it is another one, and no partial stays."""
    theirs = gguf_bytes(3 * MIB, seed=9)
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon, download_url=NAME)
        await until_bytes(daemon, 2 * MIB)
        with (folder / NAME).open("wb") as stream:
            stream.write(theirs[:MIB])
            stream.flush()

            async def shown() -> bool:
                sizes: list[int] = [file["size"] for file in (await model_of(daemon))["files"]]
                return sizes == [MIB]

            await until(shown, what="their half of a file to be seen")
            stream.write(theirs[MIB:])
        await daemon.until_state("noise", "downloaded")
        await until(lambda: not (folder / ".jand-part").exists(), what="the partial to go")
        model = await model_of(daemon)

    assert (folder / NAME).read_bytes() == theirs
    assert (model["error"], model["progress"], model["files"][0]["sha256"]) == (None, None, None)


async def test_wrong_bytes_are_an_error_of_the_model_and_never_get_the_final_name(hub: FakeHub, tmp_path: Path) -> None:
    """Whether the hub states the digest or a person does, who is held to it for a file of any server too."""
    other = noise(4 * MIB, 1)
    hub.plain["/files/some.gguf"] = HubFile(other)
    some = f"{hub.storage}/files/some.gguf"
    hub.faults.append(Fault("cdn", REPO, times=None, flip_at=5 * MIB))
    async with daemon_at(hub, tmp_path) as daemon:
        flipped = drop(daemon, "flipped", download_url=NAME)
        demanded = drop(daemon, "demanded", download_url=some, metadata={"sha256": digest_of(b"another")})
        drop(daemon, "right", download_url=some, metadata={"sha256": digest_of(other)})
        errors = {name: await until_error(daemon, name, "bad-digest") for name in ("flipped", "demanded")}
        await daemon.until_state("right", "downloaded")
        right = await model_of(daemon, "right")
        assert [path.name for folder in (flipped, demanded) for path in folder.rglob("*") if path.is_file()] == [
            "flipped.json",
            "demanded.json",
        ]
        assert len(hub.seen("cdn", REPO)) == 2, "fetched again at most once"

        hub.faults.clear()
        await daemon.call("PUT", "/v1/models/flipped/resume")
        await daemon.until_state("flipped", "downloaded")
        assert (await model_of(daemon, "flipped"))["error"] is None

    assert digest_of(CONTENT) in errors["flipped"]["message"]
    assert digest_of(b"another") in errors["demanded"]["message"]
    assert all(error["retry_at"] > error["at"] for error in errors.values())
    assert right["files"][0]["sha256"] == digest_of(other)


async def test_what_keeps_a_download_from_coming_is_told_and_over_when_its_cause_is(
    hub: FakeHub, tmp_path: Path
) -> None:
    """A hub that is down, a gated repository, one that is not there, a file that comes otherwise: each model has its own error, and none of them for ever."""
    hub.add("some/gated-GGUF", {NAME: CONTENT}).gated = True
    hub.add("some/down-GGUF", {NAME: CONTENT})
    hub.faults.append(Fault("api", "some/down-GGUF", times=None, close=True))
    async with daemon_at(hub, tmp_path) as daemon:
        drop(daemon, "down", origin="some/down-GGUF")
        drop(daemon, "gated", origin="some/gated-GGUF", download_url=NAME)
        drop(daemon, "wrong", origin="no/such")
        by_hand = drop(daemon, "by-hand", download_url="none.gguf")
        errors = {name: await until_error(daemon, name) for name in ("gated", "wrong", "by-hand", "down")}
        refused = await daemon.call("PUT", "/v1/models/gated/start", status=503)

        hub.faults.clear()
        hub.repos["some/gated-GGUF"].gated = False
        for name in ("down", "gated"):
            await daemon.call("PUT", f"/v1/models/{name}/resume")
        drop(daemon, "wrong")
        (by_hand / "none.gguf").write_bytes(CONTENT)
        for name in errors:
            await daemon.until_state(name, "downloaded")
            assert (await model_of(daemon, name))["error"] is None

    assert errors["gated"]["code"] == "hub-gated"
    assert "accept the terms at https://huggingface.co/some/gated-GGUF" in errors["gated"]["hint"]
    assert "HF_TOKEN" in errors["gated"]["hint"]
    assert (errors["wrong"]["code"], errors["by-hand"]["code"]) == ("hub-not-found", "hub-not-found")
    assert errors["down"]["code"] == "hub-unavailable"
    assert all(1 <= error["retry_at"] - error["at"] <= 3600 for error in errors.values())
    assert refused["error"]["code"] == "model-downloading"
    assert "gated" in refused["error"]["message"]


async def test_what_interrupts_a_download_is_told_while_it_waits_and_forgotten_when_bytes_come_again(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.rate = 2 * SLOW
    hub.faults.append(Fault("cdn", "/repos/", skip=1, cut_after=MIB, times=3))
    async with daemon_at(hub, tmp_path) as daemon, events_of(daemon, "noise") as told_until_downloaded:
        drop(daemon)
        error = await until_error(daemon)
        told = await told_until_downloaded()

    assert error["code"] == "hub-unavailable"
    assert error["retry_at"] - error["at"] < 10
    errors = [data["error"] for _, data in told]
    assert errors[-1] is None
    first = next(at for at, each in enumerate(errors) if each)
    assert None in errors[first:-1], "over as soon as bytes come"
    assert contents(daemon.models / "noise")[NAME] == digest_of(CONTENT)


async def test_a_paused_download_stands_still_also_through_a_restart_and_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon, download_url=NAME)
        await until_bytes(daemon, MIB)
        paused = await daemon.call("PUT", "/v1/models/noise/pause")
        assert (paused["paused"], paused["state"], paused["progress"]["bytes_per_second"]) == (True, "downloading", 0)
        assert (await daemon.call("PUT", "/v1/models/noise/pause"))["paused"] is True
        (partial,) = (folder / ".jand-part").glob("*.part")
        await until(lambda: is_released(partial), what="the transfer to let go of its partial")
        size = partial.stat().st_size
        daemon.signal(signal.SIGTERM)
        await daemon.wait()
        daemon.spawn()
        await daemon.ready()

        async def planned() -> bool:
            return bool((await model_of(daemon))["files"])

        await until(planned, what="a new plan")
        assert (await model_of(daemon))["paused"] is True
        assert partial.stat().st_size == size
        hub.rate = None
        resumed = await daemon.call("PUT", "/v1/models/noise/resume")
        assert resumed["paused"] is False
        await daemon.until_state("noise", "downloaded")
        refused = await daemon.call("PUT", "/v1/models/noise/pause", status=409)

    assert hub.seen("cdn")[-1].start == size
    assert refused["error"]["code"] == "not-possible"


async def test_two_models_that_want_one_file_fetch_it_once(hub: FakeHub, tmp_path: Path) -> None:
    """In one folder they share the transfer; in two, the second copies what the first has fetched. Who leaves in between takes nothing away."""
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon, download_url=NAME)
        (folder / "second.json").write_text(json.dumps({"origin": REPO, "download_url": NAME}))
        drop(daemon, "third", download_url=NAME)
        await until_bytes(daemon, MIB, "second")
        await daemon.call("DELETE", "/v1/models/noise")
        hub.rate = None
        for name in ("second", "third"):
            await daemon.until_state(name, "downloaded")

    assert fetched(hub) <= len(CONTENT) + MIB // 4
    assert contents(daemon.models / "third")[NAME] == contents(folder)[NAME] == digest_of(CONTENT)


async def test_a_copy_shares_the_binaries_and_deleting_either_leaves_the_other_whole(
    hub: FakeHub, tmp_path: Path
) -> None:
    """Made while the original is still being fetched, so that the same choice is bound to it."""
    hub.rate = SLOW
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon)
        await until_bytes(daemon, MIB)
        for name in ("long", "longer"):
            copy = await daemon.call(
                "POST",
                "/v1/models/noise/copy",
                {"id": name, "parameters": {"init": {"ctx_len": 10_000_000}}},
                status=201,
            )
            assert (copy["download_url"], copy["path"]) == (NAME, f"models/noise/{name}.json")
        await daemon.call("DELETE", "/v1/models/longer")
        hub.rate = None
        for name in ("noise", "long"):
            await daemon.until_state(name, "downloaded")
        deleted = await daemon.call("DELETE", "/v1/models/noise")
        assert deleted["kept"] == [{"name": NAME, "why": "models/noise/long.json uses it too"}]
        assert await daemon.state("long") == "downloaded"
        refused = await daemon.call("POST", "/v1/models/long/copy", {"id": "long"}, status=409)
        assert contents(folder)[NAME] == digest_of(CONTENT)
        await daemon.call("DELETE", "/v1/models/long")

    assert refused["error"]["code"] == "model-exists"
    assert not folder.exists()
    assert fetched(hub) <= len(CONTENT) + MIB // 4


async def test_a_copy_of_a_model_that_jand_described_itself_leaves_that_one_registered(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with daemon_at(hub, tmp_path) as daemon:
        (daemon.models / "bare").mkdir()
        gguf_files.bare_header(daemon.models / "bare" / "weights-Q4_K_M.gguf")
        await daemon.until_state("weights-Q4_K_M", "downloaded")
        await daemon.call("POST", "/v1/models/weights-Q4_K_M/copy", {"id": "mine"}, status=201)
        await daemon.until_state("mine", "downloaded")
        await let_folders_settle(daemon)

        assert (await daemon.models_by_id()).keys() == {"weights-Q4_K_M", "mine", "later"}


async def test_split_weights_in_a_subfolder_come_with_all_their_parts_and_their_projector(
    hub: FakeHub, tmp_path: Path
) -> None:
    """A model is whole when all of its plan is there, not when a scan finds enough to load; a killed daemon knows that too."""
    parts = gguf_files.tiny_llama(tmp_path / "tiny.gguf", parts=2)
    files = {f"Q4_K_M/tiny-Q4_K_M-0000{number}-of-00002.gguf": part for number, part in enumerate(parts, 1)}
    hub.add("tests/split-GGUF", {**files, "mmproj-F16.gguf": gguf_bytes(4 * MIB, 1, dict(CLIP))})
    hub.rate = 2 * MIB
    async with daemon_at(hub, tmp_path, JAND_DOWNLOAD__CONCURRENCY="3") as daemon:
        folder = drop(daemon, "split", origin="tests/split-GGUF")

        async def weights_are_there() -> bool:
            model = await daemon.find("split")
            return model is not None and {file["name"] for file in model["files"] if file["present"]} == set(files)

        for _ in range(2):
            await until(weights_are_there, 10, what="the weights")
            assert await daemon.state("split") == "downloading"
            daemon.signal(signal.SIGKILL)
            await daemon.wait()
            daemon.spawn()
            await daemon.ready()
        hub.rate = None
        await daemon.until_state("split", "downloaded")
        model = await model_of(daemon, "split")

    assert {file["name"] for file in model["files"]} == {*files, "mmproj-F16.gguf"}
    assert model["details"]["vision"] is True
    assert not (folder / ".jand-part").exists()


async def test_a_model_in_a_folder_that_is_only_read_says_that_nothing_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    (extra / "noise").mkdir(parents=True)
    (extra / "noise" / "noise.json").write_text(json.dumps({"origin": REPO}))
    async with daemon_at(hub, tmp_path / "root", "--extra-models", str(extra)) as daemon:
        error = await until_error(daemon)
        refused = await daemon.call("PUT", "/v1/models/noise/resume", status=409)

    assert error["code"] == "read-only-folder"
    assert refused["error"]["code"] == "not-possible"
    assert contents(extra).keys() == {"noise/noise.json"}
    shutil.rmtree(extra)
