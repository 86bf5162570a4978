"""The queue: shared transfers, fairness, pause and resume, cancelling, progress, bandwidth, and the end of it all."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING

import pytest

from jand.download.retry import RetryPolicy
from jand.errors import HubNotFoundError, HubUnavailableError, NothingFitsError, ShuttingDownError
from tests.fakes.downloading import OWNER, REPO, contents, digest_of, downloader_for, noise, spec_of
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB, MISTRAL_7B, ZEPHYR, announced, zephyr_files
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from jand.download.downloader import Downloader
    from jand.errors import DownloadError
    from jand.model.record import Progress

SIZE = 4 * MIB


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.add(REPO, {f"{letter}.Q4_K_M.gguf": noise(SIZE, number) for number, letter in enumerate("abcdef")})
        yield made


def nobody(_: Progress) -> None:
    return


async def begin(
    downloader: Downloader,
    directory: Path,
    *letters: str,
    owner: str = OWNER,
    told: Callable[[Progress], None] = nobody,
) -> asyncio.Task[None]:
    names = [f"{letter}.Q4_K_M.gguf" for letter in letters]
    plan = await downloader.plan(spec_of(download_url=names), directory, {})
    return asyncio.ensure_future(downloader.fetch(plan, directory, owner=owner, on_progress=told))


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_several_files_end_together(hub: FakeHub, tmp_path: Path) -> None:
    async with downloader_for(hub) as downloader:
        await (await begin(downloader, tmp_path, *"abcd"))
    assert len(contents(tmp_path)) == 4


async def test_only_so_many_are_connected_at_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 8 * MIB
    async with downloader_for(hub, concurrency=2) as downloader:
        task = await begin(downloader, tmp_path, *"abcdef")
        most = 0
        while not task.done():
            most = max(most, sum(0 < request.served < SIZE - 1000 for request in hub.seen("cdn")))
            await asyncio.sleep(0.01)
        await task
    assert most == 2


async def test_a_small_model_does_not_wait_for_all_files_of_a_large_one(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 16 * MIB
    (tmp_path / "large").mkdir()
    (tmp_path / "small").mkdir()
    async with downloader_for(hub, concurrency=2) as downloader:
        large = await begin(downloader, tmp_path / "large", *"abcde", owner="large")
        await until(lambda: len(hub.seen("cdn")) == 2)
        small = await begin(downloader, tmp_path / "small", "f", owner="small")
        await small
        assert not large.done()
        assert len(list((tmp_path / "large").glob("*.gguf"))) <= 3
        await large


async def test_one_transfer_serves_two_models_of_one_folder(hub: FakeHub, tmp_path: Path) -> None:
    async with downloader_for(hub) as downloader:
        first = await begin(downloader, tmp_path, "a", owner="one")
        second = await begin(downloader, tmp_path, "a", owner="two")
        await asyncio.gather(first, second)
    assert len(hub.seen("cdn")) == 1


async def test_the_transfer_goes_on_while_one_of_two_still_wants_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 8 * MIB
    async with downloader_for(hub) as downloader:
        first = await begin(downloader, tmp_path, "a", owner="one")
        second = await begin(downloader, tmp_path, "a", owner="two")
        await until(lambda: hub.served() > MIB)
        await end(first)
        await second
    assert len(hub.seen("cdn")) == 1
    assert len(contents(tmp_path)) == 1


async def test_the_same_content_in_another_folder_is_copied_and_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    async with downloader_for(hub) as downloader:
        tasks = [await begin(downloader, tmp_path / name, "a", owner=name) for name in ("one", "two", "three")]
        await asyncio.gather(*tasks)
    assert len(hub.seen("cdn")) == 1
    assert set(contents(tmp_path).values()) == {digest_of(noise(SIZE))}
    assert len(contents(tmp_path)) == 3


async def test_whoever_waited_for_a_twin_fetches_itself_where_that_is_given_up(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 4 * MIB
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with downloader_for(hub) as downloader:
        first = await begin(downloader, tmp_path / "one", "a", owner="one")
        second = await begin(downloader, tmp_path / "two", "a", owner="two")
        await until(lambda: hub.served() > MIB)
        await end(first)
        hub.rate = None
        await second
    assert "two/a.Q4_K_M.gguf" in contents(tmp_path)
    assert len(hub.seen("cdn")) == 2


async def test_a_cancelled_download_can_be_begun_again_at_once(hub: FakeHub, tmp_path: Path) -> None:
    """The first must have let go of its partial by the time the second takes it up."""
    hub.rate = 8 * MIB
    async with downloader_for(hub) as downloader:
        for _ in range(5):
            task = await begin(downloader, tmp_path, "a")
            served = hub.served()
            await until(lambda: hub.served() > served + 200_000)  # noqa: B023
            task.cancel()
        hub.rate = None
        await (await begin(downloader, tmp_path, "a"))
    assert contents(tmp_path) == {"a.Q4_K_M.gguf": digest_of(noise(SIZE))}


async def test_pause_halts_and_resume_goes_on_where_it_was(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 8 * MIB
    async with downloader_for(hub) as downloader:
        task = await begin(downloader, tmp_path, "a")
        await until(lambda: hub.served() > MIB)
        downloader.pause(OWNER)
        assert downloader.is_paused(OWNER)
        partial = tmp_path / ".jand-part" / "a.Q4_K_M.gguf.part"
        await until(lambda: not downloader.under_way)
        had = partial.stat().st_size
        assert 0 < had < SIZE
        assert not task.done()
        hub.rate = None
        downloader.resume(OWNER)
        await task
    assert [request.start for request in hub.seen("cdn")] == [0, had]
    assert contents(tmp_path) == {"a.Q4_K_M.gguf": digest_of(noise(SIZE))}


async def test_resume_does_not_wait_for_the_time_of_the_next_attempt(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(status=500)]
    waiting = asyncio.Event()
    told: list[str | None] = []

    def trouble(error: DownloadError | None, wait_s: float) -> None:
        told.append(None if error is None else error.code)
        if wait_s > 10:
            waiting.set()

    async with downloader_for(hub, retry=RetryPolicy(first_s=60)) as downloader:
        plan = await downloader.plan(spec_of(download_url="a.Q4_K_M.gguf"), tmp_path, {})
        fetching = downloader.fetch(plan, tmp_path, owner="a", on_progress=lambda _: None, on_trouble=trouble)
        task = asyncio.ensure_future(fetching)
        await waiting.wait()
        downloader.resume("b")
        assert not task.done()
        downloader.resume("a")
        await asyncio.wait_for(task, 5)
    assert told == ["hub-unavailable", None]


async def test_what_is_paused_before_it_begins_waits(hub: FakeHub, tmp_path: Path) -> None:
    async with downloader_for(hub) as downloader:
        downloader.pause(OWNER)
        downloader.pause(OWNER)
        task = await begin(downloader, tmp_path, "a")
        other = await begin(downloader, tmp_path, "b", owner="other")
        await other
        assert len(hub.seen("cdn")) == 1
        downloader.resume(OWNER)
        await task


async def test_a_paused_model_gives_its_place_to_others(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = MIB
    async with downloader_for(hub, concurrency=1) as downloader:
        slow = await begin(downloader, tmp_path, "a")
        await until(lambda: hub.served() > 100_000)
        downloader.pause(OWNER)
        hub.rate = None
        await (await begin(downloader, tmp_path, "b", owner="other"))
        await end(slow)


async def test_a_model_that_waits_for_another_attempt_gives_its_place_to_others(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(path="a.Q4", status=503, headers={"Retry-After": "30"}, times=None)]
    async with downloader_for(hub, concurrency=1, allow_private=True) as downloader:
        waiting = await begin(downloader, tmp_path, "a")
        await until(lambda: hub.seen("cdn"))
        other_host = spec_of(download_url=hub.storage.replace("127.0.0.1", "localhost") + "/x.gguf")
        hub.plain["/x.gguf"] = hub.repos[REPO].files["b.Q4_K_M.gguf"]
        plan = await downloader.plan(other_host, tmp_path, {})
        await asyncio.wait_for(downloader.fetch(plan, tmp_path, owner="other", on_progress=nobody), 5)
        await end(waiting)


async def test_one_file_that_fails_for_good_ends_the_others_and_keeps_their_partials(
    hub: FakeHub, tmp_path: Path
) -> None:
    """The second file is refused only after the first has some bytes."""
    hub.rate = 4 * MIB
    hub.faults = [
        Fault(at="hub", path="b.Q4", stall_headers=True),
        Fault(at="hub", path="b.Q4", status=404, times=None),
    ]
    async with downloader_for(hub) as downloader:
        with pytest.raises(HubNotFoundError):
            await (await begin(downloader, tmp_path, *"ab"))
        assert downloader.under_way == ()
    assert 0 < (tmp_path / ".jand-part" / "a.Q4_K_M.gguf.part").stat().st_size < SIZE


async def test_an_error_comes_as_itself_and_not_in_a_group(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(status=500, times=None)]
    async with downloader_for(hub) as downloader:
        with pytest.raises(HubUnavailableError) as caught:
            await (await begin(downloader, tmp_path, *"ab"))
    assert caught.value.retry_after_s == 900


async def test_progress_is_told_at_most_ten_times_a_second_and_to_the_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 8 * MIB
    loop = asyncio.get_running_loop()
    told: list[tuple[float, Progress]] = []
    async with downloader_for(hub) as downloader:
        await (await begin(downloader, tmp_path, *"ab", told=lambda progress: told.append((loop.time(), progress))))
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(told)]
    assert all(gap > 0.095 for gap in gaps[:-1])
    counts = [progress.bytes_done for _, progress in told]
    assert counts == sorted(counts)
    last = told[-1][1]
    assert last.bytes_done == last.bytes_total == sum(file.bytes_done for file in last.files)
    middle = told[len(told) // 2][1]
    assert 4 * MIB < middle.bytes_per_second < 40 * MIB
    assert middle.eta_seconds is not None
    assert 0 < middle.eta_seconds < 5


async def test_what_was_there_counts_as_done_and_not_as_speed(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".jand-part").mkdir()
    (tmp_path / ".jand-part" / "a.Q4_K_M.gguf.part").write_bytes(noise(SIZE)[: SIZE // 2])
    (tmp_path / "b.Q4_K_M.gguf").write_bytes(b"x" * 1000)
    hub.faults = [Fault(stall_headers=True, times=None)]
    told: list[Progress] = []
    async with downloader_for(hub) as downloader:
        spec = spec_of(download_url=["a.Q4_K_M.gguf", "b.Q4_K_M.gguf"])
        plan = await downloader.plan(spec, tmp_path, {"b.Q4_K_M.gguf": 1000})
        task = asyncio.ensure_future(downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=told.append))
        await until(lambda: told and told[-1].bytes_done == SIZE // 2 + 1000)
        await end(task)
    assert told[-1].bytes_per_second == 0
    assert told[-1].eta_seconds is None


@pytest.mark.timeout(30)
async def test_the_bandwidth_limit_holds_for_all_together(hub: FakeHub, tmp_path: Path) -> None:
    limit = 8 * MIB
    loop = asyncio.get_running_loop()
    async with downloader_for(hub, bandwidth_limit=limit, stall_s=30) as downloader:
        task = await begin(downloader, tmp_path, *"ab")
        began = loop.time()
        await task
        took = loop.time() - began
    expected = 2 * len(noise(SIZE)) / limit
    assert expected * 0.95 < took < expected * 1.6


async def test_closing_ends_all_and_keeps_partials(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 4 * MIB
    async with downloader_for(hub) as downloader:
        task = await begin(downloader, tmp_path, "a")
        await until(lambda: hub.served() > MIB)
        await asyncio.wait_for(downloader.close(), 2)
        with pytest.raises(ShuttingDownError):
            await task
        with pytest.raises(ShuttingDownError):
            await (await begin(downloader, tmp_path, "b"))
    assert (tmp_path / ".jand-part" / "a.Q4_K_M.gguf.part").stat().st_size > 0


async def test_notes_say_where_a_partial_comes_from_and_who_wants_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 4 * MIB
    async with downloader_for(hub) as downloader:
        task = await begin(downloader, tmp_path, "a")
        await until(lambda: hub.served() > MIB)
        await end(task)
    notes = json.loads((tmp_path / ".jand-part" / "a.Q4_K_M.gguf.part.json").read_text())
    assert notes["sha256"] == digest_of(noise(SIZE))
    assert notes["size"] == len(noise(SIZE))
    assert notes["owners"] == [OWNER]
    assert notes["source"].startswith(f"{hub.endpoint}/{REPO}/resolve/")


async def test_a_choice_begun_is_kept_after_a_restart_with_less_memory(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("u/m", {"m.Q2_K.gguf": noise(SIZE, 1), "m.Q4_K_M.gguf": noise(SIZE, 2)})
    hub.rate = 4 * MIB
    async with downloader_for(hub, memory_gb=64) as downloader:
        plan = await downloader.plan(spec_of(origin="u/m"), tmp_path, {})
        assert plan.quantization == "Q4_K_M"
        task = asyncio.ensure_future(downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=nobody))
        await until(lambda: hub.served("Q4_K_M") > MIB)
        await end(task)
    async with downloader_for(hub, memory_gb=2.1) as downloader:
        assert (await downloader.plan(spec_of(origin="u/m"), tmp_path, {})).quantization == "Q4_K_M"
        with pytest.raises(NothingFitsError):
            await downloader.plan(spec_of(origin="u/m"), tmp_path / "new", {})


async def test_the_need_is_computed_from_the_header_read_by_ranges(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(ZEPHYR, zephyr_files())
    init = {"ctx_len": 2048, "n_parallel": 4}
    async with downloader_for(hub, memory_gb=16) as downloader:
        spec = spec_of(origin=ZEPHYR, import_format="thebloke", parameters={"init": init})
        plan = await downloader.plan(spec, tmp_path, {})
        assert plan.quantization == "Q4_K_M"
        (row,) = [row for row in plan.table if row.chosen]
        assert row.need == 4_368_439_584 + 1_073_741_824 + 500_000_000
    assert hub.served() <= 4 * MIB


async def test_a_rough_plan_reads_no_header(hub: FakeHub, tmp_path: Path) -> None:
    """For lists of what could be had: the allowance of published tables stands for the header."""
    hub.add(ZEPHYR, zephyr_files())
    async with downloader_for(hub, memory_gb=16) as downloader:
        plan = await downloader.plan(spec_of(origin=ZEPHYR), tmp_path, {}, roughly=True)
    (row,) = [row for row in plan.table if row.chosen]
    assert (row.quantization, row.need) == ("Q4_K_M", 4_368_439_584 + 2_500_000_000)
    assert hub.seen("hub") == hub.seen("cdn") == []


async def test_a_repositorys_own_json_fills_what_is_open_and_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    own = {
        "settings": {"ctx_len": 4096, "ngl": 33, "lora": ["/etc/passwd"], "api_key": "x"},
        "parameters": {"temperature": 0.3, "max_tokens": 99, "surprise": 1},
        "metadata": {"quantization": "Q2_K", "description": "theirs", "autostart": True},
        "sources": [{"url": "https://evil.example/x.gguf"}, {"url": f"{hub.endpoint}/other/repo/resolve/main/x.gguf"}],
    }
    files = {f"m-{q}.gguf": announced(q, 10 * MIB, MISTRAL_7B) for q in ("Q2_K", "Q4_K_M")}
    hub.add("janhq/m", {**files, "model.json": json.dumps(own).encode()})
    async with downloader_for(hub) as downloader:
        mine = {"init": {"ngl": 0}, "runtime": {"temperature": 1}}
        spec = spec_of(origin="janhq/m", import_format="janhq", parameters=mine)
        plan = await downloader.plan(spec, tmp_path, {})
    assert [file.name for file in plan.files] == ["m-Q2_K.gguf"]
    from jand.download.wish import fill

    filled = fill(spec, plan.defaults)
    assert filled.parameters.init.ctx_len == 4096
    assert filled.parameters.init.ngl == 0
    assert filled.parameters.init.lora is None
    assert filled.parameters.init.api_key is None
    assert filled.parameters.runtime.temperature == 1
    assert filled.parameters.runtime.max_tokens == 99
    assert filled.metadata.description == "theirs"
    assert filled.metadata.autostart is None
    assert filled.download_url == ()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b'{"parameters": []}', b'{"settings": {"ctx_len": "many"}}', b"\xff"]
)
async def test_a_repositorys_own_json_that_is_garbage_changes_nothing(hub: FakeHub, tmp_path: Path, raw: bytes) -> None:
    from jand.download.wish import fill

    hub.add("janhq/m", {"m-Q4_K_M.gguf": announced("m", 10 * MIB, MISTRAL_7B), "model.json": raw or b" "})
    async with downloader_for(hub) as downloader:
        spec = spec_of(origin="janhq/m", import_format="janhq")
        plan = await downloader.plan(spec, tmp_path, {})
    assert [file.name for file in plan.files] == ["m-Q4_K_M.gguf"]
    assert fill(spec, plan.defaults) == spec


async def test_a_search_shows_what_fits(hub: FakeHub) -> None:
    hub.add(ZEPHYR, zephyr_files())
    hub.add("x/zephyr-empty-GGUF", {"README.md": b"soon"})
    async with downloader_for(hub, memory_gb=16) as downloader:
        hits = {hit.repository: hit for hit in await downloader.search("zephyr")}
    assert [row.quantization for row in hits[ZEPHYR].table if row.chosen] == ["Q4_K_M"]
    assert "no whole GGUF" in hits["x/zephyr-empty-GGUF"].note
