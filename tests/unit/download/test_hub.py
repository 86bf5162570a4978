"""The hub's API, asked of a stand-in that answers as the real one: listings, revisions, pages, refusals with their hints, headers by ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jand.download.hub import Hub
from jand.download.repository import Repository
from jand.download.web import Web
from jand.errors import HubGatedError, HubNotFoundError, HubUnauthorizedError, NotAHubError
from tests.fakes.downloading import settings_for
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB, MISTRAL_7B, ZEPHYR, HubFile, announced, gguf_bytes, gguf_header, zephyr_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.download.repository import Listing

REPO = Repository("u/r")
TOKEN = "hf_good"


@pytest.fixture
async def fake() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.tokens.add(TOKEN)
        yield made


async def list_of(fake: FakeHub, repository: Repository = REPO, token: str | None = None) -> Listing:
    settings = settings_for(fake, token=token)
    web = Web(settings)
    try:
        return await Hub(web, settings).listing(repository)
    finally:
        await web.close()


async def test_a_listing_has_paths_sizes_and_digests_at_one_commit(fake: FakeHub) -> None:
    repo = fake.add(
        "u/r", {"a.gguf": gguf_bytes(1000), "sub/b.gguf": gguf_bytes(2000), "x.json": HubFile(b"{}", lfs=False)}
    )
    found = await list_of(fake)
    assert found.commit == repo.commit_of("main")
    assert {file.path: (file.size, file.sha256) for file in found.files} == {
        "a.gguf": (repo.files["a.gguf"].size, repo.files["a.gguf"].sha256),
        "sub/b.gguf": (repo.files["sub/b.gguf"].size, repo.files["sub/b.gguf"].sha256),
        "x.json": (2, None),
    }


async def test_a_long_listing_is_read_page_by_page(fake: FakeHub) -> None:
    fake.page = 7
    fake.add("u/r", {f"{number:03}.gguf": b"x" * number for number in range(1, 51)})
    found = await list_of(fake)
    assert len(found.files) == 50
    assert len(fake.seen("api", "/tree/")) == 8


async def test_the_links_of_a_mirror_may_name_the_hub_that_it_mirrors(fake: FakeHub) -> None:
    fake.page = 1
    fake.add("u/r", {"a.gguf": b"1", "b.gguf": b"2"})
    commit = fake.repos["u/r"].commit_of("main")
    link = f'<https://huggingface.co/api/models/u/r/tree/{commit}?recursive=true&cursor=1>; rel="next"'
    fake.faults = [Fault(at="api", path="/tree/", headers={"Link": link})]
    assert [file.path for file in (await list_of(fake)).files] == ["a.gguf", "b.gguf"]


async def test_a_revision_is_pinned_to_its_commit(fake: FakeHub) -> None:
    repo = fake.add("u/r", {"a.gguf": b"main"})
    repo.revisions["refs/pr/1"] = {"b.gguf": HubFile(b"branch")}
    found = await list_of(fake, Repository("u/r", "refs/pr/1"))
    assert [file.path for file in found.files] == ["b.gguf"]
    assert found.commit == repo.commit_of("refs/pr/1")
    assert (await list_of(fake, Repository("u/r", found.commit))).files == found.files


async def test_many_models_of_one_repository_ask_once(fake: FakeHub) -> None:
    fake.add("u/r", {"a.gguf": b"1"})
    settings = settings_for(fake)
    web = Web(settings)
    hub = Hub(web, settings)
    first, second = await hub.listing(REPO), await hub.listing(REPO)
    await web.close()
    assert first is second
    assert len(fake.requests) == 2


REFUSALS = [
    ("missing without a token", None, {}, HubNotFoundError, "does not exist, or is private", "HF_TOKEN"),
    ("missing with a token", TOKEN, {}, HubNotFoundError, "there is no repository", "correct the origin"),
    ("private without a token", None, {"private": True}, HubNotFoundError, "or is private", "HF_TOKEN"),
    ("private with another's token", TOKEN, {"private": True}, HubNotFoundError, "not shown to this token", "origin"),
    (
        "a token that is not accepted",
        "hf_bad",
        {"here": True},
        HubUnauthorizedError,
        "does not accept the token",
        "renew",
    ),
    ("no such revision", None, {"here": True, "revision": "v9"}, HubNotFoundError, "no such revision", "@revision"),
]


@pytest.mark.parametrize(
    ("case", "token", "state", "kind", "said", "hint"), REFUSALS, ids=[case[0] for case in REFUSALS]
)
async def test_a_refusal_says_what_to_do(
    fake: FakeHub, case: str, token: str | None, state: dict[str, object], kind: type[Exception], said: str, hint: str
) -> None:
    if state:
        fake.add("u/r", {"a.gguf": b"1"}).private = bool(state.get("private"))
    with pytest.raises(kind, match=said) as caught:
        await list_of(fake, Repository("u/r", str(state.get("revision", "main"))), token)
    assert hint in caught.value.hint  # type: ignore[attr-defined]
    assert len(fake.requests) == 1, case


async def test_a_granted_token_opens_a_private_repository(fake: FakeHub) -> None:
    repo = fake.add("u/r", {"a.gguf": b"1"})
    repo.private, repo.granted = True, frozenset({TOKEN})
    assert len((await list_of(fake, token=TOKEN)).files) == 1


@pytest.mark.parametrize(("token", "said"), [(None, "wants to know who downloads"), (TOKEN, "has not been let in")])
async def test_a_gated_repository_is_listed_and_its_files_are_not_given(
    fake: FakeHub, token: str | None, said: str
) -> None:
    fake.add("u/r", {"a.gguf": gguf_bytes(5000)}).gated = True
    settings = settings_for(fake, token=token)
    web = Web(settings)
    hub = Hub(web, settings)
    listing = await hub.listing(REPO)
    assert listing.gated
    with pytest.raises(HubGatedError, match=said) as caught:
        await hub.header(listing, listing.files[0])
    await web.close()
    assert "https://huggingface.co/u/r" in caught.value.hint


async def test_a_header_costs_a_few_megabytes_and_not_the_file(fake: FakeHub) -> None:
    fake.add(ZEPHYR, zephyr_files())
    settings = settings_for(fake)
    web = Web(settings)
    hub = Hub(web, settings)
    listing = await hub.listing(Repository(ZEPHYR))
    file = listing.find("zephyr-7b-beta.Q8_0.gguf")
    assert file is not None
    header = await hub.header(listing, file)
    await web.close()
    assert header is not None
    assert (header.block_count, header.head_count_kv) == (32, 8)
    assert fake.served() <= 4 * MIB


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_long_header_is_asked_for_again_with_more(fake: FakeHub, *, ranges: bool) -> None:
    """Also where the server ignores ranges and begins to send all of it."""
    facts = {**MISTRAL_7B, "tokenizer.chat_template": "x" * (6 * MIB)}
    content = gguf_header(64 * MIB, facts) + bytes(64 * MIB)
    fake.add("u/r", {"a.gguf": content})
    fake.accept_ranges = ranges
    settings = settings_for(fake)
    web = Web(settings)
    hub = Hub(web, settings)
    listing = await hub.listing(REPO)
    header = await hub.header(listing, listing.files[0])
    await web.close()
    assert header is not None
    assert header.block_count == 32
    assert len(fake.seen("cdn")) == 2


async def test_what_is_no_gguf_has_no_header(fake: FakeHub) -> None:
    fake.add("u/r", {"a.gguf": b"<html>" * 1000, "b.gguf": announced("b", 10 * MIB, MISTRAL_7B)})
    settings = settings_for(fake)
    web = Web(settings)
    hub = Hub(web, settings)
    listing = await hub.listing(REPO)
    assert await hub.header(listing, listing.files[0]) is None
    await web.close()


@pytest.mark.parametrize(
    "body", [b"<html>hotel</html>", b"[1, 2]", b'{"sha": "main"}', b'{"sha": 3}', b"[" * 100_000, b"\xff\xfe"]
)
async def test_what_is_no_hubs_answer_is_not_believed(fake: FakeHub, body: bytes) -> None:
    fake.faults = [Fault(at="api", body=body, times=None)]
    with pytest.raises(NotAHubError):
        await list_of(fake)


async def test_a_search_gives_names_by_downloads(fake: FakeHub) -> None:
    for number, name in enumerate(("a/zephyr-GGUF", "b/zephyr-small-GGUF", "c/other-GGUF")):
        fake.add(name, {"x.gguf": b"1"}).downloads = number * 10
    settings = settings_for(fake)
    web = Web(settings)
    found = await Hub(web, settings).search("zephyr", 5)
    await web.close()
    assert [each.id for each in found] == ["b/zephyr-small-GGUF", "a/zephyr-GGUF"]
    assert "filter=gguf" in fake.requests[0].target
