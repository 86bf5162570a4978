"""`/openapi.json` is well formed, complete, and true: what is answered fits what it says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from jand.api.routes import ROUTES
from jand.download.plan import Plan, WantedFile
from jand.download.planner import SearchHit
from jand.download.recommend import Place, Row
from jand.lifecycle.catalog import CatalogEntry
from jand.lifecycle.offers import Offer
from jand.model.problem import ErrorNote
from jand.model.record import FileProgress, FileRecord, Progress, PublicState, Transition
from tests.fakes.json_schema import find_faults, resolve
from tests.fakes.manager import Kept
from tests.fakes.records import make_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager

Json = dict[str, Any]


@pytest.fixture
async def document(api: ServedApi) -> Json:
    answer = await api.ask("GET", "/openapi.json")
    assert answer.status == 200
    found: Json = answer.json
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_it_has_what_openapi_3_1_demands(document: Json) -> None:
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert set(document) <= {"openapi", "info", "servers", "paths", "components"}
    assert document["info"]["title"]
    assert document["info"]["version"]
    for method, path, operation in operations(document):
        assert method in {"GET", "PUT", "POST", "DELETE"}
        assert path.startswith("/")
        named = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        for parameter in operation["parameters"]:
            assert set(parameter) == {"name", "in", "required", "schema", "description"}
            assert parameter["in"] in {"path", "query", "header"}
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status)
            assert response["description"]
            assert response["content"]


def test_every_reference_leads_somewhere_and_every_definition_is_used(document: Json) -> None:
    used = set(references(document))

    for reference in used:
        assert resolve(reference, document)
    assert {reference.rsplit("/", 1)[-1] for reference in used} == set(document["components"]["schemas"])


def test_operations_have_names_of_their_own(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]

    assert len(names) == len(set(names))


def test_every_route_is_there_and_nothing_else(document: Json) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == {
        (route.method, route.path) for route in ROUTES
    }


def test_every_route_of_the_contract_that_this_version_has_is_there(document: Json) -> None:
    assert set(document["paths"]) >= {
        "/v1/models",
        "/v1/models/{id}",
        "/v1/models/{id}/start",
        "/v1/models/{id}/stop",
        "/v1/models/{id}/copy",
        "/v1/models/{id}/pause",
        "/v1/models/{id}/resume",
        "/v1/catalog",
        "/v1/search",
        "/v1/problems",
        "/v1/events",
        "/v1/rescan",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/health",
        "/ready",
        "/version",
        "/openapi.json",
    }


def test_every_error_has_the_one_shape(document: Json) -> None:
    for _, _, operation in operations(document):
        failures = {status: response for status, response in operation["responses"].items() if status >= "400"}
        assert {"403", "500", "503"} <= set(failures)
        for status, response in failures.items():
            assert response["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
            assert ("Retry-After" in response.get("headers", {})) == (status in {"429", "503"})


def test_the_states_that_may_be_asked_for_are_listed(document: Json) -> None:
    (state,) = [each for each in document["paths"]["/v1/models"]["get"]["parameters"] if each["name"] == "state"]

    assert state["schema"]["enum"] == ["all", "running", "downloaded", "downloading"]
    assert state["schema"]["default"] == "all"


def test_probes_and_the_page_need_no_token_and_everything_else_may(document: Json) -> None:
    for _, path, operation in operations(document):
        assert operation["security"] == (
            [] if path in {"/", "/page/{file}", "/health", "/ready"} else [{}, {"token": []}]
        )


async def test_whatever_is_answered_fits_the_description(api: ServedApi, manager: FakeManager, document: Json) -> None:
    manager.add(
        "a",
        spec=make_spec(
            download_url=["x.gguf", "y.mmproj"], parameters={"init": {"ctx_len": 1}, "runtime": {"stop": ["x"]}}
        ),
        state=PublicState.DOWNLOADING,
        transition=Transition.RESTARTING,
        error=ErrorNote("no-network", "cannot", at=1.0),
        progress=Progress(1, None, 0.0, None, (FileProgress("x.gguf", 1, None),)),
        files=(FileRecord("x.gguf", None, present=False),),
        details={"architecture": "llama"},
        aliases=("b",),
    )
    manager.add("c")
    manager.complain("models/x.json", line=1)
    manager.kept = (Kept("x", "y"),)
    row = Row("Q4_0", "Q4_0", ("x.gguf",), 1, 2, Place.GPU, chosen=True)
    manager.plan = Plan((WantedFile("x.gguf", "https://hub/x", "https://hub/x"),), {"y": 1}, table=(row,))
    manager.catalog = [
        Offer(CatalogEntry("x", make_spec()), manager.plan),
        Offer(CatalogEntry("y", make_spec()), unknown=ErrorNote("no-network", "cannot")),
    ]
    manager.hits = [SearchHit("a/b", 1, 2, gated=False, table=(row,))]
    asked: list[tuple[str, str, object]] = [
        ("GET", "/v1/models", None),
        ("GET", "/v1/models?state=wrong", None),
        ("GET", "/v1/models/{id}", None),
        ("PUT", "/v1/models/{id}/start", {"parameters": {"init": {"ctx_len": 5}}}),
        ("PUT", "/v1/models/{id}/start", {"parameters": {"init": {"ctx_len": 0}}}),
        ("PUT", "/v1/models/{id}/start", b"{"),
        ("PUT", "/v1/models/{id}/start?wait=false", None),
        ("PUT", "/v1/models/{id}/stop", None),
        ("PUT", "/v1/models/{id}/stop?force=x", None),
        ("POST", "/v1/models", {"id": "new", "origin": "a/b"}),
        ("POST", "/v1/models", {"id": "new", "origin": "a/b"}),
        ("POST", "/v1/models?dry_run=true", {"origin": "a/b"}),
        ("POST", "/v1/models", {"catalog": 1}),
        ("POST", "/v1/models/{id}/copy", {"id": "copy"}),
        ("POST", "/v1/models/{id}/copy", {}),
        ("PUT", "/v1/models/{id}/pause", None),
        ("PUT", "/v1/models/{id}/resume", None),
        ("GET", "/v1/catalog", None),
        ("GET", "/v1/search?q=x", None),
        ("GET", "/v1/search", None),
        ("GET", "/v1/problems", None),
        ("POST", "/v1/rescan", None),
        ("POST", "/v1/chat/completions", {"model": "none"}),
        ("POST", "/v1/chat/completions", {"model": "a"}),
        ("POST", "/v1/completions", b""),
        ("POST", "/v1/embeddings", {}),
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("GET", "/version", None),
        ("GET", "/openapi.json", None),
        ("DELETE", "/v1/models/{id}", None),
        ("DELETE", "/v1/models/{id}", None),
    ]
    for method, path, body in asked:
        answer = await api.ask(method, path.replace("{id}", "a"), body)
        described = document["paths"][path.partition("?")[0]][method.lower()]["responses"]
        assert str(answer.status) in described, (method, path, answer)
        schema = described[str(answer.status)]["content"]["application/json"]["schema"]
        assert find_faults(answer.json, schema, document) == [], (method, path)


async def test_the_check_itself_finds_faults(document: Json) -> None:
    schema = {"$ref": "#/components/schemas/ModelObject"}

    assert find_faults({}, schema, document)
    assert find_faults(
        {"message": 1, "type": "x", "param": 3}, {"$ref": "#/components/schemas/ErrorObject"}, document
    ) == [
        "$.message: 1 is no string",
        "$.param: fits none of [{'type': 'string'}, {'type': 'null'}]: [['$.param: 3 is no string'], ['$.param: 3 is no null']]",
        "$: code is missing",
    ]
