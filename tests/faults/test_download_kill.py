"""A downloading process killed with SIGKILL at random moments and started again: the file ends identical, and little comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fakes.downloading import NAME, REPO, contents, digest_of, fetch, noise
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

ROOT = Path(__file__).parents[2]
COST = 4 * MIB
RATE = 32 * MIB


async def run_child(hub: FakeHub, directory: Path) -> asyncio.subprocess.Process:
    arguments = (hub.endpoint, str(directory), REPO, NAME)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.download_child", *arguments, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )


async def kill(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.kill()
    await child.wait()


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_kill_at_any_moment_costs_at_most_4_mib(tmp_path: Path, *, soak: bool) -> None:
    kills = 50 if soak else 5
    size = kills * 3 * MIB
    chance = random.Random(os.urandom(8))
    async with FakeHub(rate=RATE) as hub:
        hub.add(REPO, {NAME: noise(size)})
        for _ in range(kills):
            served = hub.served()
            enough = served + chance.randrange(2 * MIB)
            child = await run_child(hub, tmp_path)
            try:
                await until(lambda: hub.served() > enough or child.returncode is not None, 60)  # noqa: B023
                await asyncio.sleep(chance.random() * 0.02)
            finally:
                await kill(child)
            assert not (tmp_path / NAME).exists()
        await fetch(hub, tmp_path)
        assert contents(tmp_path) == {NAME: digest_of(noise(size))}
        runs = hub.seen("cdn")
        costs = [before.start + before.served - after.start for before, after in pairwise(runs)]
        assert max(costs) <= COST
        assert hub.served() == len(noise(size)) + sum(costs)


@pytest.mark.soak
@pytest.mark.timeout(120)
async def test_a_kill_about_the_end_leaves_the_whole_file_or_none(tmp_path: Path, *, soak: bool) -> None:
    """The last steps, verifying, syncing, renaming, are where a careless program leaves a file that only looks whole."""
    size = 4 * MIB
    chance = random.Random(os.urandom(8))
    async with FakeHub() as hub:
        hub.add(REPO, {NAME: noise(size)})
        for number in range(20 if soak else 2):
            directory = tmp_path / str(number)
            directory.mkdir()
            before = hub.served()
            child = await run_child(hub, directory)
            try:
                await until(lambda: hub.served() - before >= len(noise(size)) or child.returncode is not None, 60)  # noqa: B023
                await asyncio.sleep(chance.random() * 0.03)
            finally:
                await kill(child)
            assert {name: digest for name, digest in contents(directory).items() if name == NAME} in (
                {},
                {NAME: digest_of(noise(size))},
            )
            if not (directory / NAME).exists():
                await fetch(hub, directory)
            assert contents(directory)[NAME] == digest_of(noise(size))
