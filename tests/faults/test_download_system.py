"""What a system does to a daemon that downloads: its clock jumps, its disk fails, it sleeps, and people edit what is on its way."""

from __future__ import annotations

import errno
import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.fakes.daemon_downloading import SLOW, daemon_at, drop, fetched, model_of, until_bytes, until_error
from tests.fakes.downloading import NAME, REPO, contents, digest_of, noise
from tests.fakes.faulty import compile_library, variables
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

CONTENT = noise(8 * MIB)
YEAR_S = 365 * 86400


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub(rate=SLOW) as served:
        served.add(REPO, {NAME: CONTENT})
        yield served


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile what stands between the daemon and its system."""
    return compile_library(tmp_path_factory.mktemp("faulty"))


@pytest.fixture
def faulty(library: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "faults").mkdir()
    return variables(library, tmp_path / "faults")


@pytest.mark.needs("cc")
async def test_a_clock_that_jumps_both_ways_neither_ends_nor_holds_up_a_download(
    hub: FakeHub, tmp_path: Path, faulty: dict[str, str]
) -> None:
    """A year forth, two back; with a connection that breaks after each jump, so that waiting for another attempt is hit too."""
    clock = tmp_path / "faults" / "clock"
    hub.faults = [Fault("cdn", "/repos/", skip=1, cut_after=3 * MIB), Fault("cdn", "/repos/", skip=1, cut_after=MIB)]
    async with daemon_at(hub, tmp_path / "root", **faulty) as daemon:
        folder = drop(daemon)
        for jump, reached in ((YEAR_S, MIB), (-YEAR_S, 4 * MIB), (0, 6 * MIB)):
            await until_bytes(daemon, reached)
            clock.write_text(str(jump))
        await daemon.until_state("noise", "downloaded", 20)
        model = await model_of(daemon)

    assert (model["error"], model["progress"]) == (None, None)
    assert contents(folder)[NAME] == digest_of(CONTENT)
    assert fetched(hub) <= len(CONTENT) + 4 * MIB


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, "disk-error"), (errno.EROFS, "disk-error"), (errno.EDQUOT, "disk-full")]
)
async def test_a_disk_that_refuses_in_the_middle_is_an_error_and_what_came_is_kept(
    hub: FakeHub, tmp_path: Path, faulty: dict[str, str], number: int, code: str
) -> None:
    async with daemon_at(hub, tmp_path / "root", **faulty) as daemon:
        folder = drop(daemon)
        await until_bytes(daemon, 2 * MIB)
        (tmp_path / "faults" / "errno").write_text(str(number))
        error = await until_error(daemon, code=code)
        had = (folder / ".jand-part" / f"{NAME}.part").stat().st_size
        (tmp_path / "faults" / "errno").unlink()
        hub.rate = None
        await daemon.call("PUT", "/v1/models/noise/resume")
        await daemon.until_state("noise", "downloaded")

    assert NAME in error["message"]
    assert error["hint"]
    assert had >= 2 * MIB
    assert hub.seen("cdn")[-1].start == had
    assert contents(folder)[NAME] == digest_of(CONTENT)


async def test_a_machine_that_slept_goes_on_although_its_connection_and_its_address_are_gone(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon)
        await until_bytes(daemon, 2 * MIB)
        daemon.signal(signal.SIGSTOP)
        hub.expire_urls()
        await hub.drop_connections()
        hub.rate = None
        daemon.signal(signal.SIGCONT)
        await daemon.until_state("noise", "downloaded")

    assert contents(folder)[NAME] == digest_of(CONTENT)
    assert fetched(hub) <= len(CONTENT) + 4 * MIB


async def test_a_json_edited_meanwhile_ends_the_one_download_and_begins_the_other(hub: FakeHub, tmp_path: Path) -> None:
    other = noise(MIB, 1)
    hub.add(REPO, {NAME: CONTENT, "other.Q8_0.gguf": other})
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon, download_url=NAME)
        await until_bytes(daemon, MIB)
        (folder / "noise.json").write_text(json.dumps({"origin": REPO, "download_url": "other.Q8_0.gguf"}))
        await daemon.until_state("noise", "downloaded")
        await until(lambda: not (folder / ".jand-part").exists(), what="the partial of the other to go")

    assert contents(folder).keys() == {"noise.json", "other.Q8_0.gguf"}
    assert contents(folder)["other.Q8_0.gguf"] == digest_of(other)
    assert hub.served(NAME) < len(CONTENT)


async def test_a_partial_deleted_meanwhile_is_begun_again(hub: FakeHub, tmp_path: Path) -> None:
    async with daemon_at(hub, tmp_path) as daemon:
        folder = drop(daemon)
        await until_bytes(daemon, 2 * MIB)
        (folder / ".jand-part" / f"{NAME}.part").unlink()
        hub.rate = None
        await daemon.until_state("noise", "downloaded", 20)

    assert contents(folder)[NAME] == digest_of(CONTENT)
