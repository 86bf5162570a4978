"""Several who want one file: who comes and who leaves takes nothing away from the others, and nobody waits for somebody who waits for him."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes.downloading import NAME, REPO, contents, digest_of, downloader_for, noise, spec_of
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB, MISTRAL_7B, announced
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jand.download.downloader import Downloader
    from jand.model.record import Progress

SIZE = 4 * MIB
CONTENT = noise(SIZE)
OTHER = "other.Q4_K_M.gguf"


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.add(REPO, {NAME: CONTENT, OTHER: noise(SIZE, 1)})
        yield made


def nobody(_: Progress) -> None:
    return


def begin(downloader: Downloader, directory: Path, owner: str, *names: str) -> asyncio.Task[None]:
    """Plan and fetch in one task, as models do whose JSONs were dropped together."""
    directory.mkdir(exist_ok=True)

    async def run() -> None:
        plan = await downloader.plan(spec_of(download_url=list(names or (NAME,))), directory, {})
        await downloader.fetch(plan, directory, owner=owner, on_progress=nobody)

    return asyncio.ensure_future(run())


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def owners(directory: Path) -> list[str]:
    notes = directory / ".jand-part" / f"{NAME}.part.json"
    found: list[str] = json.loads(notes.read_bytes())["owners"] if notes.exists() else []
    return found


async def test_two_folders_that_begin_in_one_moment_do_not_wait_for_one_another(hub: FakeHub, tmp_path: Path) -> None:
    async with downloader_for(hub) as downloader:
        tasks = [begin(downloader, tmp_path / letter, letter) for letter in "abc"]
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    assert hub.served() == len(CONTENT)
    assert all(contents(tmp_path / letter) == {NAME: digest_of(CONTENT)} for letter in "abc")


async def test_whoever_discards_leaves_the_partial_of_a_transfer_that_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = SIZE
    async with downloader_for(hub) as downloader:
        first, second = (begin(downloader, tmp_path / "m", name) for name in ("one", "two"))
        await until(lambda: hub.served() > MIB)
        await cancel(first)
        await downloader.discard(tmp_path / "m", "one")
        hub.rate = None
        await second

    assert hub.served() == len(CONTENT)


async def test_the_notes_name_whoever_waits_now(hub: FakeHub, tmp_path: Path) -> None:
    """Of those who came after the first byte too, and not of those who left: the last one's discard finds nothing that holds it back."""
    hub.rate = SIZE // 2
    async with downloader_for(hub) as downloader:
        first = begin(downloader, tmp_path / "m", "one")
        await until(lambda: owners(tmp_path / "m") == ["one"])
        second = begin(downloader, tmp_path / "m", "two")
        await until(lambda: owners(tmp_path / "m") == ["one", "two"])
        await cancel(first)
        await until(lambda: owners(tmp_path / "m") == ["two"])
        await cancel(second)
        assert owners(tmp_path / "m") == ["two"]
        await downloader.discard(tmp_path / "m", "two")

    assert list((tmp_path / "m").iterdir()) == []


async def test_a_cancelled_fetch_of_several_files_has_let_go_of_all_of_them(hub: FakeHub, tmp_path: Path) -> None:
    """Or what is discarded next would be written again."""
    hub.rate = SIZE
    for number in range(10):
        directory = tmp_path / str(number)
        async with downloader_for(hub) as downloader:
            task = begin(downloader, directory, "one", NAME, OTHER)
            await until(lambda: len(list(directory.rglob("*.part"))) == 2)  # noqa: B023
            await cancel(task)
            await downloader.discard(directory, "one")
            assert list(directory.iterdir()) == []


async def test_what_a_twin_has_fetched_is_copied_although_nobody_waits_for_the_twin_any_more(
    hub: FakeHub, tmp_path: Path
) -> None:
    """The scan that sees the file ends the wish for it, often before the transfer can say that it is there."""
    hub.rate = SIZE
    async with downloader_for(hub) as downloader:
        first = begin(downloader, tmp_path / "a", "one")
        await until(lambda: hub.served() > 0)
        second = begin(downloader, tmp_path / "b", "two")
        await until(lambda: (tmp_path / "b" / ".jand-part").exists() or len(downloader.under_way) == 2)
        hub.rate = None
        await until((tmp_path / "a" / NAME).exists)
        await cancel(first)
        await second

    assert hub.served() == len(CONTENT)
    assert contents(tmp_path / "b") == {NAME: digest_of(CONTENT)}


async def test_a_twin_that_brought_something_else_is_no_seed(hub: FakeHub, tmp_path: Path) -> None:
    """A person's file of that name, with another length, was put there while the twin was on its way."""
    hub.rate = SIZE
    async with downloader_for(hub) as downloader:
        first = begin(downloader, tmp_path / "a", "one")
        await until(lambda: hub.served() > 0)
        second = begin(downloader, tmp_path / "b", "two")
        await until(lambda: len(downloader.under_way) == 2)
        (tmp_path / "a" / NAME).write_bytes(b"theirs")
        hub.rate = None
        await asyncio.gather(first, second)

    assert (tmp_path / "a" / NAME).read_bytes() == b"theirs"
    assert contents(tmp_path / "b") == {NAME: digest_of(CONTENT)}


async def test_a_header_is_read_once_for_a_commit(hub: FakeHub, tmp_path: Path) -> None:
    """A preview and the plan that follows it ask for the same one."""
    files = {f"big.{name}.gguf": announced(name, 5_000_000_000, MISTRAL_7B) for name in ("Q4_K_M", "Q2_K")}
    repo = hub.add("somebody/big-GGUF", files)
    async with downloader_for(hub) as downloader:
        for _ in range(3):
            await downloader.plan(spec_of(origin="somebody/big-GGUF"), tmp_path, {})
        assert len(hub.seen("cdn")) == 1
        repo.revisions["next"] = {
            f"big.{name}.gguf": announced(name + "2", 5_000_000_000, MISTRAL_7B) for name in ("Q4_K_M", "Q2_K")
        }
        await downloader.plan(spec_of(origin="somebody/big-GGUF@next"), tmp_path, {})

    assert len(hub.seen("cdn")) == 2
