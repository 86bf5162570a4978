"""What can break a watch, done for real: the registry's picture ends true to the disk, the fault has a name meanwhile, and no disk that is away takes a model with it.

The W numbers are those of the list of faults in the reference on watching. Sweeps do not come by themselves within these tests.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest
from watchdog.utils import BaseThread

from jand.library.findings import Tree
from jand.library.status import Mode
from tests.fakes.library import NEVER_S, SPEC, add_model, quick, watching
from tests.fakes.rights import AS_OTHERS
from tests.fakes.waiting import until
from tests.fakes.watch_child import child


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    add_model(root / "first")
    return root


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def overflow(folder: Path) -> None:
    """Cause more events in *folder* than a queue holds: equal ones in a row count once, so two files take turns."""
    length = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [folder / "junk-1", folder / "junk-2"]
    for file in files:
        file.touch()
    for number in range(length + 1000):
        os.utime(files[number % 2])


@pytest.mark.timeout(60)
async def test_overflow_of_a_stopped_process(root: Path, log: Path, soak: bool) -> None:
    """W2: what was dropped, and what happens later in a folder whose making was dropped, is seen within 5 s."""
    count = 20_000 if soak else 300
    # A cookie that the stop outlasts would have the watch opened anew before it has read of the overflow.
    async with child(root, log=log, cookie_timeout_s=60.0) as subject:
        await subject.until(models=["models/first/model.json"], mode="events")
        subject.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(overflow, root / "first")
        for number in range(count):
            add_model(root / f"lost-{number % 100}", f"{number}.json")
        (root / "later" / "inner").mkdir(parents=True)
        shutil.rmtree(root / "first")
        subject.process.send_signal(signal.SIGCONT)
        await until(lambda: subject.last["count"] == count, 20.0 if soak else 5.0, what=f"{count} models")
        add_model(root / "later" / "inner")
        await until(lambda: subject.last["count"] == count + 1)
        await subject.until(mode="events", codes=[], equal=True, timeout_s=10.0)
        assert "watch-overflow" in subject.last["codes_so_far"]


@pytest.mark.timeout(90)
async def test_an_overflow_with_many_folders_ends(root: Path, log: Path) -> None:
    """W18: above 4,096 folders watchdog's own walk after an overflow overflows the queue again, for ever, unless it is kept from hearing itself."""
    for number in range(4500):
        (root / f"folder-{number}").mkdir()
    async with child(root, log=log, cookie_timeout_s=60.0) as subject:
        await subject.until(mode="events", timeout_s=20.0)
        subject.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(overflow, root / "first")
        subject.process.send_signal(signal.SIGCONT)
        add_model(root / "folder-4499")
        wanted = ["models/first/model.json", "models/folder-4499/model.json"]
        await subject.until(models=wanted, mode="events", codes=[], timeout_s=30.0)
        assert "watch-overflow" in subject.last["codes_so_far"]
        rebuilds = subject.last["rebuilds"]
        wanted.insert(1, "models/folder-4498/model.json")
        add_model(root / "folder-4498")
        await subject.until(models=wanted)
        await asyncio.sleep(2.0)  # an overflow that comes again and again has the watch opened anew each time
        assert (subject.last["rebuilds"], subject.last["mode"], subject.last["codes"]) == (rebuilds, "events", [])


@pytest.mark.timeout(60)
async def test_a_burst_of_files(root: Path, soak: bool) -> None:
    """W1: a thousand folders by two writers at once; all are there, none is told twice as new."""
    count = 5000 if soak else 500

    def write(writer: int) -> None:
        for number in range(count):
            add_model(root / f"{writer}-{number}")

    async with watching(root) as watched:
        began = time.monotonic()
        await asyncio.gather(asyncio.to_thread(write, 1), asyncio.to_thread(write, 2))
        await until(lambda: len(watched.models) == 2 * count + 1, 30, what="all models")
        await watched.until_true_to_disk(10)
        assert time.monotonic() - began < (40 if soak else 15)


@pytest.mark.timeout(120)
async def test_many_files_at_once(root: Path, soak: bool) -> None:
    """A folder of junk that grows by thousands of files costs no other folder its turn."""
    count = 20_000 if soak else 3000
    (root / "junk").mkdir()

    def write() -> None:
        for number in range(count):
            (root / "junk" / f"{number}.txt").touch()

    async with watching(root) as watched:
        writing = asyncio.ensure_future(asyncio.to_thread(write))
        slowest = 0.0
        number = 0
        while not writing.done():
            number += 1
            began = time.monotonic()
            add_model(root / f"meanwhile-{number}")
            await watched.until_model(f"models/meanwhile-{number}/model.json")
            slowest = max(slowest, time.monotonic() - began)
        await writing
        await watched.until_true_to_disk(5)
        assert slowest < 3.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_reader_dies_of_a_ghost(root: Path, tmp_path: Path) -> None:
    """W4, W10: four steps after which watchdog sees nothing any more and still calls itself alive."""
    async with watching(root) as watched:
        add_model(root / "a")
        await watched.until_models("models/a/model.json", "models/first/model.json")
        (root / "a").rename(tmp_path / "a")
        await watched.until_models("models/first/model.json")
        (root / "a").mkdir()
        await until(lambda: ("models", "a") in watched.picture)
        (root / "a").rmdir()
        await until(lambda: ("models", "a") not in watched.picture)
        shutil.rmtree(tmp_path / "a")
        await until(lambda: watched.library.status.trees["models"].rebuilds == 1, what="the watch to be opened anew")
        assert "watch-died" in watched.codes_so_far
        await until(lambda: watched.mode() is Mode.EVENTS and not watched.problem_codes)
        add_model(root / "b" / "c")
        await watched.until_models("models/b/c/model.json", "models/first/model.json")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_reader_dies_again_and_again(root: Path, tmp_path: Path) -> None:
    """What changes between two deaths is found by looking, at the latest at the next poll."""
    async with watching(root) as watched:
        for number in range(4):
            add_model(root / "a")
            await watched.until_model("models/a/model.json")
            (root / "a").rename(tmp_path / "a")
            (root / "a").mkdir()
            await until(
                lambda: watched.picture.get(("models", "a")) is not None and not watched.picture["models", "a"].models
            )
            (root / "a").rmdir()
            shutil.rmtree(tmp_path / "a")
            add_model(root / f"b{number}")
            await watched.until_model(f"models/b{number}/model.json")
            await watched.until_true_to_disk()


async def test_a_watcher_that_hangs_is_found_out_by_a_cookie(root: Path) -> None:
    """W10: every thread lives, and yet no event arrives."""
    async with watching(root, settings=quick(poll_s=NEVER_S)) as watched:
        await until(lambda: not list(root.glob(".jand-*")), what="the first cookie to go")
        emitter = next(thread for thread in threading.enumerate() if type(thread).__name__ == "InotifyEmitter")
        assert isinstance(emitter, BaseThread)
        # The emitter holds this lock while it hands an event on, so it waits, as it would for a handler that hangs.
        with emitter._lock:  # type: ignore[attr-defined]
            add_model(root / "unseen")
            await until(lambda: "watch-silent" in watched.codes_so_far, 8.0, what="the silence to be noticed")
        await watched.until_models("models/first/model.json", "models/unseen/model.json")
        await until(lambda: watched.mode() is Mode.EVENTS)


@pytest.mark.needs("unshare")
async def test_the_limit_of_watches(root: Path, log: Path) -> None:
    """W6: it is said how to raise it, and until then everything is found by polling; when there is room again, it heals."""
    for number in range(40):
        add_model(root / f"m{number}")
    limit = "/proc/sys/user/max_inotify_watches"
    command = f'echo 20 > {limit}; exec "$@"'
    async with child(root, "unshare", "-U", "-r", "sh", "-c", command, "sh", log=log) as subject:
        await subject.until(mode="degraded", codes=["watch-limit"], timeout_s=8.0)
        assert any("fs.inotify.max_user_watches" in hint for hint in subject.last["hints"])
        for number in range(40):
            add_model(root / f"m{number}", "more.json")
        add_model(root / "new" / "deep")
        (root / "first" / "model.json").unlink()
        await until(lambda: subject.last["count"] == 81, what="80 and one models")
        await subject.until(equal=True)
        await subject.run(f"echo 1000 > {limit}")
        await subject.until(mode="events", codes=[], timeout_s=8.0)


@pytest.mark.needs("unshare")
async def test_no_inotify_instance_left(root: Path, log: Path) -> None:
    """W7: nothing can be watched at all; it is polled, and watched as soon as that is possible."""
    limit = "/proc/sys/user/max_inotify_instances"
    command = f'echo 0 > {limit}; exec "$@"'
    async with child(root, "unshare", "-U", "-r", "sh", "-c", command, "sh", log=log) as subject:
        await subject.until(mode="degraded", codes=["watch-instances"], models=["models/first/model.json"])
        add_model(root / "second")
        await subject.until(models=["models/first/model.json", "models/second/model.json"])
        await subject.run(f"echo 10 > {limit}")
        await subject.until(mode="events", codes=[], timeout_s=10.0)


@pytest.mark.needs("setpriv")
async def test_a_folder_that_may_not_be_read(root: Path, log: Path) -> None:
    """W8: it costs no other folder anything, and is watched when its rights are given back."""
    add_model(root / "closed")
    (root / "closed").chmod(0)
    async with child(root, *AS_OTHERS, log=log) as subject:
        await subject.until(models=["models/first/model.json"], mode="events")
        add_model(root / "third")
        await subject.until(models=["models/first/model.json", "models/third/model.json"])
        (root / "closed").chmod(0o755)
        await subject.until(models=["models/closed/model.json", "models/first/model.json", "models/third/model.json"])
        add_model(root / "closed", "later.json")
        await until(lambda: "models/closed/later.json" in subject.last["models"])
        (root / "closed").chmod(0)
        await subject.until(models=["models/first/model.json", "models/third/model.json"])
        (root / "closed").chmod(0o755)


async def test_a_root_that_is_a_link(tmp_path: Path, root: Path) -> None:
    """W9: watchdog alone sees nothing at all below a link."""
    link = tmp_path / "link"
    link.symlink_to(root)
    async with watching(link) as watched:
        assert watched.mode() is Mode.EVENTS
        add_model(root / "second")
        await watched.until_models("models/first/model.json", "models/second/model.json")
        other = tmp_path / "other"
        add_model(other / "elsewhere")
        (tmp_path / "link.new").symlink_to(other)
        (tmp_path / "link.new").rename(link)
        await watched.until_models("models/elsewhere/model.json")
        add_model(other / "more")
        await watched.until_models("models/elsewhere/model.json", "models/more/model.json")


async def test_a_root_that_goes_away_and_comes_back(tmp_path: Path, root: Path) -> None:
    """W9: renamed away, it takes no model with it; back again, it is watched."""
    async with watching(root) as watched:
        root.rename(tmp_path / "away")
        await until(lambda: watched.mode() is Mode.OFFLINE, what="offline")
        assert watched.problem_codes == {"root-offline"}
        assert watched.library.status.is_offline("models", "first")
        add_model(tmp_path / "away" / "second")
        assert (await watched.library.rescan()).scanned == 0
        assert watched.models == {"models/first/model.json"}
        (tmp_path / "away").rename(root)
        await until(lambda: watched.mode() is Mode.EVENTS, what="online")
        await watched.until_models("models/first/model.json", "models/second/model.json")
        add_model(root / "third")
        await watched.until_model("models/third/model.json")


async def test_a_root_that_is_not_there_yet(tmp_path: Path) -> None:
    root = tmp_path / "models"
    async with watching(root) as watched:
        assert watched.mode() is Mode.OFFLINE
        assert watched.models == set()
        add_model(root / "first")
        await watched.until_models("models/first/model.json")
        add_model(root / "second")
        await watched.until_model("models/second/model.json")


async def test_a_root_that_is_removed_and_made_again(tmp_path: Path, root: Path) -> None:
    """W9: the new one is watched, and what it does not hold is gone."""
    async with watching(root) as watched:
        subprocess.run(["rm", "-rf", root], check=True)
        root.mkdir()
        await watched.until_models()
        add_model(root / "second")
        await watched.until_models("models/second/model.json")
        await until(lambda: watched.mode() is Mode.EVENTS and not watched.problem_codes)
        # ext4 may give the new folder the number of the old one: then the end of the watch is all that tells them apart.
        assert watched.codes_so_far & {"root-replaced", "root-offline", "watch-died"}


async def test_a_root_that_is_exchanged(tmp_path: Path, root: Path) -> None:
    """W9: another folder under the same name is another truth, and writes in the old one are nobody's business."""
    other = tmp_path / "other"
    add_model(other / "second")
    async with watching(root) as watched:
        root.rename(tmp_path / "old")
        other.rename(root)
        await watched.until_models("models/second/model.json")
        add_model(tmp_path / "old" / "stray")
        add_model(root / "third")
        await watched.until_models("models/second/model.json", "models/third/model.json")


@pytest.mark.needs("unshare", "mount")
async def test_an_unmounted_root_takes_no_model_away(root: Path, log: Path, tmp_path: Path) -> None:
    """W9: models/ is the mount point of a disk. Unmounted, its empty directory says nothing; mounted again, it is the truth again."""
    disk = tmp_path / "disk"
    add_model(disk / "second")
    async with child(root, "unshare", "-m", log=log) as subject:
        await subject.until(models=["models/first/model.json"])
        shutil.rmtree(root / "first")
        await subject.until(models=[])
        await subject.run(f"mount --bind {disk} {root}")
        await subject.until(models=["models/second/model.json"], mode="events", codes=[])
        add_model(disk / "third")
        await subject.until(models=["models/second/model.json", "models/third/model.json"])
        await subject.run(f"umount {root}")
        await subject.until(offline=["second", "third"])
        assert subject.last["models"] == ["models/second/model.json", "models/third/model.json"]
        assert subject.last["found"] == ["root-offline"]
        shutil.rmtree(disk / "third")
        await subject.run(f"mount --bind {disk} {root}")
        await subject.until(models=["models/second/model.json"], offline=[], codes=[], mode="events")


@pytest.mark.needs("unshare", "mount")
async def test_an_empty_disk_mounted_over_the_root_takes_no_model_away(root: Path, log: Path) -> None:
    """W9: the models are still there, below; and what is put on the new disk is seen beside them."""
    async with child(root, "unshare", "-m", log=log) as subject:
        await subject.run(f"mount -t tmpfs none {root}")
        await subject.until(offline=["first"], models=["models/first/model.json"])
        await subject.run(f"mkdir {root}/new && echo '{SPEC}' > {root}/new/model.json")
        await until(lambda: any(path.startswith("models/new/") for path in subject.last["models"]))
        await subject.run(f"umount {root}")
        await until(lambda: "first" not in subject.last["offline"], what="the first model to be back")


@pytest.mark.needs("unshare", "mount")
async def test_a_disk_mounted_within_the_tree(root: Path, log: Path, tmp_path: Path) -> None:
    """W12, F8: mounting gives no event at all. What lies on the disk is seen, and stays known while it is away."""
    disk = tmp_path / "disk"
    add_model(disk)
    (root / "disk").mkdir()
    async with child(root, "unshare", "-m", log=log) as subject:
        await subject.until(models=["models/first/model.json"])
        await subject.run(f"mount --bind {disk} {root}/disk")
        await subject.until(models=["models/disk/model.json", "models/first/model.json"])
        add_model(disk, "more.json")
        await subject.until(models=["models/disk/model.json", "models/disk/more.json", "models/first/model.json"])
        await subject.run(f"umount {root}/disk")
        await subject.until(offline=["disk"])
        assert len(subject.last["models"]) == 3
        await subject.run(f"mount --bind {disk} {root}/disk && rm {disk}/more.json")
        await subject.until(models=["models/disk/model.json", "models/first/model.json"], offline=[])


@pytest.mark.needs("unshare", "mount")
async def test_a_file_system_that_tells_nothing_is_polled(root: Path, log: Path, tmp_path: Path) -> None:
    """W12: what is written to the lower layer of an overlay gives no event to those who watch it from above."""
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    lower = tmp_path / "lower"
    add_model(lower / "below")
    options = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    mount = f'mount -t overlay -o {options} none {root} && exec "$@"'
    async with child(root, "unshare", "-m", "sh", "-c", mount, "sh", log=log) as subject:
        await subject.until(models=["models/below/model.json"], mode="polling", codes=[])
        add_model(tmp_path / "upper" / "beside")
        await subject.until(models=["models/below/model.json", "models/beside/model.json"])


@pytest.mark.needs("unshare", "mount", "bindfs")
async def test_a_file_system_in_user_space_is_polled(root: Path, log: Path, tmp_path: Path) -> None:
    """W12: the kernel does not hear of what comes into a FUSE file system by another way than through its mount."""
    source = tmp_path / "source"
    add_model(source / "below")
    mount = f'bindfs -o nonempty {source} {root} && exec "$@"'
    try:
        async with child(root, "unshare", "-m", "sh", "-c", mount, "sh", log=log) as subject:
            await subject.until(models=["models/below/model.json"], mode="polling", codes=[])
            add_model(source / "beside")
            await subject.until(models=["models/below/model.json", "models/beside/model.json"])
            shutil.rmtree(source / "below")
            await subject.until(models=["models/beside/model.json"])
    finally:
        # It serves the mount in the background, and by that keeps the namespace in which alone it is mounted.
        for process in psutil.process_iter(["cmdline"]):
            if str(source) in (process.info["cmdline"] or ()):
                process.terminate()


async def test_a_tree_that_is_only_read_is_watched_and_never_written_to(tmp_path: Path, root: Path) -> None:
    """No cookie is placed there, and a dead reader is noticed all the same."""
    extra = tmp_path / "extra"
    add_model(extra / "second")
    extra.chmod(0o555)
    changed_at = extra.stat().st_mtime_ns
    async with watching(root, Tree(extra, str(extra), writable=False)) as watched:
        await watched.until_models("models/first/model.json", f"{extra}/second/model.json")
        add_model(extra / "second", "more.json")
        await watched.until_model(f"{extra}/second/more.json")
        await asyncio.sleep(1.5)
        assert extra.stat().st_mtime_ns == changed_at
        assert root.stat().st_mtime_ns != changed_at


async def test_a_blocked_event_loop_loses_nothing(root: Path) -> None:
    """W21: what happened meanwhile is seen afterwards, and the watch is not blamed."""
    async with watching(root) as watched:
        await asyncio.to_thread(add_model, root / "second")
        time.sleep(3.0)
        for number in range(10):
            add_model(root / f"m{number}")
        await until(lambda: len(watched.models) == 12)
        await watched.until_true_to_disk()
        assert watched.library.status.trees["models"].rebuilds == 0


async def test_times_that_jump(root: Path) -> None:
    """W19: times of long ago and of the future are times like any other, and setting them back hides no change."""
    async with watching(root, settings=quick(poll_s=NEVER_S)) as watched:
        for when in (0, 4_000_000_000):
            path = add_model(root / "second", description=f"at {when}")
            os.utime(path, (when, when))
            await watched.until_true_to_disk()
        described = [
            scanned.models[0].spec.metadata.description
            for scanned in watched.told
            if scanned.entry == "second" and scanned.models
        ]
        assert described[-1] == "at 4000000000"


@pytest.mark.parametrize("repeats", [20])
async def test_nothing_is_left_behind(root: Path, repeats: int) -> None:
    """D1: starting and stopping leaves no thread, no open file, no cookie and no hook."""
    hook = threading.excepthook

    def resources() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    async with watching(root):
        pass
    before = resources()
    for _ in range(repeats):
        async with watching(root) as watched:
            await watched.until_model("models/first/model.json")
    await until(lambda: resources() <= before, what=f"{before} threads and files, have {resources()}")
    assert threading.excepthook is hook
    assert not list(root.glob(".jand-*"))
