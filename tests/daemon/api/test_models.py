"""The control API's models: what is listed, shown, started, stopped and deleted."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from jand.errors import ModelDownloadingError, StartError
from jand.model.problem import ErrorNote
from jand.model.record import FileProgress, FileRecord, Progress, PublicState, Transition
from tests.fakes.manager import Kept
from tests.fakes.records import make_spec
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager

SECRET = "sk-very-secret-0123456789"


async def test_the_list_is_in_openais_envelope(api: ServedApi, manager: FakeManager) -> None:
    manager.add("b")
    manager.add("a")

    answer = await api.ask("GET", "/v1/models")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json["object"] == "list"
    assert [model["id"] for model in answer.json["data"]] == ["b", "a"]


async def test_an_empty_registry_is_an_empty_list(api: ServedApi) -> None:
    assert (await api.ask("GET", "/v1/models")).json == {"object": "list", "data": []}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["here", "coming", "up"]),
        ("?state=all", ["here", "coming", "up"]),
        ("?state=downloaded", ["here"]),
        ("?state=downloading", ["coming"]),
        ("?state=running", ["up"]),
        ("?unknown=1&state=running&another", ["up"]),
    ],
)
async def test_the_list_is_filtered_by_exact_states(
    api: ServedApi, manager: FakeManager, query: str, ids: list[str]
) -> None:
    manager.add("here")
    manager.add("coming", state=PublicState.DOWNLOADING)
    manager.add("up", state=PublicState.RUNNING)

    answer = await api.ask("GET", f"/v1/models{query}")

    assert [model["id"] for model in answer.json["data"]] == ids


@pytest.mark.parametrize("value", ["Running", "ALL", "stopped", "", "running%20", "running,all"])
async def test_any_other_state_is_refused_and_the_allowed_ones_are_named(api: ServedApi, value: str) -> None:
    answer = await api.ask("GET", f"/v1/models?state={value}")

    assert answer.status == 400
    assert answer.error["code"] == "bad-request"
    assert answer.error["param"] == "state"
    assert answer.error["type"] == "invalid_request_error"
    for allowed in ("all", "running", "downloaded", "downloading"):
        assert f"'{allowed}'" in answer.error["message"]


async def test_a_model_object_has_every_field_of_the_contract(api: ServedApi, manager: FakeManager) -> None:
    manager.add(
        "a",
        spec=make_spec(
            import_format="thebloke",
            download_url="a.gguf",
            parameters={"init": {"ctx_len": 2048}, "runtime": {"temperature": "0.7"}},
            metadata={"tags": ["x"]},
        ),
        state=PublicState.DOWNLOADING,
        transition=Transition.STOPPING,
        error=ErrorNote("no-network", "cannot fetch", "plug it in", at=1.5, retry_at=2.5, log=("line", "last line")),
        progress=Progress(10, 20, 5.0, 2.0, (FileProgress("a.gguf", 10, 20),)),
        files=(FileRecord("a.gguf", 20, present=True, sha256="00"),),
        details={"architecture": "llama", "context_length": 4096},
        aliases=("other",),
    )

    model = (await api.ask("GET", "/v1/models/a")).json

    assert model == {
        "id": "a",
        "object": "model",
        "created": 1_686_935_002,
        "owned_by": "tests",
        "state": "downloading",
        "transition": "stopping",
        "paused": False,
        "restart_needed": False,
        "origin": "tests/model",
        "import_format": "thebloke",
        "download_url": "a.gguf",
        "parameters": {"init": {"ctx_len": 2048}, "runtime": {"temperature": 0.7}},
        "metadata": {"engine": "llamacpp", "tags": ["x"]},
        "error": {
            "code": "no-network",
            "message": "cannot fetch",
            "hint": "plug it in",
            "at": 1.5,
            "retry_at": 2.5,
            "log": ["line", "last line"],
        },
        "progress": {
            "bytes_done": 10,
            "bytes_total": 20,
            "bytes_per_second": 5.0,
            "eta_seconds": 2.0,
            "files": [{"name": "a.gguf", "bytes_done": 10, "bytes_total": 20}],
        },
        "path": "models/a/a.json",
        "files": [{"name": "a.gguf", "size": 20, "present": True, "sha256": "00"}],
        "details": {"architecture": "llama", "context_length": 4096},
        "aliases": ["other"],
    }
    assert (await api.ask("GET", "/v1/models")).json["data"] == [model]


async def test_several_download_urls_stay_a_list_and_none_is_null(api: ServedApi, manager: FakeManager) -> None:
    manager.add("two", spec=make_spec(download_url=["a.gguf", "b.mmproj"]))
    manager.add("none")

    assert (await api.ask("GET", "/v1/models/two")).json["download_url"] == ["a.gguf", "b.mmproj"]
    assert (await api.ask("GET", "/v1/models/none")).json["download_url"] is None


@pytest.mark.parametrize(
    ("written", "model_id"),
    [
        ("TheBloke%2Fzephyr", "TheBloke/zephyr"),
        ("TheBloke%2fzephyr", "TheBloke/zephyr"),
        ("TheBloke/zephyr", "TheBloke/zephyr"),
        ("%2Fopenai.azure.com%2Fdocs-test-001%2Fgpt4-turbo", "/openai.azure.com/docs-test-001/gpt4-turbo"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("100%25", "100%"),
        ("a%252Fb", "a%2Fb"),
        ("%E6%A8%A1%E5%9E%8B", "模型"),
        ("a%0Ab", "a\nb"),
        ("a%3Fb%23c", "a?b#c"),
        ("x%2Fstart", "x/start"),
        ("alias", "TheBloke/zephyr"),
    ],
)
async def test_ids_are_percent_encoded_in_a_path(
    api: ServedApi, manager: FakeManager, written: str, model_id: str
) -> None:
    manager.add(model_id, aliases=("alias",))

    assert (await api.ask("GET", f"/v1/models/{written}")).json["id"] == model_id
    assert (await api.ask("PUT", f"/v1/models/{written}/start")).json["id"] == model_id
    assert (await api.ask("PUT", f"/v1/models/{written}/stop")).json["id"] == model_id
    assert (await api.ask("DELETE", f"/v1/models/{written}")).json["id"] == model_id
    assert {asked.model for asked in manager.asked} == {model_id}


@pytest.mark.parametrize(
    "written", ["..%2F..%2Fetc%2Fpasswd", "../../etc/passwd", "%2e%2e%2fsecret", "%00", "%FF", "a%2F"]
)
async def test_an_id_is_looked_up_and_nothing_else(api: ServedApi, written: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.ask(method, f"/v1/models/{written}")
        assert answer.status == 404
        assert answer.error["code"] == "model-not-found"


async def test_an_unknown_model_is_answered_with_near_ids(api: ServedApi, manager: FakeManager) -> None:
    manager.add("zephyr-7b")

    answer = await api.ask("GET", "/v1/models/zephir-7b")

    assert answer.status == 404
    assert answer.error == {
        "message": 'cannot find model "zephir-7b"; hint: did you mean "zephyr-7b"?',
        "type": "not_found_error",
        "param": None,
        "code": "model-not-found",
    }


async def test_start_answers_once_it_runs_with_the_parameters_in_force(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a", spec=make_spec(parameters={"init": {"ctx_len": 2048, "ngl": 3}, "runtime": {"top_k": 5}}))
    manager.hold.clear()

    starting = asyncio.create_task(api.ask("PUT", "/v1/models/a/start", {"parameters": {"init": {"ctx_len": 512}}}))
    await until(lambda: manager.asked)
    assert not starting.done()
    manager.hold.set()
    answer = await starting

    assert answer.status == 200
    assert answer.json == {
        "id": "a",
        "object": "model",
        "state": "running",
        "transition": None,
        "model_parameters": {"init": {"ctx_len": 512, "ngl": 3}, "runtime": {"top_k": 5}},
        "engine": "llamacpp",
    }
    assert manager.asked[0].arguments == {"init_overrides": {"ctx_len": 512}, "wait": True}


@pytest.mark.parametrize("body", [None, b"", {}, {"parameters": {}}, {"parameters": {"init": {}}}])
async def test_start_needs_no_body(api: ServedApi, manager: FakeManager, body: object) -> None:
    manager.add("a")

    assert (await api.ask("PUT", "/v1/models/a/start", body)).status == 200
    assert manager.asked[-1].arguments["init_overrides"] is None


async def test_start_without_waiting_answers_202_at_once(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a", transition=Transition.STARTING)
    manager.hold.clear()

    answer = await api.ask("PUT", "/v1/models/a/start?wait=false")

    assert answer.status == 202
    assert answer.json["state"] == "downloaded"
    assert answer.json["transition"] == "starting"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"parameters": {"init": {"ctx_len": -1}}}, "bad-request", "parameters.init.ctx_len"),
        ({"parameters": {"init": {"ctx_length": 1}}}, "bad-request", "parameters.init.ctx_length"),
        ({"parameters": {"init": 3}}, "bad-request", "parameters.init"),
        ({"parameters": {"runtime": {}}}, "bad-request", "parameters.runtime"),
        ({"init": {"ctx_len": 1}}, "bad-request", "init"),
        (b"{", "bad-json", None),
        (b"[]", "bad-json", None),
        (b"\xff", "bad-json", None),
        (b"[" * 100_000, "bad-json", None),
    ],
)
async def test_a_body_that_start_cannot_take_is_refused_by_name(
    api: ServedApi, manager: FakeManager, body: object, code: str, param: str | None
) -> None:
    manager.add("a")

    answer = await api.ask("PUT", "/v1/models/a/start", body)

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert answer.error["message"].startswith("cannot ")


@pytest.mark.parametrize("value", ["maybe", "", "2"])
async def test_a_flag_is_true_or_false(api: ServedApi, manager: FakeManager, value: str) -> None:
    manager.add("a")

    answer = await api.ask("PUT", f"/v1/models/a/start?wait={value}")

    assert answer.status == 400
    assert answer.error["param"] == "wait"


async def test_what_keeps_a_model_from_starting_is_answered_with_its_hint(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")
    manager.refuse("start", StartError('cannot start "a": killed by SIGKILL', hint="free some memory"))

    answer = await api.ask("PUT", "/v1/models/a/start")

    assert answer.status == 500
    assert answer.error["code"] == "start-failed"
    assert answer.error["message"] == 'cannot start "a": killed by SIGKILL; hint: free some memory'
    assert answer.headers["x-should-retry"] == "false"


async def test_a_model_still_downloading_says_when_to_ask_again(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a", state=PublicState.DOWNLOADING)
    manager.refuse("start", ModelDownloadingError("cannot start", retry_after_s=4.2))

    answer = await api.ask("PUT", "/v1/models/a/start")

    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.error["code"] == "model-downloading"


async def test_stop_answers_the_model_and_force_is_passed_on(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a", state=PublicState.RUNNING)

    answer = await api.ask("PUT", "/v1/models/a/stop?force=true")

    assert answer.json["state"] == "downloaded"
    assert manager.asked[-1].arguments == {"force": True}


async def test_delete_says_what_was_left_and_why(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")
    manager.kept = (Kept("a.gguf", "b.json uses it too"),)

    answer = await api.ask("DELETE", "/v1/models/a?keep_files=true")

    assert answer.json == {
        "id": "a",
        "object": "model",
        "deleted": True,
        "kept": [{"name": "a.gguf", "why": "b.json uses it too"}],
    }
    assert manager.asked[-1].arguments == {"keep_files": True}
    assert (await api.ask("GET", "/v1/models/a")).status == 404


async def test_problems_and_rescan(api: ServedApi, manager: FakeManager) -> None:
    manager.complain("models/x.json", line=3, column=7, hint="add it")

    assert (await api.ask("GET", "/v1/problems")).json == {
        "object": "list",
        "data": [
            {
                "path": "models/x.json",
                "code": "bad-json",
                "message": "expected a comma",
                "hint": "add it",
                "line": 3,
                "column": 7,
                "severity": "error",
                "since": 1_700_000_000.5,
            }
        ],
    }
    assert (await api.ask("POST", "/v1/rescan")).json == {
        "object": "rescan",
        "scanned": 3,
        "changed": 1,
        "seconds": 0.01,
    }


async def test_a_remote_models_key_appears_nowhere(api: ServedApi, manager: FakeManager) -> None:
    init = {"API-KEY": SECRET, "DEPLOYMENT-NAME": "gpt", "api-version": "2023-05-15"}
    manager.add(
        "r",
        spec=make_spec(origin="https://x.openai.azure.com", import_format="azure_openai", parameters={"init": init}),
    )
    opened = await api.session.get("http://jand/v1/events", headers={"Last-Event-ID": "99"})

    answers = [
        await api.ask("GET", "/v1/models"),
        await api.ask("GET", "/v1/models/r"),
        await api.ask("PUT", "/v1/models/r/start"),
        await api.ask("PUT", "/v1/models/r/start", {"parameters": {"init": {"API-KEY": SECRET + "2"}}}),
        await api.ask("PUT", "/v1/models/r/stop"),
    ]
    manager.events.close()
    events = await opened.read()

    assert [answer.status for answer in answers] == [200] * 5
    assert all(SECRET.encode() not in body for body in (events, *(answer.body for answer in answers)))
    assert answers[0].json["data"][0]["parameters"]["init"]["API-KEY"] == "***"
    assert answers[2].json["model_parameters"]["init"] == {**init, "API-KEY": "***"}
    assert answers[2].json["engine"] == "openai"
    assert events.count(b"event: model.") == 5


async def test_names_that_are_no_unicode_do_not_break_the_list(api: ServedApi, manager: FakeManager) -> None:
    """A file name may be any bytes, and Python writes those that are no UTF-8 as lone surrogates."""
    name = b"caf\xe9.gguf".decode(errors="surrogateescape")
    manager.add("bad", path=f"models/{name}", files=(FileRecord(name, 1, present=True),), details={"x": {name: object}})
    manager.add("good")

    models = (await api.ask("GET", "/v1/models")).json["data"]

    assert [model["id"] for model in models] == ["bad", "good"]
    assert models[0]["files"][0]["name"].startswith("caf\ufffd")


async def test_every_route_but_health_and_ready_waits_for_the_first_scan(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")
    manager.ready.clear()

    assert (await api.ask("GET", "/health")).json["status"] == "ok"
    not_ready = await api.ask("GET", "/ready")
    waiting = [
        asyncio.create_task(api.ask(method, path))
        for method, path in [
            ("GET", "/v1/models"),
            ("GET", "/v1/models/a"),
            ("PUT", "/v1/models/a/stop"),
            ("GET", "/v1/problems"),
            ("POST", "/v1/rescan"),
            ("GET", "/version"),
            ("GET", "/openapi.json"),
        ]
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.2)

    assert (not_ready.status, not_ready.error["code"], not_ready.headers["Retry-After"]) == (503, "not-ready", "1")
    assert not done
    manager.ready.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
    assert (await api.ask("GET", "/ready")).json == {"status": "ready"}


async def test_version_names_ours_and_the_facts_given(api: ServedApi) -> None:
    import jand

    assert (await api.ask("GET", "/version")).json == {"version": jand.__version__, "python": "3"}


async def test_a_head_request_gets_the_headers_alone(api: ServedApi) -> None:
    answer = await api.ask("HEAD", "/health")

    assert (answer.status, answer.body) == (200, b"")


async def test_a_second_list_of_many_models_costs_next_to_nothing(api: ServedApi, manager: FakeManager) -> None:
    """A record is written once: 1,000 models are listed in well under 10 ms on the server once they were listed before."""
    for number in range(1_000):
        manager.add(f"model-{number}", details={"architecture": "llama", "context_length": 4096})
    await api.ask("GET", "/v1/models")

    async def seconds() -> float:
        began = time.perf_counter()
        answer = await api.ask("GET", "/v1/models")
        took = time.perf_counter() - began
        assert len(json.loads(answer.body)["data"]) == 1_000
        return took

    median = statistics.median([await seconds() for _ in range(7)])
    manager.change("model-5", paused=True)

    assert median < 0.05
    assert (await api.ask("GET", "/v1/models")).json["data"][5]["paused"] is True


async def test_a_long_first_list_lets_others_have_a_turn(api: ServedApi, manager: FakeManager) -> None:
    for number in range(2_000):
        manager.add(f"model-{number}")
    slowest = 0.0

    async def watch() -> None:
        nonlocal slowest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            slowest = max(slowest, time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    answer = await api.ask("GET", "/v1/models")
    whole = time.perf_counter() - began
    watching.cancel()

    assert len(answer.json["data"]) == 2_000
    assert slowest < whole / 3
