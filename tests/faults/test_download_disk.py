"""Disks and folders that let a download down: full, too small, read-only, taken away, swapped for a link, and names that somebody else takes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.errors import DiskError, DiskFullError, FolderGoneError, PartialInUseError
from tests.fakes.downloading import (
    NAME,
    OWNER,
    REPO,
    contents,
    digest_of,
    downloader_for,
    fetch,
    interrupted_fetch,
    noise,
    spec_of,
)
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SIZE = 8 * MIB
PARTIAL = f".jand-part/{NAME}.part"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.add(REPO, {NAME: noise(SIZE)})
        yield made


@contextlib.asynccontextmanager
async def under_way(hub: FakeHub, directory: Path, **changes: object) -> AsyncIterator[asyncio.Task[None]]:
    """Yield a download of which some bytes are on the disk; it goes on slowly."""
    hub.rate = 4 * MIB
    async with downloader_for(hub, **changes) as downloader:  # type: ignore[arg-type]
        plan = await downloader.plan(spec_of(download_url=NAME), directory, {})
        task = asyncio.ensure_future(downloader.fetch(plan, directory, owner=OWNER, on_progress=lambda _: None))
        partial = directory / PARTIAL
        await until(lambda: partial.exists() and partial.stat().st_size > MIB)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_a_disk_without_room_refuses_before_the_body(hub: FakeHub, tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(DiskFullError) as caught:
        await fetch(hub, tmp_path, min_free=free)
    assert caught.value.retry_after_s == 60
    assert not (tmp_path / NAME).exists()
    assert hub.served() <= 2 * MIB


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount tmpfs file systems of a given size, in the mount namespace of a child that holds them: paths through its /proc root."""
    children: list[subprocess.Popen[str]] = []

    def make(size: int) -> Path:
        script = f"mount -t tmpfs -o size={size} none {tmp_path} && echo ready && exec sleep 60"
        child = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return Path(f"/proc/{child.pid}/root{tmp_path}")

    yield make
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.needs("unshare")
async def test_a_disk_that_is_too_small_refuses_and_says_the_numbers(
    hub: FakeHub, small_disk: Callable[[int], Path]
) -> None:
    directory = small_disk(6 * MIB)
    with pytest.raises(DiskFullError, match=r"8\.4 MB are to come, the disk has 6\.3 MB free"):
        await fetch(hub, directory)


@pytest.mark.needs("unshare")
async def test_a_disk_that_fills_meanwhile_keeps_the_partial_and_goes_on_when_there_is_room(
    hub: FakeHub, small_disk: Callable[[int], Path]
) -> None:
    directory = small_disk(10 * MIB)
    async with under_way(hub, directory) as task:
        ballast = directory / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(64 << 10))
        with pytest.raises(DiskFullError) as caught:
            await task
    assert caught.value.retry_after_s == 60
    had = (directory / PARTIAL).stat().st_size
    assert had > MIB
    assert not (directory / NAME).exists()
    ballast.unlink()
    hub.rate = None
    await fetch(hub, directory)
    assert contents(directory) == {NAME: digest_of(noise(SIZE))}
    assert hub.seen("cdn")[-1].start == had


async def test_two_downloads_do_not_fill_together_what_either_would_fit_in(hub: FakeHub, tmp_path: Path) -> None:
    other = "other.Q4_K_M.gguf"
    hub.add(REPO, {NAME: noise(SIZE), other: noise(SIZE, 1)})
    free = shutil.disk_usage(tmp_path).free
    hub.rate = 4 * MIB
    # Room for one and a half; the slack is for whoever else writes to this disk.
    async with downloader_for(hub, min_free=free - SIZE * 3 // 2) as downloader:
        plans = [await downloader.plan(spec_of(download_url=name), tmp_path, {}) for name in (NAME, other)]
        tasks = [
            asyncio.ensure_future(downloader.fetch(plan, tmp_path, owner=str(number), on_progress=lambda _: None))
            for number, plan in enumerate(plans)
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=8)
        assert [type(task.exception()) for task in done] == [DiskFullError]
        assert "are on their way already" in str(done.pop().exception())
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def test_a_file_too_large_for_its_file_system_is_named_as_such(tmp_path: Path) -> None:
    """The limit of a process acts as that of FAT does: EFBIG in the middle of the file."""
    script = f"""
import asyncio, sys
from pathlib import Path
from tests.fakes.downloading import NAME, REPO, fetch, noise
from tests.fakes.hub import FakeHub
from jand.errors import DiskError
async def main():
    async with FakeHub() as hub:
        hub.add(REPO, {{NAME: noise({SIZE})}})
        try:
            await fetch(hub, Path({str(tmp_path)!r}))
        except DiskError as error:
            print(error.message)
asyncio.run(main())
"""
    answer = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, 3 * MIB)),
    )
    assert "too large for this file system" in answer.stdout


async def test_a_deleted_partial_is_noticed_and_fetched_again(hub: FakeHub, tmp_path: Path) -> None:
    """A write into a deleted file succeeds: without looking, the download would end well and leave nothing."""
    async with under_way(hub, tmp_path) as task:
        (tmp_path / PARTIAL).unlink()
        hub.rate = None
        await task
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}


async def test_a_deleted_hidden_folder_is_made_again(hub: FakeHub, tmp_path: Path) -> None:
    async with under_way(hub, tmp_path) as task:
        shutil.rmtree(tmp_path / ".jand-part")
        hub.rate = None
        await task
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}


async def test_a_deleted_folder_ends_the_download_and_is_not_made_again(hub: FakeHub, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    async with under_way(hub, directory) as task:
        shutil.rmtree(directory)
        hub.rate = None
        with pytest.raises(FolderGoneError):
            await task
    assert not directory.exists()


async def test_deleted_notes_do_not_hinder(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 12 * MIB
    had = await interrupted_fetch(hub, tmp_path, 2 * MIB)
    (tmp_path / ".jand-part" / f"{NAME}.part.json").unlink()
    hub.rate = None
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}
    assert hub.seen("cdn")[-1].start == had


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"\xff" * 100, b'{"source": 3}', b'{"source": "x", "size": "many"}']
)
async def test_notes_that_are_garbage_do_not_hinder(hub: FakeHub, tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / ".jand-part").mkdir()
    (tmp_path / PARTIAL).write_bytes(noise(SIZE)[: 2 * MIB])
    (tmp_path / ".jand-part" / f"{NAME}.part.json").write_bytes(garbage)
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}
    assert hub.seen("cdn")[-1].start == 2 * MIB


async def test_a_file_that_arrives_under_the_name_wins_and_ends_the_transfer(hub: FakeHub, tmp_path: Path) -> None:
    async with under_way(hub, tmp_path) as task:
        (tmp_path / NAME).write_bytes(b"somebody's own")
        await asyncio.wait_for(task, 5)
        assert hub.served() < SIZE
    assert (tmp_path / NAME).read_bytes() == b"somebody's own"
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]


async def test_a_file_that_was_there_is_never_fetched_over(hub: FakeHub, tmp_path: Path) -> None:
    """Neither by the plan, nor by a fetch whose plan did not know of it."""
    async with downloader_for(hub) as downloader:
        plan = await downloader.plan(spec_of(download_url=NAME), tmp_path, {})
        (tmp_path / NAME).write_bytes(b"incomplete")
        assert (await downloader.plan(spec_of(download_url=NAME), tmp_path, {NAME: 10})).files == ()
        await downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=lambda _: None)
    assert contents(tmp_path) == {NAME: digest_of(b"incomplete")}
    assert hub.served() == 0


async def test_a_name_taken_by_a_dangling_link_is_taken(hub: FakeHub, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / NAME).symlink_to(outside)
    await fetch(hub, directory)
    assert not outside.exists()
    assert (directory / NAME).is_symlink()


@pytest.mark.parametrize("kind", ["folder", "hidden folder", "partial", "sub-folder", "hard link", "fifo"])
async def test_nothing_is_written_through_a_link(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    name = f"sub/{NAME}"
    hub.add(REPO, {name: noise(SIZE)})
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_bytes(b"precious")
    directory = tmp_path / "model"
    partial = directory / ".jand-part" / f"sub%2F{NAME}.part"
    if kind == "folder":
        directory.symlink_to(outside)
    else:
        directory.mkdir()
    if kind == "hidden folder":
        (directory / ".jand-part").symlink_to(outside)
    elif kind == "sub-folder":
        (directory / "sub").symlink_to(outside)
    elif kind in {"partial", "hard link", "fifo"}:
        partial.parent.mkdir()
        if kind == "partial":
            partial.symlink_to(victim)
        elif kind == "hard link":
            partial.hardlink_to(victim)
        else:
            os.mkfifo(partial)
    with pytest.raises(FolderGoneError):
        await asyncio.wait_for(fetch(hub, directory, spec_of(download_url=name)), 5)
    assert victim.read_bytes() == b"precious"
    assert [path.name for path in outside.iterdir()] == ["victim"]


async def test_a_partial_that_another_process_writes_is_left_to_it(hub: FakeHub, tmp_path: Path) -> None:
    async with under_way(hub, tmp_path) as task:
        with pytest.raises(PartialInUseError) as caught:
            await fetch(hub, tmp_path)
        assert caught.value.retry_after_s
        hub.rate = None
        await task
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}


@pytest.mark.needs("unshare")
async def test_a_read_only_disk_says_so(hub: FakeHub, small_disk: Callable[[int], Path]) -> None:
    directory = small_disk(20 * MIB)
    pid = directory.parts[2]
    remount = ["nsenter", "-t", pid, "-m", "mount", "-o", "remount,ro", str(Path("/", *directory.parts[4:]))]
    subprocess.run(remount, check=True, timeout=10)
    with pytest.raises(DiskError, match="Read-only"):
        await fetch(hub, directory)


async def test_sub_folders_of_a_repository_are_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {f"a/b/{NAME}": noise(SIZE)})
    await fetch(hub, tmp_path, spec_of(download_url=f"a/b/{NAME}"))
    assert contents(tmp_path) == {f"a/b/{NAME}": digest_of(noise(SIZE))}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


async def test_the_final_name_is_never_seen_before_the_file_is_whole(hub: FakeHub, tmp_path: Path) -> None:
    """Watched from another process, as fast as it can, over a download with a flipped byte and a clean second one."""
    watcher = f"""
import hashlib, os, sys
wanted = {digest_of(noise(SIZE))!r}
print("watching", flush=True)
while True:
    try:
        with open({str(tmp_path / NAME)!r}, "rb") as stream:
            found = hashlib.sha256(stream.read()).hexdigest()
        print("whole" if found == wanted else "BAD " + found)
        break
    except FileNotFoundError:
        if os.path.exists({str(tmp_path / "stop")!r}):
            break
"""
    from tests.fakes.hub_faults import Fault

    hub.faults = [Fault(flip_at=MIB)]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", watcher, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert await child.stdout.readline() == b"watching\n"
        await fetch(hub, tmp_path)
        assert await asyncio.wait_for(child.stdout.readline(), 5) == b"whole\n"
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
