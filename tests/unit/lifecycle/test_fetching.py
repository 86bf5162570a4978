"""The fetching for a model: when it begins and ends, what it keeps in mind, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from jand.download.plan import Plan, WantedFile
from jand.errors import DownloadError, NoNetworkError, NotPossibleError, ShuttingDownError
from jand.library.findings import Binary, Found, Role, Stamp, Tree
from jand.lifecycle.actor import Actor
from jand.lifecycle.fetching import CHOSEN, COMING, PAUSED, Fetching
from jand.lifecycle.notes import Notes
from jand.model.record import Progress, PublicState
from jand.tasks import TaskSet
from tests.fakes.engine import FakeEngine
from tests.fakes.records import make_found
from tests.fakes.surroundings import Around
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

PATH = "models/a/a.json"


def wanted(*names: str) -> tuple[WantedFile, ...]:
    return tuple(WantedFile(name, f"https://hub/{name}", f"https://hub/{name}", 100, "00") for name in names)


class FakeDownloader:
    """Plans *plan* or raises it; a fetch ends when `release` is set, with *outcome* where that is an error."""

    def __init__(self) -> None:
        self.plan_or_error: Plan | Exception = Plan(
            wanted("w.gguf"), chosen=("w.gguf",), quantization="Q4_0", reason="it fits"
        )
        self.outcome: Exception | None = None
        self.release = asyncio.Event()
        self.planned: list[dict[str, Any]] = []
        self.fetching: list[str] = []
        self.told: Callable[[Progress], None] | None = None
        self.log: list[tuple[str, str]] = []

    async def plan(self, _spec: object, _directory: Path, **facts: Any) -> Plan:
        self.planned.append(facts)
        if isinstance(self.plan_or_error, Exception):
            raise self.plan_or_error
        return self.plan_or_error

    async def fetch(
        self, plan: Plan, _directory: Path, *, owner: str, on_progress: Callable[[Progress], None], **_: object
    ) -> None:
        self.fetching = [file.name for file in plan.files]
        self.told = on_progress
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.log.append(("cancelled", owner))
            raise
        finally:
            self.fetching = []
        if self.outcome is not None:
            raise self.outcome

    def tell(self, progress: Progress) -> None:
        assert self.told is not None
        self.told(progress)

    def pause(self, owner: str) -> None:
        self.log.append(("pause", owner))

    def resume(self, owner: str) -> None:
        self.log.append(("resume", owner))

    def forget(self, owner: str) -> None:
        self.log.append(("forget", owner))

    async def discard(self, _directory: Path, owner: str) -> None:
        self.log.append(("discard", owner))


class FakeLibrary:
    def __init__(self) -> None:
        self.touched: list[tuple[str, str]] = []

    async def wait_settled(self, _label: str, _entry: str) -> None:
        await asyncio.sleep(0)

    def touch(self, label: str, entry: str) -> None:
        self.touched.append((label, entry))


class Stage:
    """One actor with its fetching; `see` is what a scan tells."""

    def __init__(self, notes: Path, *, writable: bool = True) -> None:
        self.downloader = FakeDownloader()
        self.library = FakeLibrary()
        self.tasks = TaskSet()
        self.notes = Notes(notes)
        tree = Tree(Path("/nowhere/models"), "models", writable=writable)
        self.fetching = Fetching(
            cast("Any", self.downloader), cast("Any", self.library), self.notes, self.tasks, lambda _: (tree, "a")
        )
        self.actor = Actor("a", lacking(), (), Around(FakeEngine()))

    def see(self, found: Found) -> None:
        self.actor.found_again(found, "a", ())
        self.fetching.consider(self.actor)

    async def begun(self) -> None:
        await until(lambda: self.downloader.fetching, what="the fetch")

    def record(self) -> Any:
        return self.actor.record()


def lacking(**fields: Any) -> Found:
    return dataclasses.replace(make_found(PATH, **fields), binaries=(), unresolved=True)


def having(*names: str, found: Found | None = None) -> Found:
    def binary(name: str) -> Binary:
        role = Role.PROJECTOR if "mmproj" in name else Role.WEIGHTS
        return Binary(name, f"/nowhere/models/a/{name}", role, size=100, whole=True, stamp=Stamp(1, 2, 3, 4, 5))

    return dataclasses.replace(
        found or make_found(PATH), binaries=tuple(map(binary, names)), unresolved=not names, missing=()
    )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path / "state.json")
    yield stage
    await stage.tasks.close()


def noted(stage: Stage) -> Mapping[str, Any]:
    return {section: value for section in (CHOSEN, COMING, PAUSED) if (value := stage.notes.find(section, PATH))}


async def test_what_is_lacking_is_planned_and_fetched_and_shown_meanwhile(stage: Stage) -> None:
    stage.fetching.consider(stage.actor)
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.downloader.tell(Progress(40, 100))
    during = stage.record()
    stage.see(having("w.gguf"))
    await until(lambda: ("discard", PATH) in stage.downloader.log)
    after = stage.record()

    assert stage.downloader.planned == [{"binaries_present": {}, "stem": "a", "kept": ()}]
    assert (during.state, during.progress) == (PublicState.DOWNLOADING, Progress(40, 100))
    assert [(file.name, file.size, file.present) for file in during.files] == [("w.gguf", 100, False)]
    assert during.details["chosen_quantization"] == "Q4_0"
    assert (after.state, after.progress, after.error) == (PublicState.DOWNLOADED, None, None)
    assert after.details["chosen_because"] == "it fits"
    assert stage.downloader.log.index(("cancelled", PATH)) < stage.downloader.log.index(("discard", PATH))
    assert noted(stage) == {CHOSEN: {"files": ["w.gguf"], "quantization": "Q4_0", "reason": "it fits"}}


async def test_a_choice_and_its_reason_outlive_the_daemon(stage: Stage, tmp_path: Path) -> None:
    stage.fetching.consider(stage.actor)
    await stage.begun()
    await stage.tasks.close()
    again = Stage(tmp_path / "state.json")
    again.downloader.plan_or_error = Plan(
        wanted("w.gguf"), chosen=("w.gguf",), quantization="Q4_0", reason="it was chosen before"
    )
    again.fetching.recall(again.actor)
    again.fetching.consider(again.actor)
    await again.begun()

    assert again.downloader.planned[0]["kept"] == ["w.gguf"]
    assert again.record().details["chosen_because"] == "it fits"
    await again.tasks.close()


async def test_a_model_is_whole_when_all_of_its_plan_is_there_also_after_a_restart(
    stage: Stage, tmp_path: Path
) -> None:
    stage.downloader.plan_or_error = Plan(wanted("w.gguf", "mmproj.gguf"), chosen=("w.gguf",))
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.see(having("w.gguf"))
    assert stage.record().state is PublicState.DOWNLOADING
    assert ("cancelled", PATH) not in stage.downloader.log
    await stage.tasks.close()

    again = Stage(tmp_path / "state.json")
    again.actor = Actor("a", having("w.gguf"), (), Around(FakeEngine()))
    again.downloader.plan_or_error = Plan(wanted("mmproj.gguf"), present={"w.gguf": 100}, chosen=("w.gguf",))
    again.fetching.recall(again.actor)
    again.fetching.consider(again.actor)
    await again.begun()
    assert again.record().state is PublicState.DOWNLOADING
    assert [file.name for file in again.record().files if not file.present] == ["mmproj.gguf"]
    again.see(having("w.gguf", "mmproj.gguf"))
    assert again.record().state is PublicState.DOWNLOADED
    assert COMING not in noted(again)
    await again.tasks.close()


async def test_what_no_scan_takes_for_the_model_s_is_not_waited_for(stage: Stage) -> None:
    stage.downloader.plan_or_error = Plan(wanted("w.gguf", "unclaimed.gguf"), chosen=("w.gguf",))
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.see(having("w.gguf"))
    stage.downloader.release.set()
    await until(lambda: stage.record().state is PublicState.DOWNLOADED)
    await until(lambda: ("discard", PATH) in stage.downloader.log)

    assert stage.record().error is None
    assert COMING not in noted(stage)


async def test_somebody_else_s_binaries_end_the_fetching(stage: Stage) -> None:
    stage.downloader.plan_or_error = Plan(wanted("w.gguf", "mmproj.gguf"), chosen=("w.gguf",))
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.see(having("theirs.gguf"))
    await until(lambda: ("discard", PATH) in stage.downloader.log)

    assert ("cancelled", PATH) in stage.downloader.log
    assert stage.record().state is PublicState.DOWNLOADED


@pytest.mark.parametrize("wait_s", [None, 0.02])
async def test_a_failure_is_shown_with_the_time_of_the_next_try_and_gone_when_that_works(
    stage: Stage, wait_s: float | None
) -> None:
    stage.downloader.plan_or_error = NoNetworkError("cannot reach it", hint="plug it in", retry_after_s=wait_s)
    stage.fetching.consider(stage.actor)
    await until(lambda: stage.record().error)
    error = stage.record().error
    stage.downloader.plan_or_error = Plan(wanted("w.gguf"))
    if wait_s is None:
        stage.fetching.resume(stage.actor)
    await stage.begun()

    assert (error.code, error.message, error.hint) == ("no-network", "cannot reach it", "plug it in")
    assert error.retry_at - error.at == pytest.approx(900 if wait_s is None else wait_s)
    assert stage.record().error is None


async def test_a_fault_of_ours_is_an_error_of_the_model_and_tried_again(stage: Stage) -> None:
    stage.downloader.plan_or_error = ZeroDivisionError("what")
    stage.fetching.consider(stage.actor)
    await until(lambda: stage.record().error)
    error = stage.record().error
    stage.downloader.plan_or_error = Plan(wanted("w.gguf"))
    stage.fetching.resume(stage.actor)
    await stage.begun()

    assert error.code == DownloadError.code
    assert error.retry_at is not None


async def test_a_plan_that_brings_nothing_of_what_is_lacking_says_so(stage: Stage) -> None:
    stage.downloader.plan_or_error = Plan()
    stage.see(dataclasses.replace(make_found(PATH), binaries=(), missing=("x.gguf",)))
    await until(lambda: stage.record().error)

    assert stage.record().error.code == "no-binary"
    assert "x.gguf" in stage.record().error.message


async def test_an_error_goes_with_its_cause_whoever_mends_it(stage: Stage) -> None:
    stage.downloader.plan_or_error = NoNetworkError("cannot reach it")
    stage.fetching.consider(stage.actor)
    await until(lambda: stage.record().error)
    stage.see(having("w.gguf"))
    assert stage.record().error is None

    stage.see(lacking())
    await until(lambda: stage.record().error)
    stage.downloader.plan_or_error = Plan(wanted("w.gguf"))
    stage.see(lacking(metadata={"quantization": "Q8_0"}))
    await stage.begun()
    assert stage.record().error is None


async def test_an_edit_that_changes_what_is_wanted_begins_anew_and_another_does_not(stage: Stage) -> None:
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.see(lacking(owned_by="somebody else", parameters={"init": {}, "runtime": {"temperature": 1}}))
    assert len(stage.downloader.planned) == 1
    stage.see(lacking(parameters={"init": {"ctx_len": 9}}))
    await until(lambda: len(stage.downloader.planned) == 2)

    assert ("cancelled", PATH) in stage.downloader.log


async def test_a_pause_is_kept_through_a_restart_until_somebody_resumes_or_the_file_is_there(
    stage: Stage, tmp_path: Path
) -> None:
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.downloader.tell(Progress(40, 100, 5.0, 12.0))
    stage.fetching.pause(stage.actor)
    assert (stage.record().paused, stage.record().progress) == (True, Progress(40, 100))
    await stage.tasks.close()

    again = Stage(tmp_path / "state.json")
    again.fetching.consider(again.actor)
    assert (again.record().paused, again.downloader.log) == (True, [("pause", PATH)])
    again.see(having("w.gguf"))
    assert again.record().paused is False
    assert PAUSED not in noted(again)
    with pytest.raises(NotPossibleError, match="nothing is being downloaded"):
        again.fetching.pause(again.actor)
    await again.tasks.close()


async def test_a_model_that_is_being_deleted_is_begun_for_no_more_until_it_is_readmitted(stage: Stage) -> None:
    stage.fetching.consider(stage.actor)
    await stage.begun()
    names = await stage.fetching.abandon(stage.actor)
    stage.fetching.consider(stage.actor)
    assert (names, stage.downloader.fetching) == (("w.gguf",), [])
    assert stage.downloader.log == [("cancelled", PATH), ("discard", PATH)]
    stage.fetching.readmit(stage.actor)
    await stage.begun()


async def test_a_model_that_is_gone_leaves_no_notes(stage: Stage, tmp_path: Path) -> None:
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.fetching.pause(stage.actor)
    stage.fetching.forget(stage.actor)
    await until(lambda: ("cancelled", PATH) in stage.downloader.log)

    assert noted(stage) == {}
    assert not any(json.loads((tmp_path / "state.json").read_bytes()).values())
    assert ("discard", PATH) not in stage.downloader.log


async def test_where_jand_does_not_write_nothing_is_fetched_and_the_model_says_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "state.json", writable=False)
    stage.fetching.consider(stage.actor)
    assert stage.record().error.code == "read-only-folder"
    assert stage.downloader.planned == []
    for verb in (stage.fetching.pause, stage.fetching.resume):
        with pytest.raises(NotPossibleError):
            verb(stage.actor)
    stage.see(having("w.gguf"))
    assert stage.record().error is None


async def test_the_daemon_s_end_is_no_error_of_the_model(stage: Stage) -> None:
    stage.downloader.outcome = ShuttingDownError("cannot download: the daemon is shutting down")
    stage.fetching.consider(stage.actor)
    await stage.begun()
    stage.downloader.release.set()
    await until(lambda: not stage.downloader.fetching)
    await asyncio.sleep(0)

    assert stage.record().error is None


@pytest.mark.parametrize("garbage", [5, "x", [1], {}, {"files": "w"}, {"files": [1]}, {"files": ["w"], "reason": 7}])
async def test_notes_that_somebody_has_spoiled_do_no_harm(stage: Stage, garbage: object) -> None:
    for section in (CHOSEN, COMING):
        stage.notes.note(section, PATH, garbage)
    stage.fetching.recall(stage.actor)
    stage.fetching.consider(stage.actor)
    await stage.begun()

    assert stage.record().state is PublicState.DOWNLOADING
