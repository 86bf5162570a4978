"""One tree's supervisor, with a disk that the test controls."""

from __future__ import annotations

import asyncio
import errno
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from jand.library.filesystems import Mount, MountTable
from jand.library.findings import Tree
from jand.library.roots import NoRoot, Root
from jand.library.status import Mode
from jand.library.supervisor import Reports, Supervisor
from jand.library.threads import Threads
from jand.library.vigilance import Vigilance
from jand.tasks import TaskSet
from tests.fakes.observer import Stage
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jand.library.hints import Hints


@dataclass
class Disk:
    """What looking at the tree's directory gives; *answers* is cleared while it hangs."""

    path: str
    mount: Mount = field(default_factory=lambda: Mount(1, "/", "ext4", "8:1"))
    inode: int = 10
    error: OSError | None = None
    reason: str = ""
    questions: int = 0
    answers: threading.Event = field(default_factory=threading.Event)

    def look_at(self, path: str, mounts: MountTable) -> Root | NoRoot:
        self.questions += 1
        assert self.answers.wait(20)
        if self.error is not None:
            raise self.error
        return NoRoot(self.reason) if self.reason else Root(self.path, 1, self.inode, self.mount)


class Scene:
    """A supervisor, what it reports, and how often it asked for a sweep."""

    def __init__(self, root: Path) -> None:
        self.disk = Disk(str(root))
        self.disk.answers.set()
        self.stage = Stage()
        self.threads = Threads(2, "test")
        self.tasks = TaskSet()
        self.heard: list[Hints] = []
        self.sweeps = 0
        self.changes = 0
        vigilance = Vigilance(check_s=0.02, answer_s=0.1, pause_s=0.02)
        reports = Reports(self.heard.append, self._sweep, dict, self._changed)
        self.subject = Supervisor(
            Tree(root, "models", writable=False),
            vigilance,
            reports,
            threads=self.threads,
            mounts=MountTable(),
            tasks=self.tasks,
            observer=self.stage.make,
            look_at=self.disk.look_at,
        )

    async def _sweep(self) -> None:
        self.sweeps += 1

    def _changed(self) -> None:
        self.changes += 1

    @property
    def mode(self) -> Mode:
        return self.subject.status().mode

    @property
    def codes(self) -> list[str]:
        return [problem.code for problem in self.subject.status().problems]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(tmp_path)
    running = asyncio.ensure_future(scene.subject.run())
    await asyncio.wait_for(scene.subject.began.wait(), 2)
    yield scene
    scene.disk.answers.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await scene.tasks.close()
    await scene.threads.close()
    assert not any(observer.is_alive() for observer in scene.stage.observers)


async def test_it_watches_first_and_asks_for_a_sweep_then(scene: Scene) -> None:
    assert scene.mode is Mode.EVENTS
    assert len(scene.stage.observers) == 1
    await until(lambda: scene.sweeps == 1)


async def test_a_disk_that_does_not_answer_is_offline_and_is_not_asked_again(scene: Scene) -> None:
    scene.disk.answers.clear()
    await until(lambda: scene.mode is Mode.OFFLINE)
    assert "does not answer" in scene.subject.status().reason
    asked = scene.disk.questions
    await asyncio.sleep(0.3)
    assert scene.disk.questions == asked
    scene.disk.answers.set()
    await until(lambda: scene.mode is Mode.EVENTS)


async def test_a_lack_of_our_own_says_nothing_of_the_tree(scene: Scene) -> None:
    scene.disk.error = OSError(errno.EMFILE, "too many open files")
    asked = scene.disk.questions
    await until(lambda: scene.disk.questions > asked + 2)
    assert scene.mode is Mode.EVENTS
    assert len(scene.stage.observers) == 1


async def test_a_directory_that_is_another_is_watched_anew_and_swept(scene: Scene) -> None:
    await until(lambda: scene.sweeps == 1)
    scene.disk.inode = 11
    await until(lambda: len(scene.stage.observers) == 2)
    await until(lambda: scene.sweeps == 2)
    assert not scene.stage.observers[0].is_alive()
    await until(lambda: scene.mode is Mode.EVENTS and not scene.codes)
    assert scene.subject.status().rebuilds == 1


async def test_a_mount_over_the_tree_is_another_directory(scene: Scene) -> None:
    scene.disk.mount = Mount(2, "/models", "ext4", "8:1")
    await until(lambda: len(scene.stage.observers) == 2)


async def test_a_tree_that_cannot_be_read_is_not_watched(scene: Scene) -> None:
    scene.disk.reason = "permission denied"
    await until(lambda: scene.mode is Mode.OFFLINE)
    assert scene.codes == ["root-offline"]
    assert not scene.stage.observers[0].is_alive()
    assert not scene.subject.must_poll
    scene.disk.reason = ""
    await until(lambda: scene.mode is Mode.EVENTS)


async def test_a_network_disk_is_watched_and_polled(scene: Scene) -> None:
    scene.disk.mount = Mount(3, "/models", "nfs4", "0:40")
    await until(lambda: scene.mode is Mode.POLLING)
    assert scene.subject.must_poll
    assert scene.stage.observers[-1].is_alive()
    assert "nfs4" in scene.subject.status().reason


async def test_a_watch_that_is_refused_again_and_again_is_tried_less_and_less_often(scene: Scene) -> None:
    scene.stage.refusal = OSError(errno.ENOSPC, "no space")
    scene.stage.observers[-1].stop()
    await until(lambda: "watch-limit" in scene.codes)
    assert scene.mode is Mode.DEGRADED
    await until(lambda: len(scene.stage.observers) >= 3)
    await asyncio.sleep(0.5)
    assert len(scene.stage.observers) <= 9
    scene.stage.refusal = None
    await until(lambda: not scene.codes)
    assert scene.stage.observers[-1].is_alive()
