"""How models come in through the API: registered, previewed, copied, halted, listed in the catalogue, looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jand.client import Client
from jand.download.plan import Plan, WantedFile
from jand.download.planner import SearchHit
from jand.download.recommend import Place, Row
from jand.errors import HubGatedError, ModelExistsError, ModelNotFoundError, NotPossibleError
from jand.lifecycle.catalog import CatalogEntry
from jand.lifecycle.offers import Offer
from jand.model.problem import ErrorNote
from tests.fakes.records import make_spec

if TYPE_CHECKING:
    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager

ROW = Row("Q4_K_M", "Q4_K_M", ("a.Q4_K_M.gguf",), 4_000, 5_000, Place.MEMORY, chosen=True)
PLAN = Plan(
    files=(WantedFile("a.Q4_K_M.gguf", "https://hub/a?token=hf_secret123456", "https://hub/b", 4_000, "00"),),
    present={"mmproj.gguf": 10},
    repository="user/repo",
    commit="c0ffee",
    quantization="Q4_K_M",
    reason="it fits",
    table=(ROW,),
)
VARIANT = {
    "name": "Q4_K_M",
    "quantization": "Q4_K_M",
    "files": ["a.Q4_K_M.gguf"],
    "size": 4_000,
    "need": 5_000,
    "place": "memory",
    "chosen": True,
}
DOWNLOAD = {
    "repository": "user/repo",
    "commit": "c0ffee",
    "quantization": "Q4_K_M",
    "reason": "it fits",
    "remote": False,
    "bytes_to_fetch": 4_000,
    "files": [{"name": "a.Q4_K_M.gguf", "url": "https://hub/a?token=***", "size": 4_000, "sha256": "00"}],
    "present": {"mmproj.gguf": 10},
    "table": [VARIANT],
}
SECRET = "sk-very-secret-0123456789"


async def test_a_registered_model_is_answered_whole_with_the_place_where_it_is(
    api: ServedApi, manager: FakeManager
) -> None:
    answer = await api.ask("POST", "/v1/models", {"id": "a/b", "origin": "user/repo", "tags": ["kept"]})

    assert answer.status == 201
    assert answer.headers["Location"] == "/v1/models/a%2Fb"
    assert (answer.json["id"], answer.json["state"], answer.json["origin"]) == ("a/b", "downloading", "user/repo")
    assert manager.asked[0].arguments == {"id": "a/b", "origin": "user/repo", "tags": ["kept"]}


async def test_only_what_was_given_is_handed_on(api: ServedApi, manager: FakeManager) -> None:
    """A null is a wish too: it takes a field of a catalogue entry away."""
    await api.ask("POST", "/v1/models?dry_run=1", {"origin": "user/repo", "quantization": None})

    assert manager.asked[0].arguments == {"origin": "user/repo", "quantization": None}


async def test_what_exists_is_a_conflict(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")

    answer = await api.ask("POST", "/v1/models", {"id": "a", "origin": "user/repo"})

    assert (answer.status, answer.error["code"], answer.error["param"]) == (409, "model-exists", "id")


@pytest.mark.parametrize(
    ("body", "param"), [({"catalog": 5}, "catalog"), ({"id": ["x"]}, "id"), ({"quantization": 4}, "quantization")]
)
async def test_a_field_of_the_wrong_kind_is_named(api: ServedApi, body: dict[str, Any], param: str) -> None:
    answer = await api.ask("POST", "/v1/models", body)

    assert (answer.status, answer.error["param"]) == (400, param)


async def test_a_dry_run_says_what_would_be_written_and_fetched_and_shows_no_secret(
    api: ServedApi, manager: FakeManager
) -> None:
    manager.plan = PLAN

    answer = await api.ask(
        "POST", "/v1/models?dry_run=true", {"origin": "user/repo", "parameters": {"init": {"API-KEY": SECRET}}}
    )

    assert answer.status == 200
    assert answer.json == {
        "object": "preview",
        "id": "new",
        "path": "models/new/new.json",
        "exists": False,
        "json": {
            "origin": "user/repo",
            "import_format": "default",
            "object": "model",
            "parameters": {"init": {"API-KEY": "***"}, "runtime": {}},
            "metadata": {"engine": "llamacpp"},
        },
        "download": DOWNLOAD,
    }
    assert SECRET.encode() not in answer.body


async def test_what_the_hub_refuses_is_told_with_its_code(api: ServedApi, manager: FakeManager) -> None:
    manager.refuse("preview", HubGatedError("cannot download it: it is gated", hint="accept the terms"))

    answer = await api.ask("POST", "/v1/models?dry_run=true", {"origin": "user/repo"})

    assert (answer.status, answer.error["code"]) == (502, "hub-gated")
    assert answer.error["message"] == "cannot download it: it is gated; hint: accept the terms"


async def test_a_copy_is_answered_whole(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a/b")

    answer = await api.ask(
        "POST", "/v1/models/a%2Fb/copy", {"id": "mine", "parameters": {"init": {"ctx_len": 8}}, "owned_by": None}
    )

    assert (answer.status, answer.json["id"], answer.headers["Location"]) == (201, "mine", "/v1/models/mine")
    assert (manager.asked[0].model, manager.asked[0].arguments) == (
        "a/b",
        {"id": "mine", "parameters": {"init": {"ctx_len": 8}}, "owned_by": None},
    )


async def test_a_copy_needs_an_id_and_an_original(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")

    nameless = await api.ask("POST", "/v1/models/a/copy", {})
    unknown = await api.ask("POST", "/v1/models/none/copy", {"id": "b"})

    assert (nameless.status, nameless.error["param"]) == (400, "id")
    assert (unknown.status, unknown.error["code"]) == (404, "model-not-found")


async def test_a_download_is_halted_and_gone_on_with(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a/b")

    assert (await api.ask("PUT", "/v1/models/a%2Fb/pause")).json["paused"] is True
    assert (await api.ask("PUT", "/v1/models/a/b/resume")).json["paused"] is False
    manager.refuse("pause", NotPossibleError("cannot pause"))
    assert (await api.ask("PUT", "/v1/models/a%2Fb/pause")).status == 409


async def test_the_catalogue_says_what_each_would_download_or_why_that_is_not_known(
    api: ServedApi, manager: FakeManager
) -> None:
    manager.add("b")
    manager.catalog = [
        Offer(CatalogEntry("a", make_spec(download_url="x.gguf"), shipped=True), PLAN),
        Offer(
            CatalogEntry("b", make_spec(parameters={"init": {"API-KEY": SECRET}})),
            unknown=ErrorNote("no-network", "cannot reach the hub", "plug it in", at=1.0),
        ),
    ]

    answer = await api.ask("GET", "/v1/catalog")

    assert answer.json["object"] == "list"
    first, second = answer.json["data"]
    assert first == {
        "id": "a",
        "object": "catalog.entry",
        "origin": "tests/model",
        "import_format": "default",
        "download_url": "x.gguf",
        "parameters": {"init": {}, "runtime": {}},
        "metadata": {"engine": "llamacpp"},
        "shipped": True,
        "registered": False,
        "download": DOWNLOAD,
        "unknown": None,
    }
    assert (second["download"], second["shipped"], second["registered"]) == (None, False, True)
    assert second["unknown"] == {"code": "no-network", "message": "cannot reach the hub", "hint": "plug it in"}
    assert SECRET.encode() not in answer.body


async def test_a_search_answers_with_what_fits_here(api: ServedApi, manager: FakeManager) -> None:
    manager.hits = [
        SearchHit("user/repo", 1000, 7, gated=False, table=(ROW,)),
        SearchHit("user/other", 10, 0, gated=True, note="nothing fits"),
    ]

    answer = await api.ask("GET", "/v1/search?q=two%20words&limit=2")

    assert answer.json == {
        "object": "list",
        "data": [
            {
                "repository": "user/repo",
                "downloads": 1000,
                "likes": 7,
                "gated": False,
                "note": "",
                "table": [VARIANT],
            },
            {
                "repository": "user/other",
                "downloads": 10,
                "likes": 0,
                "gated": True,
                "note": "nothing fits",
                "table": [],
            },
        ],
    }
    assert manager.asked[0].arguments == {"words": "two words", "limit": 2}


@pytest.mark.parametrize(("query", "param"), [("", "q"), ("?q=", "q"), ("?q=x&limit=0", "limit")])
async def test_a_search_needs_words_and_a_sensible_limit(api: ServedApi, query: str, param: str) -> None:
    answer = await api.ask("GET", f"/v1/search{query}")

    assert (answer.status, answer.error["param"]) == (400, param)


async def test_the_client_has_a_verb_for_each(api: ServedApi, manager: FakeManager) -> None:
    manager.hits = [SearchHit("user/repo", 1, 0, gated=False)]
    manager.catalog = [Offer(CatalogEntry("c", make_spec()), PLAN)]
    async with Client(api.socket) as client:
        assert (await client.register({"id": "a b", "origin": "user/repo"}))["id"] == "a b"
        assert (await client.preview({"id": "a b", "origin": "user/repo"}))["exists"] is True
        assert (await client.copy("a b", "c", {"owned_by": "me"}))["id"] == "c"
        assert (await client.pause("a b"))["paused"] is True
        assert (await client.resume("a b"))["paused"] is False
        assert [entry["id"] for entry in await client.catalog()] == ["c"]
        assert [hit["repository"] for hit in await client.search("x y", limit=3)] == ["user/repo"]
        with pytest.raises(ModelExistsError):
            await client.register({"id": "a b", "origin": "user/repo"})
        with pytest.raises(ModelNotFoundError):
            await client.pause("none")

    copied = next(asked for asked in manager.asked if asked.verb == "copy")
    assert (copied.model, copied.arguments) == ("a b", {"owned_by": "me", "id": "c"})
    assert next(asked for asked in manager.asked if asked.verb == "search").arguments == {"words": "x y", "limit": 3}
