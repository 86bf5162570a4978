"""`parameters.init` on a real daemon with a real worker: what cannot be used is refused by name before anything is loaded, what is in force is said, defaults included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from jand.engine.worker.options import usable_processors
from tests.fakes import tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    root = tmp_path_factory.mktemp("janroot")
    tiny_models.install(root / "models", "tiny")
    async with DaemonProcess(root) as running:
        await running.until_state("tiny", "downloaded")
        yield running


BAD: list[tuple[dict[str, Any], str]] = [
    ({"n_batch": 10**9}, "n_batch"),
    ({"n_batch": 0}, "n_batch"),
    ({"ctx_len": 2**31 - 1}, "ctx_len"),
    ({"ctx_len": -1}, "ctx_len"),
    ({"n_parallel": 257}, "n_parallel"),
    ({"n_threads": 513}, "n_threads"),
    ({"n_threads_batch": 0}, "n_threads_batch"),
    ({"ngl": -2}, "ngl"),
    ({"ngl": 2**31 - 1}, "ngl"),
    ({"tensor_split": [1, -1]}, "tensor_split"),
    ({"tensor_split": "3,-1"}, "tensor_split"),
    ({"cache_type_k": "q9"}, "cache_type_k"),
    ({"cache_type_v": "q8_0", "flash_attn": False}, "cache_type_v"),
    ({"embedding": "perhaps"}, "embedding"),
]


@pytest.mark.parametrize(("init", "name"), BAD, ids=[str(init) for init, _ in BAD])
async def test_override_that_cannot_be_used_is_a_400_that_names_it(
    daemon: DaemonProcess, init: dict[str, Any], name: str
) -> None:
    answer = await daemon.call("PUT", "/v1/models/tiny/start", {"parameters": {"init": init}}, status=400)
    assert answer["error"]["param"].startswith(f"parameters.init.{name}")
    assert name in answer["error"]["message"]
    assert not daemon.workers()


async def test_same_values_in_a_json_are_a_problem_with_their_place(daemon: DaemonProcess) -> None:
    folders = [tiny_models.install(daemon.models, f"bad{number}", init=init) for number, (init, _) in enumerate(BAD)]

    async def told() -> dict[str, Any] | None:
        problems = (await daemon.call("GET", "/v1/problems"))["data"]
        by_path = {problem["path"]: problem for problem in problems}
        return by_path if len(by_path) >= len(BAD) else None

    problems = await until(told, 10, what="a problem for each JSON")
    assert problems is not None
    for folder, (_, name) in zip(folders, BAD, strict=True):
        problem = problems[f"models/{folder.name}/{folder.name}.json"]
        assert name in problem["message"]
        assert problem["line"] == 1


async def test_start_tells_all_that_is_in_force(daemon: DaemonProcess) -> None:
    overrides = {"ctx_len": 300, "n_threads": 400, "ngl": 5, "tensor_split": [3, 1], "n_batch": 4096}
    answer = await daemon.call("PUT", "/v1/models/tiny/start", {"parameters": {"init": overrides}})
    init = answer["model_parameters"]["init"]
    assert init == {
        "ctx_len": 300,
        "n_parallel": 2,
        "ngl": 0,
        "embedding": False,
        "n_threads": 400,
        "n_threads_batch": 400,
        "n_batch": 1024,
        "flash_attn": "auto",
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "tensor_split": [3, 1],
    }
    model = await daemon.find("tiny")
    assert model is not None
    warned = " / ".join(model["details"]["warnings"])
    for said in (
        "ngl has no effect",
        "tensor_split has no effect",
        "n_threads 400 is more than",
        "n_batch 4096 is 1024",
    ):
        assert said in warned
    assert warned.count("n_threads_batch") == 0, "it was not given"
    warnings = len(model["details"]["warnings"])
    assert len(await daemon.told("model runs with a reservation", warnings)) == warnings
    await daemon.call("PUT", "/v1/models/tiny/stop")


async def test_defaults_are_told_too_and_nothing_is_warned_of(daemon: DaemonProcess) -> None:
    answer = await daemon.call("PUT", "/v1/models/tiny/start")
    init = answer["model_parameters"]["init"]
    assert (init["ctx_len"], init["n_parallel"], init["n_threads"]) == (512, 2, usable_processors())
    model = await daemon.find("tiny")
    assert model is not None
    assert model["details"]["warnings"] == []
    await daemon.call("PUT", "/v1/models/tiny/stop")
