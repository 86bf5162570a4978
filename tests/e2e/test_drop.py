"""The path of a drop, from a copy on the disk to what the socket says, with a real daemon."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files, json_mutations
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

SPEC: dict[str, Any] = {"origin": "tests/tiny"}


def write_model(folder: Path, name: str, *, size: int | None = None) -> None:
    """Write a JSON and a small GGUF with its stem."""
    folder.mkdir(parents=True, exist_ok=True)
    gguf_files.bare_header(folder / f"{name}.gguf", size=size)
    (folder / f"{name}.json").write_text(json.dumps(SPEC))


async def test_what_lies_there_at_the_start_is_registered(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "tiny", "tiny")
    async with DaemonProcess(tmp_path) as daemon:
        models = await daemon.models_by_id()

    assert models["tiny"]["state"] == "downloaded"
    assert models["tiny"]["path"] == "models/tiny/tiny.json"
    assert models["tiny"]["files"][0]["present"]


async def test_copied_moved_in_and_out(tmp_path: Path) -> None:
    write_model(tmp_path / "elsewhere" / "tiny", "tiny")
    async with DaemonProcess(tmp_path) as daemon:
        assert await daemon.models_by_id() == {}
        subprocess.run(["cp", "-r", tmp_path / "elsewhere" / "tiny", daemon.models], check=True)
        await daemon.until_state("tiny", "downloaded")
        shutil.rmtree(daemon.models / "tiny")
        await daemon.until_state("tiny", None)
        (tmp_path / "elsewhere" / "tiny").rename(daemon.models / "other")
        await daemon.until_state("tiny", "downloaded")
        (daemon.models / "other").rename(tmp_path / "away")
        await daemon.until_state("tiny", None)


async def test_moved_from_another_file_system(tmp_path: Path, other_file_system: Path) -> None:
    write_model(other_file_system / "tiny", "tiny", size=1_000_000)
    async with DaemonProcess(tmp_path) as daemon:
        subprocess.run(["mv", other_file_system / "tiny", daemon.models], check=True)
        await daemon.until_state("tiny", "downloaded")


async def test_a_bare_gguf_gets_its_json_and_a_later_json_replaces_it(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path, "--settle", "0.2") as daemon:
        (daemon.models / "bare").mkdir()
        gguf_files.bare_header(daemon.models / "bare" / "weights-Q4_K_M.gguf")
        await daemon.until_state("weights-Q4_K_M", "downloaded")
        generated = daemon.models / "bare" / "weights-Q4_K_M.json"
        assert json.loads(generated.read_bytes())["origin"]
        (daemon.models / "bare" / "mine.json").write_text(json.dumps({**SPEC, "download_url": "weights-Q4_K_M.gguf"}))
        await daemon.until_state("mine", "downloaded")
        await until(lambda: not generated.exists(), what="the generated JSON to go")
        await daemon.until_state("weights-Q4_K_M", None)


async def copy_in_pieces(source: bytes, target: Path, random_numbers: random.Random, finished: set[str]) -> None:
    """Write *source* in random pieces with random pauses; sometimes closing and reopening in between."""
    cuts = sorted(
        {0, len(source), *(random_numbers.randrange(len(source)) for _ in range(random_numbers.randrange(1, 8)))}
    )
    stream = target.open("wb")
    try:
        for begin, end in itertools.pairwise(cuts):
            await asyncio.sleep(random_numbers.random() * 0.05)
            if random_numbers.random() < 0.3:
                stream.close()
                stream = target.open("ab")
            if end == len(source):
                # Before the last byte is written: whoever lists it from now on may be right.
                finished.add(target.stem)
            stream.write(source[begin:end])
            stream.flush()
    finally:
        stream.close()


async def test_never_downloaded_before_the_last_byte(tmp_path: Path) -> None:
    """200 copies, cut into random pieces with random pauses, while somebody lists all the time."""
    gguf_files.bare_header(tmp_path / "source.gguf", size=60_000)
    source = (tmp_path / "source.gguf").read_bytes()
    finished: set[str] = set()
    early: list[str] = []
    async with DaemonProcess(tmp_path) as daemon:

        async def drop(number: int) -> None:
            random_numbers = random.Random(number)
            folder = daemon.models / f"m{number}"
            folder.mkdir()
            if number % 2:
                (folder / f"m{number}.json").write_text(json.dumps(SPEC))
            await copy_in_pieces(source, folder / f"m{number}.gguf", random_numbers, finished)
            if not number % 2:
                (folder / f"m{number}.json").write_text(json.dumps(SPEC))

        async def watch() -> None:
            while True:
                listed = await daemon.models_by_id("?state=downloaded")
                early.extend(name for name in listed if name not in finished)
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        for begin in range(0, 200, 25):
            await asyncio.gather(*(drop(number) for number in range(begin, begin + 25)))

        async def all_there() -> bool:
            return len(await daemon.models_by_id("?state=downloaded")) == 200

        await until(all_there, 20, what="200 models to be downloaded")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    assert early == []


async def test_an_arriving_model_shows_its_progress(tmp_path: Path) -> None:
    gguf_files.bare_header(tmp_path / "source.gguf", size=1_000_000)
    source = (tmp_path / "source.gguf").read_bytes()
    async with DaemonProcess(tmp_path) as daemon:
        (daemon.models / "tiny").mkdir()
        (daemon.models / "tiny" / "tiny.json").write_text(json.dumps(SPEC))
        with (daemon.models / "tiny" / "tiny.gguf").open("wb") as stream:
            stream.write(source[:500_000])
            stream.flush()

            async def half() -> Any:
                model = await daemon.find("tiny")
                return model if model and model["progress"] and model["progress"]["bytes_done"] == 500_000 else None

            model = await until(half, what="half of the bytes to show")
            assert model["state"] == "downloading"
            assert model["progress"]["bytes_total"] == 1_000_000
            stream.write(source[500_000:])
        await daemon.until_state("tiny", "downloaded")


async def test_mutated_files_are_located_problems_and_hide_nobody(tmp_path: Path, soak: bool) -> None:
    """Every mutated JSON and GGUF is a located problem or a model; the good ones beside them stay listed, and nothing crashes."""
    count = 1000 if soak else 100
    good = 20
    for number in range(good):
        write_model(tmp_path / "models" / f"good{number}", f"good{number}")
    async with DaemonProcess(tmp_path) as daemon:
        for name, content in json_mutations.mutations(1, count):
            folder = daemon.models / f"json-{name}"
            folder.mkdir()
            (folder / f"{name}.json").write_bytes(content)
        for name, content in gguf_files.mutations(2, count):
            folder = daemon.models / f"gguf-{name}"
            folder.mkdir()
            (folder / f"{name}.gguf").write_bytes(content)
            (folder / f"{name}.json").write_text(json.dumps(SPEC))

        async def problem_of_each() -> bool:
            """Whether every dropped JSON and GGUF is either whole or has a problem that says where."""
            listed = await daemon.models_by_id()
            problems = await daemon.call("GET", "/v1/problems")
            named = {problem["path"].split("/")[1] for problem in problems["data"]}
            whole = {model["path"].split("/")[1] for model in listed.values() if model["state"] == "downloaded"}
            # A mutation that leaves a valid JSON is a model without a binary: no problem, but an error or something to fetch.
            waiting = {
                model["path"].split("/")[1]
                for model in listed.values()
                if model["state"] == "downloading" and model["path"].split("/")[1].startswith("json-")
            }
            return {path.name for path in daemon.models.iterdir()} <= named | whole | waiting

        await until(problem_of_each, 30, what="a verdict on every file")
        listed = await daemon.models_by_id("?state=downloaded")
        problems = (await daemon.call("GET", "/v1/problems"))["data"]

    assert {f"good{number}" for number in range(good)} <= listed.keys()
    assert len(problems) > count
    for problem in problems:
        assert problem["message"]
        if problem["code"] == "bad-json":
            assert problem["line"] >= 1, problem
            assert problem["column"] >= 1, problem


async def test_delete_removes_the_model_and_its_files(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "tiny", "tiny")
    async with DaemonProcess(tmp_path) as daemon:
        answer = await daemon.call("DELETE", "/v1/models/tiny")
        assert answer == {"id": "tiny", "object": "model", "deleted": True, "kept": []}
        assert await daemon.find("tiny") is None
        assert list(daemon.models.iterdir()) == []


async def test_keep_files_unregisters_for_good(tmp_path: Path) -> None:
    """The binary stays, and is not adopted again behind the user's back."""
    write_model(tmp_path / "models" / "tiny", "tiny")
    async with DaemonProcess(tmp_path, "--settle", "0.1") as daemon:
        await daemon.call("DELETE", "/v1/models/tiny?keep_files=true")
        write_model(tmp_path / "models" / "later", "later")
        (tmp_path / "models" / "later" / "later.json").unlink()
        await daemon.until_state("later", "downloaded")
        assert [path.name for path in (daemon.models / "tiny").iterdir()] == ["tiny.gguf"]
        assert await daemon.find("tiny") is None


async def test_a_delete_ends_although_the_model_is_dropped_again_at_once(tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "tiny", "tiny")
    async with DaemonProcess(tmp_path) as daemon:
        for _ in range(20):
            write_model(tmp_path / "staged", "tiny")
            deleting = asyncio.create_task(daemon.call("DELETE", "/v1/models/tiny", status=None))
            await until(lambda: moved_in(tmp_path / "staged", daemon.models / "tiny"), what="a place for the next drop")
            answer = await asyncio.wait_for(deleting, 10)
            assert answer["deleted"]
            await daemon.until_state("tiny", "downloaded")


def moved_in(folder: Path, place: Path) -> bool:
    """Whether *folder* could be moved to *place* with all that it holds: one that is empty is replaced, one that is not stands in the way (rename(2))."""
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True
