"""From events to what is told, with event sources and scans that the test controls."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
import unicodedata
from typing import TYPE_CHECKING

import pytest
from watchdog import events

from jand.library import scan as scans
from jand.library.findings import EntryScan, Tree
from jand.library.headers import HeaderCache
from jand.library.library import Library, LibrarySettings
from jand.library.status import Mode
from tests.fakes.library import NEVER_S, QUICK, Watched, add_model, quick, watching
from tests.fakes.observer import Stage
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from jand.library.stamps import Listings

SILENT = LibrarySettings(settle_s=0.2, rescan_s=NEVER_S, poll_s=NEVER_S, slow_s=0.5, vigilance=QUICK)
"""Nothing is looked at but what events name."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def watched(root: Path, stage: Stage) -> AsyncIterator[Watched]:
    """Run a library that hears only what the test reports; its tree is read only, so that no cookie is missed."""
    async with watching(Tree(root, "models", writable=False), settings=SILENT, observer=stage.make) as watched:
        yield watched


async def test_the_first_scan_tells_everything_and_then_it_is_ready(root: Path) -> None:
    for number in range(200):
        add_model(root / f"m{number}")
    add_model(root, "loose.json")
    async with watching(root) as watched:
        assert len(watched.models) == 201
        assert len(watched.told) == 201
        assert not watched.differences()


async def test_without_an_event_nothing_is_seen_and_with_one_it_is(watched: Watched, root: Path, stage: Stage) -> None:
    add_model(root / "phi")
    await asyncio.sleep(0.05)
    assert not watched.models
    stage.report(events.DirCreatedEvent(f"{root}/phi"))
    await watched.until_models("models/phi/model.json")


async def test_events_of_fsevents(watched: Watched, root: Path, stage: Stage) -> None:
    """One coalesced event for many steps, none for a close, created and deleted at once, an old flag on a new name."""
    path = add_model(root / "phi")
    stage.report(
        events.FileCreatedEvent(str(path)), events.FileModifiedEvent(str(path)), events.DirModifiedEvent(f"{root}/phi")
    )
    await watched.until_models("models/phi/model.json")
    path.unlink()
    stage.report(events.FileCreatedEvent(str(path)), events.FileDeletedEvent(str(path)))
    await watched.until_models()
    (root / "phi").rename(root / "psi")
    add_model(root / "psi")
    stage.report(events.DirMovedEvent(f"{root}/phi", f"{root}/psi"))
    await watched.until_models("models/psi/model.json")


async def test_growth_is_followed_by_a_last_look_without_any_close(watched: Watched, root: Path, stage: Stage) -> None:
    """FSEvents has no close events: many modifications, and then nothing."""
    path = root / "phi" / "model.json"
    path.parent.mkdir()
    for _ in range(20):
        path.write_text('{"origin": ')
        stage.report(events.FileModifiedEvent(str(path)))
        await asyncio.sleep(0.002)
    add_model(root / "phi")
    stage.report(events.FileModifiedEvent(str(path)))
    await watched.until_models("models/phi/model.json")


async def test_a_name_in_another_unicode_form_names_no_wrong_entry(watched: Watched, root: Path, stage: Stage) -> None:
    """A file system may answer in another form than it was asked in; what cannot be placed is a reason to look at everything."""
    add_model(root / "m\u00fc")
    stage.report(
        events.DirCreatedEvent(
            unicodedata.normalize("NFD", f"{root}/m\u00fc").replace(str(root), "/private" + str(root))
        )
    )
    await watched.until_models("models/m\u00fc/model.json")


async def test_the_end_of_the_watch_of_a_root_that_moved(watched: Watched, root: Path, stage: Stage) -> None:
    """FSEvents reports the tree itself as deleted and its emitter stops, whatever happened to it."""
    add_model(root / "phi")
    stage.report(events.DirDeletedEvent(str(root)))
    await watched.until_models("models/phi/model.json")
    assert len(stage.observers) == 2
    assert watched.codes_so_far == {"root-replaced"}
    await until(lambda: watched.mode() is Mode.EVENTS)


async def test_dropped_events_are_found_by_the_next_sweep(root: Path, stage: Stage) -> None:
    """FSEvents says that it dropped some, and watchdog does not pass it on."""
    settings = quick(rescan_s=0.3, poll_s=NEVER_S)
    async with watching(Tree(root, "models", writable=False), settings=settings, observer=stage.make) as watched:
        add_model(root / "phi")
        await watched.until_models("models/phi/model.json")
        add_model(root / "phi", "more.json")
        await watched.until_model("models/phi/more.json")


async def test_a_watch_that_reports_no_cookie_is_replaced_and_polled(root: Path, stage: Stage) -> None:
    async with watching(root, settings=quick(poll_s=0.2), observer=stage.make) as watched:
        add_model(root / "phi")
        await until(lambda: len(stage.observers) >= 2, what="another observer")
        await until(lambda: "watch-silent" in watched.codes_so_far)
        await watched.until_models("models/phi/model.json")


async def test_a_dead_observer_is_replaced(watched: Watched, root: Path, stage: Stage) -> None:
    stage.observers[-1].stop()
    add_model(root / "phi")
    await watched.until_models("models/phi/model.json")
    assert len(stage.observers) == 2
    assert watched.codes_so_far == {"watch-died"}
    stage.report(events.DirCreatedEvent(f"{root}/phi"))


async def test_after_a_folder_has_moved_the_watch_is_opened_anew_without_a_gap(
    watched: Watched, root: Path, stage: Stage
) -> None:
    """The tables of watchdog take one folder for another after that; it is no fault that anybody need be told of."""
    first = stage.observers[-1]
    stage.report(events.DirMovedEvent(f"{root}/a", f"{root}/b"))
    await until(lambda: len(stage.observers) == 2 and not first.is_alive())
    add_model(root / "b")
    await asyncio.sleep(0.02)
    assert stage.observers[-1].is_alive()
    stage.report(events.DirCreatedEvent(f"{root}/b"))
    await watched.until_models("models/b/model.json")
    assert {status.modes["models"] for status in watched.statuses} <= {Mode.EVENTS}
    assert watched.library.status.trees["models"].rebuilds == 0


async def test_where_there_is_room_for_one_watch_only_the_old_one_goes_first(
    watched: Watched, root: Path, stage: Stage
) -> None:
    stage.most = 1
    stage.report(events.DirMovedEvent(f"{root}/a", f"{root}/b"))
    await until(lambda: len(stage.observers) >= 3 and stage.observers[-1].is_alive())
    await until(lambda: watched.mode() is Mode.EVENTS and not watched.problem_codes)


async def test_a_refused_watch_is_polled_and_tried_again(root: Path, stage: Stage) -> None:
    stage.refusal = OSError(errno.ENOSPC, "no space")
    async with watching(root, settings=quick(poll_s=0.1), observer=stage.make) as watched:
        assert watched.mode() is Mode.DEGRADED
        assert watched.problem_codes == {"watch-limit"}
        add_model(root / "phi")
        await watched.until_models("models/phi/model.json")
        (root / "phi" / "model.json").unlink()
        await watched.until_models()
        stage.refusal = None
        await until(lambda: watched.mode() is Mode.EVENTS and not watched.problem_codes)


async def test_a_collapse_looks_at_everything(watched: Watched, root: Path, stage: Stage) -> None:
    for number in range(30):
        add_model(root / f"m{number}")
    stage.report(*(events.FileCreatedEvent(f"{root}/junk-{number}") for number in range(5000)))
    await until(lambda: len(watched.models) == 30)


async def test_touch_looks_now(watched: Watched, root: Path) -> None:
    add_model(root / "phi")
    watched.library.touch("models", "phi")
    await watched.until_models("models/phi/model.json")


async def test_a_rescan_returns_when_everything_new_was_told(watched: Watched, root: Path) -> None:
    for number in range(20):
        add_model(root / f"m{number}")
    first = await watched.library.rescan()
    assert len(watched.models) == 20
    assert set(first.changed) == {f"models/m{number}" for number in range(20)}
    assert first.scanned == 21
    assert (await watched.library.rescan()).changed == ()
    (root / "m3" / "model.json").unlink()
    (root / "m3").rmdir()
    assert (await watched.library.rescan()).changed == ("models/m3",)
    assert "models/m3/model.json" not in watched.models


async def test_rescans_at_the_same_time_are_answered_all(watched: Watched, root: Path) -> None:
    add_model(root / "phi")
    results = await asyncio.gather(*(watched.library.rescan() for _ in range(5)))
    assert all(result.scanned == 2 for result in results)


async def test_folders_of_passing_names_are_no_entries(watched: Watched, root: Path, stage: Stage) -> None:
    for name in (".hidden", "half.part", "phi"):
        add_model(root / name)
        stage.report(events.DirCreatedEvent(f"{root}/{name}"))
    await watched.until_models("models/phi/model.json")
    assert (await watched.library.rescan()).scanned == 2


async def test_an_entry_settles_when_nothing_has_changed_for_long_enough(
    watched: Watched, root: Path, stage: Stage
) -> None:
    add_model(root / "phi")
    stage.report(events.DirCreatedEvent(f"{root}/phi"))
    waiting = asyncio.ensure_future(watched.library.wait_settled("models", "phi"))
    touched_at = time.monotonic()
    for _ in range(5):
        await asyncio.sleep(0.1)
        if waiting.done():  # only where this loop itself was held up for so long
            break
        stage.report(events.FileModifiedEvent(f"{root}/phi/.model.part"))
        touched_at = time.monotonic()
    await waiting
    assert time.monotonic() - touched_at >= 0.19


async def test_a_change_that_no_event_told_keeps_an_entry_from_settling(
    watched: Watched, root: Path, stage: Stage
) -> None:
    add_model(root / "phi")
    stage.report(events.DirCreatedEvent(f"{root}/phi"))
    await watched.until_models("models/phi/model.json")
    waiting = asyncio.ensure_future(watched.library.wait_settled("models", "phi"))
    add_model(root / "phi", "unseen.json")
    await waiting
    assert "models/phi/unseen.json" in watched.models


async def test_what_does_not_exist_is_settled(watched: Watched) -> None:
    await asyncio.wait_for(watched.library.wait_settled("models", "nothing"), 2)


class Scans:
    """A scanner that the test can hold up: `hold` names entries whose scans wait until `release`."""

    def __init__(self) -> None:
        self.hold: set[str] = set()
        self.release = threading.Event()
        self.begun: list[str] = []
        self.fail: set[str] = set()
        self.seconds = 0.0

    def __call__(
        self, tree: Tree, entry: str, headers: HeaderCache, /, *, now: float, listings: Listings | None
    ) -> EntryScan:
        self.begun.append(entry)
        if entry in self.hold:
            assert self.release.wait(20)
        if entry in self.fail:
            raise RuntimeError("a fault of ours")
        time.sleep(self.seconds)
        return scans.scan_entry(tree, entry, headers, now=now, listings=listings)


def library_of(root: Path, scanner: Scans, told: Callable[[EntryScan], None], stage: Stage) -> Library:
    return Library(
        [Tree(root, "models", writable=False)],
        SILENT,
        headers=HeaderCache(),
        on_scan=told,
        on_status=lambda status: None,
        scan_entry=scanner,
        observer=stage.make,
    )


async def test_what_is_touched_goes_before_what_is_queued(root: Path, stage: Stage) -> None:
    """A drop is seen at once while the first scan of many folders is still under way."""
    for number in range(500):
        (root / f"m{number}").mkdir()
    scanner = Scans()
    scanner.seconds = 0.002
    told: list[str] = []
    library = library_of(root, scanner, lambda found: told.append(found.entry), stage)
    running = asyncio.ensure_future(library.run())
    await until(lambda: len(told) > 20)
    add_model(root / "dropped")
    began = time.monotonic()
    stage.report(events.DirCreatedEvent(f"{root}/dropped"))
    await until(lambda: "dropped" in told)
    assert time.monotonic() - began < 0.2
    assert not library.ready.is_set()
    await until(library.ready.is_set)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_scans_do_not_block_the_loop(root: Path, stage: Stage) -> None:
    for number in range(300):
        add_model(root / f"m{number}")
    library = library_of(root, Scans(), lambda found: None, stage)
    running = asyncio.ensure_future(library.run())
    # What this thread itself does between two turns, and not what other processes take of the machine meanwhile.
    longest, last = 0.0, time.thread_time()
    while not library.ready.is_set():
        await asyncio.sleep(0)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    assert longest < 0.1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_scan_that_fails_is_a_problem_of_its_entry_alone(root: Path, stage: Stage) -> None:
    add_model(root / "bad")
    add_model(root / "good")
    scanner = Scans()
    scanner.fail = {"bad"}
    told: dict[str, EntryScan] = {}
    library = library_of(root, scanner, lambda found: told.update({found.entry: found}), stage)
    running = asyncio.ensure_future(library.run())
    await until(lambda: library.ready.is_set() and told.keys() >= {"bad", "good"})
    assert [problem.code for problem in told["bad"].problems] == ["scan-failed"]
    assert told["good"].models
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_who_is_told_may_fail_without_ending_the_watch(root: Path, stage: Stage) -> None:
    add_model(root / "a")
    add_model(root / "b")
    told: list[str] = []

    def on_scan(found: EntryScan) -> None:
        told.append(found.entry)
        raise RuntimeError("a fault of somebody else")

    library = library_of(root, Scans(), on_scan, stage)
    running = asyncio.ensure_future(library.run())
    await until(library.ready.is_set)
    assert sorted(told) == ["", "a", "b"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_disk_that_does_not_answer_holds_up_only_its_own_entry(root: Path, stage: Stage) -> None:
    for name in ("a", "b", "stuck", "z"):
        add_model(root / name)
    scanner = Scans()
    scanner.hold = {"stuck"}
    told: dict[str, EntryScan] = {}
    library = library_of(root, scanner, lambda found: told.update({found.entry: found}), stage)
    running = asyncio.ensure_future(library.run())
    await until(lambda: set(told) == {"", "a", "b", "z"})
    await until(library.ready.is_set)
    assert [problem.code for problem in library.status.problems] == ["disk-not-answering"]
    add_model(root / "z", "more.json")
    stage.report(events.FileCreatedEvent(f"{root}/z/more.json"))
    await until(lambda: len(told["z"].models) == 2)
    scanner.release.set()
    await until(lambda: bool(told.get("stuck")))
    assert library.status.problems == ()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_two_trees_are_watched_apart(tmp_path: Path, root: Path) -> None:
    other = tmp_path / "extra"
    add_model(other / "phi")
    async with watching(root, other) as watched:
        await watched.until_models(f"{other}/phi/model.json")
        add_model(root / "phi")
        await watched.until_models("models/phi/model.json", f"{other}/phi/model.json")
        other.rename(tmp_path / "away")
        await until(lambda: watched.mode(str(other)) is Mode.OFFLINE)
        assert watched.mode() is Mode.EVENTS
        add_model(root / "psi")
        await watched.until_model("models/psi/model.json")
        assert f"{other}/phi/model.json" in watched.models


async def test_names_that_are_no_text_can_be_said_in_problems(root: Path, stage: Stage) -> None:
    (root / os.fsdecode(b"\xff")).mkdir()
    scanner = Scans()
    scanner.fail = {os.fsdecode(b"\xff")}
    told: dict[str, EntryScan] = {}
    library = library_of(root, scanner, lambda found: told.update({found.entry: found}), stage)
    running = asyncio.ensure_future(library.run())
    await until(library.ready.is_set)
    for found in told.values():
        for problem in found.problems:
            assert f"{problem.path}{problem.message}".encode()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
