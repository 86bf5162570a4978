"""What events become, and what a watch knows of its own health."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from watchdog import events

from jand.library.findings import LOOSE
from jand.library.hints import MOST_NAMES, Alarm, Hints, Mailbox
from jand.library.watcher import FILTER, MOST_LINKS, Watch, default_observer, remove_stale_cookies, try_to_watch
from tests.fakes.observer import Stage
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Ear:
    """Everything that one watch has said."""

    def __init__(self, root: Path) -> None:
        self.heard: list[Hints] = []
        self.mailbox = Mailbox(asyncio.get_running_loop(), self.heard.append)
        self.stage = Stage()
        self.fed = Watch(str(root), self.mailbox, self.stage.make)
        self.real = Watch(str(root), self.mailbox, default_observer)

    @property
    def touched(self) -> set[str]:
        return {name for hints in self.heard for name in hints.touched}

    @property
    def grown(self) -> set[str]:
        return {name for hints in self.heard for name in hints.grown}

    @property
    def alarms(self) -> set[Alarm]:
        return {alarm for hints in self.heard for alarm in hints.alarms}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture
async def ear(root: Path) -> AsyncIterator[Ear]:
    ear = Ear(root)
    yield ear
    ear.fed.close()
    ear.real.close()


async def report(ear: Ear, *reported: events.FileSystemEvent) -> Hints:
    """Return the hints that *reported* events become."""
    if not ear.stage.observers:
        assert ear.fed.open() is None
    ear.heard.clear()
    ear.stage.report(*reported)
    await until(lambda: ear.heard)
    assert len(ear.heard) == 1
    return ear.heard[0]


async def test_events_below_a_folder_name_its_entry(ear: Ear, root: Path) -> None:
    created = events.FileCreatedEvent(f"{root}/phi/deep/er/model.json")
    assert (await report(ear, created)).touched == {"phi"}
    assert (await report(ear, events.DirDeletedEvent(f"{root}/phi"))).touched == {"phi"}


async def test_a_move_names_both_ends(ear: Ear, root: Path) -> None:
    moved = events.DirMovedEvent(f"{root}/a", f"{root}/b")
    assert (await report(ear, moved)).touched == {"a", "b"}
    out = events.FileMovedEvent(f"{root}/a/x.json", "")
    assert (await report(ear, out)).touched == {"a"}


async def test_a_file_directly_in_the_tree_is_loose_or_an_entry(ear: Ear, root: Path) -> None:
    """A link to a folder comes as a file does."""
    assert (await report(ear, events.FileCreatedEvent(f"{root}/x"))).touched == {LOOSE, "x"}


async def test_growth_is_told_from_change(ear: Ear, root: Path) -> None:
    hints = await report(
        ear, events.FileModifiedEvent(f"{root}/phi/w.gguf"), events.FileModifiedEvent(f"{root}/w.gguf")
    )
    assert (hints.touched, hints.grown) == (set(), {"phi", LOOSE})
    assert (await report(ear, events.FileClosedEvent(f"{root}/phi/w.gguf"))).touched == {"phi"}


async def test_names_that_are_no_text_arrive_as_they_are(ear: Ear, root: Path) -> None:
    created = events.DirCreatedEvent(os.fsencode(root) + b"/\xff\xfe")
    assert (await report(ear, created)).touched == {"\udcff\udcfe"}


async def test_our_own_names_are_left_out(ear: Ear, root: Path) -> None:
    hints = await report(
        ear,
        events.FileCreatedEvent(f"{root}/.jand-cookie-1-2"),
        events.FileModifiedEvent(f"{root}/phi/.jand-part/w.gguf"),
        events.FileCreatedEvent(f"{root}/.jand-abc.tmp"),
    )
    assert (hints.touched, hints.grown, hints.cookies) == (set(), set(), {".jand-cookie-1-2"})


async def test_what_lies_elsewhere_is_a_reason_to_look_at_everything(ear: Ear, tmp_path: Path) -> None:
    """FSEvents answers with real paths and in its own Unicode form; nothing that is not understood may be lost."""
    assert (await report(ear, events.FileCreatedEvent(f"{tmp_path}/models2/x.json"))).everything


async def test_the_end_of_the_tree_itself_is_told(ear: Ear, root: Path) -> None:
    assert (await report(ear, events.DirDeletedEvent(str(root)))).root
    assert not (await report(ear, events.DirAttribEvent(str(root)))).root


async def test_changed_rights_are_told(ear: Ear, root: Path) -> None:
    assert (await report(ear, events.DirAttribEvent(f"{root}/phi"))).rights


async def test_an_event_that_is_not_understood_kills_nothing(ear: Ear) -> None:
    assert (await report(ear, events.FileCreatedEvent(object()))).everything  # type: ignore[arg-type]


async def test_any_number_of_events_is_one_bounded_hint(ear: Ear, root: Path) -> None:
    hints = await report(ear, *(events.DirCreatedEvent(f"{root}/{number}") for number in range(3 * MOST_NAMES)))
    assert hints.everything
    assert len(hints.touched) == MOST_NAMES


async def test_nothing_is_delivered_after_the_mailbox_is_closed(ear: Ear, root: Path) -> None:
    await report(ear, events.DirCreatedEvent(f"{root}/a"))
    ear.heard.clear()
    ear.mailbox.close()
    ear.stage.report(events.DirCreatedEvent(f"{root}/b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not ear.heard


def test_events_after_the_loop_has_ended_are_dropped(root: Path) -> None:
    async def begin() -> Ear:
        ear = Ear(root)
        ear.fed.open()
        return ear

    ear = asyncio.run(begin())
    ear.stage.report(events.DirCreatedEvent(f"{root}/a"))
    assert not ear.heard


async def test_opening_and_reading_are_not_asked_for(ear: Ear) -> None:
    """They would come of our own scans, and of watchdog's walk after an overflow: above 4,096 folders that never ends."""
    ear.fed.open()
    assert ear.stage.filter == FILTER
    assert events.FileOpenedEvent not in FILTER
    assert events.FileClosedNoWriteEvent not in FILTER


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "watch-limit"),
        (errno.EMFILE, "watch-instances"),
        (errno.EACCES, "watch-denied"),
        (errno.EIO, "watch-failed"),
    ],
)
async def test_a_refusal_has_a_name(ear: Ear, number: int, code: str) -> None:
    ear.stage.refusal = OSError(number, os.strerror(number))
    refusal = ear.fed.open()
    assert refusal is not None
    assert refusal.code == code
    assert refusal.cause
    assert not ear.fed.alive
    assert try_to_watch("/somewhere", ear.stage.make) == refusal


async def test_a_back_end_may_fail_in_its_own_way(ear: Ear) -> None:
    ear.stage.refusal = SystemError("Cannot start fsevents stream")
    refusal = ear.fed.open()
    assert refusal is not None
    assert refusal.cause == "Cannot start fsevents stream"


async def test_a_refused_watch_leaves_nothing_open(ear: Ear, root: Path) -> None:
    root.rmdir()
    threads = threading.active_count()
    assert ear.real.open() is not None
    await until(lambda: threading.active_count() == threads)
    assert try_to_watch(str(root), default_observer) is not None


async def test_a_watch_of_a_link_watches_where_it_leads(tmp_path: Path, root: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    ear = Ear(link)
    assert ear.real.open() is None
    (root / "phi").mkdir()
    await until(lambda: "phi" in ear.touched)
    ear.real.close()


async def test_a_move_out_holds_nothing_back(ear: Ear, root: Path, tmp_path: Path) -> None:
    """Left to itself, watchdog delays everything after it by half a second."""
    (root / "a").mkdir()
    ear.real.open()
    (root / "a").rename(tmp_path / "a")
    (root / "b").mkdir()
    await until(lambda: "b" in ear.touched, 0.3)


@pytest.mark.needs("unshare", "mount")
@pytest.mark.parametrize("kind", ["the tree's", "another"])
def test_every_folder_is_watched_from_the_start_also_below_what_is_mounted(root: Path, kind: str) -> None:
    """A mount point hides a folder without folders, by whose links one could think that there is nothing below."""
    (root / "a" / "b" / "c" / "d").mkdir(parents=True)
    (root / "a" / "e").mkdir()
    (root / "empty").mkdir()
    (root / "point").mkdir()
    (root / "a" / "link").symlink_to(root.parent)
    mount = ["--bind", str(root / "a" / "b")] if kind == "the tree's" else ["-t", "tmpfs", "none"]
    script = f"""
import subprocess, sys
from pathlib import Path
from jand.library.watcher import Watch, default_observer
root = Path(sys.argv[1])
subprocess.run(["mount", *{mount!r}, root / "point"], check=True)
(root / "point" / "x" / "y").mkdir(parents=True)
watch = Watch(str(root), None, default_observer)
assert watch.open() is None
folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
assert len(folders) >= 10, folders
assert watch.watched_folders() == {{folder.stat().st_ino for folder in folders}}
watch.close()
"""
    subprocess.run(["unshare", "-m", sys.executable, "-c", script, root], check=True, cwd=Path(__file__).parents[3])


async def test_the_kernel_says_which_folders_are_watched(ear: Ear, root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    ear.real.open()
    wanted = frozenset(folder.stat().st_ino for folder in (root, root / "a", root / "a" / "b"))
    assert ear.real.watched_folders() == wanted
    (root / "c").mkdir()
    await until(lambda: ear.real.watched_folders() == wanted | {(root / "c").stat().st_ino})


async def test_children_do_not_inherit_the_watch(ear: Ear) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    ear.real.open()
    for name in set(os.listdir("/proc/self/fd")) - before:  # noqa: PTH208
        if Path(f"/proc/self/fd/{name}").exists() or Path(f"/proc/self/fd/{name}").is_symlink():
            assert not os.get_inheritable(int(name))


async def test_a_cookie_comes_back_and_leaves_nothing(ear: Ear, root: Path) -> None:
    ear.real.open()
    name = ear.real.place_cookie()
    assert name is not None
    await until(lambda: any(name in hints.cookies for hints in ear.heard))
    assert list(root.iterdir()) == []
    assert not ear.touched


async def test_where_nothing_can_be_written_there_is_no_cookie(ear: Ear, root: Path) -> None:
    ear.real.open()
    root.rmdir()
    assert ear.real.place_cookie() is None


def test_cookies_that_were_left_behind_are_removed(root: Path) -> None:
    (root / ".jand-cookie-99-1").touch()
    (root / "model.json").touch()
    remove_stale_cookies(str(root))
    assert [path.name for path in root.iterdir()] == ["model.json"]
    remove_stale_cookies(f"{root}/nowhere")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_a_thread_is_heard_at_once(ear: Ear, root: Path, tmp_path: Path) -> None:
    """The ghost: a folder moved out, its name used again and given up, the folder removed outside."""
    (root / "a").mkdir()
    ear.real.open()
    (root / "a").rename(tmp_path / "a")
    (root / "a").mkdir()
    inode = (root / "a").stat().st_ino
    await until(lambda: inode in (ear.real.watched_folders() or ()))
    (root / "a").rmdir()
    await until(lambda: inode not in (ear.real.watched_folders() or ()))
    shutil.rmtree(tmp_path / "a")
    await until(lambda: ear.alarms == {Alarm.DIED})
    await until(lambda: not ear.real.alive)


async def test_a_watch_with_contradictory_tables_is_closed_without_a_rest(ear: Ear, root: Path, tmp_path: Path) -> None:
    """The ghost again, closed before it kills the reader: stopping fails half way through."""
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for name in ("a", "b"):
        (root / name).mkdir()
    ear.real.open()
    for name in ("a", "b"):
        (root / name).rename(tmp_path / name)
        (root / name).mkdir()
        inode = (root / name).stat().st_ino
        await until(functools.partial(lambda inode: inode in (ear.real.watched_folders() or ()), inode))
        (root / name).rmdir()
        await until(functools.partial(lambda inode: inode not in (ear.real.watched_folders() or ()), inode))
    ear.real.close()
    await until(lambda: (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) <= before)
    assert not ear.alarms


async def test_what_watchdog_only_logs_is_heard(ear: Ear) -> None:
    """From a thread of its own: the same line from elsewhere says nothing of this watch."""
    ear.real.open()
    logger = logging.getLogger("watchdog.observers.inotify_c")
    logger.warning("Inotify queue overflowed; filesystem events were lost")
    reader = next(thread for thread in threading.enumerate() if type(thread).__name__ == "InotifyFD")
    handle = reader.handle_event  # type: ignore[attr-defined]

    def overflow(event: object) -> None:
        logger.warning("Inotify queue overflowed; filesystem events were lost")
        handle(event)

    assert not ear.alarms
    reader.handle_event = overflow  # type: ignore[attr-defined]
    ear.real.place_cookie()
    await until(lambda: ear.alarms == {Alarm.OVERFLOW})


async def test_hooks_go_with_the_last_watch(root: Path) -> None:
    hook = threading.excepthook
    first, second = Ear(root), Ear(root)
    first.real.open()
    second.real.open()
    first.real.close()
    assert threading.excepthook is not hook
    second.real.close()
    assert threading.excepthook is hook
    assert not logging.getLogger("watchdog.observers.inotify_c").handlers


async def test_other_threads_die_as_they_did_before(ear: Ear, root: Path) -> None:
    deaths: list[object] = []
    hook, threading.excepthook = threading.excepthook, deaths.append
    try:
        ear.real.open()
        thread = threading.Thread(target=lambda: 1 // 0)
        thread.start()
        thread.join()
        assert len(deaths) == 1
        assert not ear.alarms
        ear.real.close()
    finally:
        threading.excepthook = hook


async def test_far_ends_of_links_are_watched(ear: Ear, root: Path, tmp_path: Path) -> None:
    """A folder as a whole, a file by its folder and nothing else of that."""
    folder, file = tmp_path / "folder", tmp_path / "files" / "w.gguf"
    folder.mkdir()
    file.parent.mkdir()
    ear.real.open()
    ear.real.follow({str(folder): frozenset({"a"}), str(file): frozenset({"b", "c"})})
    file.with_name("other").touch()
    (folder / "x").touch()
    await until(lambda: ear.touched == {"a"})
    file.touch()
    await until(lambda: ear.touched == {"a", "b", "c"})


async def test_links_that_are_gone_are_no_longer_followed(ear: Ear, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    ear.real.open()
    ear.real.follow({str(tmp_path / "a"): frozenset({"one"})})
    ear.real.follow({str(tmp_path / "a"): frozenset({"two"}), str(tmp_path / "b"): frozenset({"three"})})
    (tmp_path / "a" / "x").touch()
    (tmp_path / "b" / "x").touch()
    await until(lambda: ear.touched == {"two", "three"})
    ear.real.follow({})


async def test_only_so_many_links_are_followed_and_none_to_above_the_tree(ear: Ear, root: Path, tmp_path: Path) -> None:
    ear.fed.open()
    links = {f"/far/{number}/": frozenset({str(number)}) for number in range(2 * MOST_LINKS)}
    ear.fed.follow({**links, str(tmp_path): frozenset({"up"}), str(root): frozenset({"self"})})
    handlers = ear.stage.observers[-1].handlers
    assert len(handlers) <= 1 + MOST_LINKS
    assert str(tmp_path) not in handlers


async def test_warnings_of_watchdog_are_not_errors(ear: Ear, root: Path, tmp_path: Path) -> None:
    """Turned into an error, its warning about a folder that it knows already ends its reader."""
    (root / "a" / "b").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ear.real.open()
        for number in range(5):
            (root / "a").rename(tmp_path / "a")
            (tmp_path / "a").rename(root / "a")
            (root / "a" / f"{number}").touch()
        (root / "last").mkdir()
        await until(lambda: "last" in ear.touched)
    assert not ear.alarms
    assert ear.real.alive
