"""Every fault of a hub, its storage or the line between, caused for real: the file ends identical, or never has its name."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.errors import (
    BadDigestError,
    DownloadError,
    DownloadRefusedError,
    GgufError,
    HubGatedError,
    HubNotFoundError,
    HubUnauthorizedError,
    HubUnavailableError,
    LegacyGgmlError,
    NoNetworkError,
    NotAHubError,
    RateLimitedError,
    UnsafeAddressError,
)
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
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB, HubFile
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SIZE = 8 * MIB
SLACK = 2 * MIB
"""What a broken connection may cost: what the client had not read yet."""


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.add(REPO, {NAME: noise(SIZE)})
        yield made


def expected(hub: FakeHub) -> dict[str, str]:
    return {NAME: hub.repos[REPO].files[NAME].sha256}


async def test_a_download_ends_whole_and_leaves_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    told = await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME]
    assert told[-1].bytes_done == told[-1].bytes_total == len(noise(SIZE))
    assert hub.served() == len(noise(SIZE))


CURED = {
    "cut": Fault(cut_after=3 * MIB),
    "reset": Fault(cut_after=3 * MIB, reset=True),
    "cut again and again": Fault(cut_after=MIB, times=6),
    "stalled": Fault(stall_after=3 * MIB),
    "stalled again and again": Fault(stall_after=MIB, times=5),
    "stalled before headers": Fault(stall_headers=True),
    "stalled hub": Fault(at="hub", stall_headers=True),
    "closed without an answer": Fault(close=True),
    "reset without an answer": Fault(close=True, reset=True),
    "hub closes without an answer": Fault(at="hub", close=True, times=2),
    "hub 500": Fault(at="hub", status=500),
    "hub 503 with Retry-After": Fault(at="hub", status=503, headers={"Retry-After": "0"}, times=3),
    "hub 429": Fault(at="hub", status=429, headers={"Retry-After": "0"}),
    "hub 408": Fault(at="hub", status=408),
    "hub 425": Fault(at="hub", status=425),
    "storage 500": Fault(status=500, times=2),
    "storage 502": Fault(status=502, times=2),
    "storage 503": Fault(status=503, times=2),
    "storage 429": Fault(status=429, times=2),
    "storage 403, an expired address": Fault(status=403, times=2),
    "storage 404": Fault(status=404),
    "no length, cut": Fault(no_length=True, cut_after=3 * MIB),
    "no length, whole": Fault(no_length=True),
    "longer than announced": Fault(extra=b"x" * 1000),
    "compressed": Fault(gzip=True),
    "one byte flipped": Fault(flip_at=5 * MIB),
    "a web page for the content": Fault(body=b"<html>please sign in</html>"),
    "a web page in the hub's place": Fault(at="hub", body=b"<!DOCTYPE html><html>welcome to our hotel</html>"),
}


@pytest.mark.parametrize("fault", CURED)
async def test_a_passing_fault_is_overcome(hub: FakeHub, tmp_path: Path, fault: str) -> None:
    hub.faults = [Fault(**vars(CURED[fault]))]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert hub.faults[0].times == 0


async def test_a_cut_costs_only_what_was_under_way(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(cut_after=4 * MIB)]
    await fetch(hub, tmp_path)
    _first, second = hub.seen("cdn")
    assert second.start >= 4 * MIB - SLACK
    assert hub.served() <= SIZE + SLACK


async def test_every_connection_dies_early_and_it_still_ends(hub: FakeHub, tmp_path: Path) -> None:
    """Patience counts failures without progress, not failures: 15 cuts are more than the 8 attempts."""
    hub.rate = 60 * MIB
    hub.faults = [Fault(cut_after=SIZE // 16, times=15)]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert hub.served() <= SIZE + 15 * SIZE // 16


async def test_it_stalls_again_and_again_and_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(stall_after=3 * MIB, times=2)]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)


async def test_a_resume_asks_the_hub_again_since_addresses_expire(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(cut_after=2 * MIB, times=3)]
    await fetch(hub, tmp_path)
    assert len(hub.seen("hub")) == len(hub.seen("cdn")) == 4
    assert len({request.target for request in hub.seen("cdn")}) == 4


async def test_a_signed_address_is_followed_as_it_stands(hub: FakeHub, tmp_path: Path) -> None:
    """The stand-in refuses an address whose percent signs were written anew."""
    await fetch(hub, tmp_path)
    assert [request.status for request in hub.seen("cdn")] == [200]


async def test_a_cancelled_download_is_resumed_by_the_next(hub: FakeHub, tmp_path: Path) -> None:
    hub.rate = 12 * MIB
    had = await interrupted_fetch(hub, tmp_path, 3 * MIB)
    assert had >= 3 * MIB
    hub.rate = None
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert hub.seen("cdn")[-1].start == had
    await until(lambda: hub.seen("cdn")[-1].served == len(noise(SIZE)) - had)


async def test_a_file_too_large_for_one_answer_comes_in_pieces(hub: FakeHub, tmp_path: Path) -> None:
    """Storage networks refuse 50 GB in one answer; a cut in the middle of a piece costs no more than elsewhere."""
    hub.faults = [Fault(skip=1, cut_after=MIB)]
    await fetch(hub, tmp_path, piece=3 * MIB)
    assert contents(tmp_path) == expected(hub)
    ranges = [request.headers["range"] for request in hub.seen("cdn")]
    assert ranges[:2] == [f"bytes=0-{3 * MIB - 1}", f"bytes={3 * MIB}-{6 * MIB - 1}"]
    assert len(ranges) == 4
    assert hub.served() <= SIZE + SLACK


def open_files() -> list[str]:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(descriptor.readlink()))
    return links


@pytest.mark.timeout(60)
async def test_whoever_waits_for_another_attempt_holds_no_descriptor(hub: FakeHub, tmp_path: Path) -> None:
    """Thousands of models may wait for a hub that is away."""
    names = [f"{number}.Q4_K_M.gguf" for number in range(40)]
    hub.add(REPO, {name: noise(MIB, 1) + bytes([number]) for number, name in enumerate(names)})
    hub.faults = [Fault(status=503, headers={"Retry-After": "60"}, times=None)]
    async with downloader_for(hub, concurrency=4) as downloader:
        plan = await downloader.plan(spec_of(download_url=names), tmp_path, {})
        task = asyncio.ensure_future(downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=lambda _: None))
        await until(lambda: hub.seen("cdn"))  # the first to hear of the minute tells the others
        await until(lambda: not any(link.startswith(str(tmp_path)) for link in open_files()), 30.0)
        assert len(downloader.under_way) == 40
        task.cancel()
        await asyncio.wait([task])


async def test_ranges_ignored_means_beginning_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.accept_ranges = False
    hub.faults = [Fault(cut_after=3 * MIB)]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert hub.served() >= len(noise(SIZE)) + 3 * MIB


async def test_ranges_ignored_and_cut_for_ever_ends_in_an_error(hub: FakeHub, tmp_path: Path) -> None:
    """Bytes that were had before are no progress."""
    hub.accept_ranges = False
    hub.faults = [Fault(cut_after=3 * MIB, times=None)]
    with pytest.raises(HubUnavailableError) as caught:
        await fetch(hub, tmp_path)
    assert caught.value.retry_after_s == 900
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "fault", [Fault(skip=1, shift=1000), Fault(skip=1, wrong_total=SIZE * 2)], ids=["shifted", "other total"]
)
async def test_another_range_than_asked_for_is_not_taken(hub: FakeHub, tmp_path: Path, fault: Fault) -> None:
    hub.faults = [Fault(cut_after=3 * MIB), fault]
    fault.skip = 0
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)


async def test_a_complete_partial_needs_no_byte_more(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".jand-part").mkdir()
    (tmp_path / ".jand-part" / f"{NAME}.part").write_bytes(noise(SIZE))
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert hub.served() == 0


async def test_a_partial_of_something_else_is_found_out(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".jand-part").mkdir()
    (tmp_path / ".jand-part" / f"{NAME}.part").write_bytes(b"x" * 3 * MIB)
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)


async def test_a_partial_that_is_too_long_is_dropped(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / ".jand-part").mkdir()
    (tmp_path / ".jand-part" / f"{NAME}.part").write_bytes(b"x" * (SIZE + 1))
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)


@pytest.mark.parametrize("etags", [True, False])
async def test_content_replaced_between_two_runs_is_not_spliced(hub: FakeHub, tmp_path: Path, *, etags: bool) -> None:
    hub.etags = etags
    hub.rate = 12 * MIB
    await interrupted_fetch(hub, tmp_path, 3 * MIB)
    hub.rate = None
    hub.add(REPO, {NAME: noise(SIZE, seed=1)})
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE, seed=1))}


async def test_content_replaced_under_a_plan_is_taken_as_it_is_now(hub: FakeHub, tmp_path: Path) -> None:
    async with downloader_for(hub) as downloader:
        plan = await downloader.plan(spec_of(download_url=NAME), tmp_path, {})
        newer = HubFile(noise(SIZE, seed=1))
        hub.faults = [Fault(at="hub", times=2, redirect=f"{hub.storage}/plain")]
        hub.faults[0].headers = {
            "X-Repo-Commit": "0" * 40,
            "X-Linked-ETag": f'"{newer.sha256}"',
            "X-Linked-Size": str(newer.size),
        }
        hub.plain["/plain"] = newer
        await downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=lambda _: None)
    assert contents(tmp_path) == {NAME: newer.sha256}


async def test_wrong_bytes_twice_are_refused_with_what_was_expected_and_found(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(flip_at=SIZE // 2, times=None)]
    with pytest.raises(BadDigestError) as caught:
        await fetch(hub, tmp_path)
    assert hub.repos[REPO].files[NAME].sha256 in str(caught.value)
    assert str(caught.value).count("sha256") == 1
    assert caught.value.permanent
    assert len(hub.seen("cdn")) == 2
    assert list(tmp_path.iterdir()) == []


async def test_a_digest_that_the_json_demands_is_compared_before_a_byte_comes(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(BadDigestError, match="the JSON demands aaaa"):
        await fetch(hub, tmp_path, spec_of(download_url=NAME, metadata={"sha256": "a" * 64}))
    assert hub.served() == 0


async def test_a_right_digest_of_no_model_is_refused_at_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {NAME: b"<html>" + b"x" * 5000, "old.bin": b"lmgg" + bytes(5000)})
    with pytest.raises(GgufError, match="web page"):
        await fetch(hub, tmp_path)
    assert len(hub.seen("cdn")) == 1
    with pytest.raises(LegacyGgmlError):
        await fetch(hub, tmp_path, spec_of(download_url="old.bin"))
    assert list(tmp_path.iterdir()) == []


async def test_a_gguf_shorter_than_its_header_says_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(REPO, {NAME: noise(SIZE)[: SIZE // 2]})
    with pytest.raises(GgufError) as caught:
        await fetch(hub, tmp_path)
    assert caught.value.code == "incomplete-binary"
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "401": (Fault(at="hub", status=401, times=None), HubUnauthorizedError),
    "403": (Fault(at="hub", status=403, times=None), DownloadRefusedError),
    "404": (Fault(at="hub", status=404, times=None), HubNotFoundError),
    "451": (Fault(at="hub", status=451, times=None), DownloadRefusedError),
    "gated": (Fault(at="hub", status=401, headers={"X-Error-Code": "GatedRepo"}, times=None), HubGatedError),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_of_the_hub_is_final_after_one_request(hub: FakeHub, tmp_path: Path, case: str) -> None:
    fault, kind = REFUSED[case]
    hub.faults = [Fault(**vars(fault))]
    with pytest.raises(kind) as caught:
        await fetch(hub, tmp_path)
    assert caught.value.retry_after_s == 3600
    assert caught.value.hint
    assert len(hub.seen("hub")) == 1


LASTING = {
    "429": (Fault(status=429, times=None), RateLimitedError),
    "500": (Fault(status=500, times=None), HubUnavailableError),
    "stalled": (Fault(stall_headers=True, times=None), HubUnavailableError),
    "closed": (Fault(close=True, times=None), HubUnavailableError),
    "storage 403": (Fault(status=403, times=None), HubUnavailableError),
    "not a hub": (Fault(at="hub", body=b"<html>hotel</html>", times=None), NotAHubError),
    "416": (Fault(status=416, times=None), HubUnavailableError),
}


@pytest.mark.parametrize("case", LASTING)
async def test_a_lasting_fault_ends_in_an_error_that_says_when_to_come_back(
    hub: FakeHub, tmp_path: Path, case: str
) -> None:
    fault, kind = LASTING[case]
    hub.faults = [Fault(**vars(fault))]
    with pytest.raises(kind) as caught:
        await fetch(hub, tmp_path, stall_s=0.05)
    assert caught.value.retry_after_s == 900
    assert not caught.value.permanent
    assert not (tmp_path / NAME).exists()


async def test_416_for_a_complete_file_of_unknown_size_means_complete(hub: FakeHub, tmp_path: Path) -> None:
    """A server that announces no length was cut exactly at the end: the range after it does not exist."""
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    hub.faults = [Fault(no_length=True, cut_after=len(noise(SIZE)) - 100)]
    await fetch(hub, tmp_path, spec_of(download_url=f"{hub.storage}/m.gguf"))
    assert contents(tmp_path) == {"m.gguf": digest_of(noise(SIZE))}
    assert len(hub.seen("cdn")) == 2


async def test_416_with_less_than_we_have_means_beginning_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(cut_after=3 * MIB), Fault(status=416, headers={"Content-Range": "bytes */1000"})]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)
    assert [request.start > 0 for request in hub.seen("cdn")] == [False, True, False]


async def test_a_plain_address_resumes_only_what_its_tag_says_is_the_same(hub: FakeHub, tmp_path: Path) -> None:
    url = f"{hub.storage}/m.gguf"
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    hub.rate = 12 * MIB
    had = await interrupted_fetch(hub, tmp_path, 3 * MIB, spec_of(download_url=url))
    hub.rate = None
    hub.plain["/m.gguf"] = HubFile(noise(SIZE, seed=1))
    await fetch(hub, tmp_path, spec_of(download_url=url))
    assert contents(tmp_path) == {"m.gguf": digest_of(noise(SIZE, seed=1))}
    resumed = hub.seen("cdn")[-1]
    assert resumed.start == had
    assert resumed.status == 200


async def test_a_plain_address_without_a_tag_is_begun_again(hub: FakeHub, tmp_path: Path) -> None:
    url = f"{hub.storage}/m.gguf"
    hub.etags = False
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    hub.rate = 12 * MIB
    await interrupted_fetch(hub, tmp_path, 3 * MIB, spec_of(download_url=url))
    hub.rate = None
    await fetch(hub, tmp_path, spec_of(download_url=url))
    assert hub.seen("cdn")[-1].start == 0
    assert contents(tmp_path) == {"m.gguf": digest_of(noise(SIZE))}


async def test_a_name_that_does_not_resolve(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NoNetworkError, match="cannot be resolved"):
        await fetch(hub, tmp_path, spec_of(download_url="https://no-such-host.invalid/m.gguf"))


async def test_a_port_where_nobody_listens(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NoNetworkError, match=r"cannot reach http://127\.0\.0\.1:1/m\.gguf: connection refused$"):
        await fetch(hub, tmp_path, spec_of(download_url="http://127.0.0.1:1/m.gguf"))


async def test_a_redirect_loop_ends(hub: FakeHub, tmp_path: Path) -> None:
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    url = f"{hub.storage}/m.gguf"
    hub.faults = [Fault(redirect=url, times=None)]
    with pytest.raises(UnsafeAddressError, match="redirects more than"):
        await fetch(hub, tmp_path, spec_of(download_url=url))
    assert len(hub.requests) <= 11


async def test_a_used_up_quota_pauses_all_models_and_not_each_for_itself(hub: FakeHub, tmp_path: Path) -> None:
    """Four files meet one 429: while it lasts, nobody else asks the hub."""
    names = [f"noise-{number}.Q4_K_M.gguf" for number in range(4)]
    hub.add(REPO, {name: noise(MIB, seed) for seed, name in enumerate(names)})
    hub.faults = [Fault(at="hub", status=429, headers={"Retry-After": "1"})]
    loop = asyncio.get_running_loop()
    async with downloader_for(hub, concurrency=4) as downloader:
        plans = [await downloader.plan(spec_of(download_url=name), tmp_path, {}) for name in names]
        began = loop.time()
        refused: list[float] = []

        async def one(number: int) -> None:
            await downloader.fetch(plans[number], tmp_path, owner=names[number], on_progress=lambda _: None)
            refused.append(loop.time() - began)

        await asyncio.gather(*(one(number) for number in range(4)))
    assert len(contents(tmp_path)) == 4
    assert max(refused) >= 1
    statuses = [request.status for request in hub.seen("hub")]
    assert statuses.count(429) == 1
    assert len(statuses) == 5


async def test_an_exhausted_quota_is_left_alone_before_it_refuses(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(at="hub", headers={"RateLimit": '"resolvers";r=0;t=0'})]
    hub.add(REPO, {NAME: noise(MIB), "other.Q4_K_M.gguf": noise(MIB, 1)})
    loop = asyncio.get_running_loop()
    await fetch(hub, tmp_path)
    began = loop.time()
    async with downloader_for(hub) as downloader:
        hub.faults = [Fault(at="hub", headers={"RateLimit": '"resolvers";r=0;t=0'}, times=1)]
        for name in (NAME, "other.Q4_K_M.gguf"):
            (tmp_path / NAME).unlink(missing_ok=True)
            plan = await downloader.plan(spec_of(download_url=name), tmp_path, {})
            await downloader.fetch(plan, tmp_path, owner=OWNER, on_progress=lambda _: None)
    assert loop.time() - began >= 1


@pytest.mark.parametrize("count", [1])
async def test_the_listing_survives_faults_too(hub: FakeHub, tmp_path: Path, count: int) -> None:
    hub.faults = [
        Fault(at="api", status=503, times=count),
        Fault(at="api", path="/tree/", cut_after=0, close=True, times=count),
    ]
    await fetch(hub, tmp_path)
    assert contents(tmp_path) == expected(hub)


async def test_a_listing_that_is_no_json_is_named_as_such(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault(at="api", body=b"<html>hotel</html>", times=None)]
    with pytest.raises(DownloadError) as caught:
        await fetch(hub, tmp_path)
    assert caught.value.code == "not-a-hub"
