"""Models of a real daemon over their lives: idle ones stop, what ran comes back, what fails says why, and nothing that changes on the disk cuts an answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jand.lifecycle.policy import CRASHES_IN_LOOP
from tests.fakes import gguf_files, tiny_models
from tests.fakes.completing import LONG, complete, long_answer, read_to_its_end
from tests.fakes.daemon import DaemonProcess
from tests.fakes.metrics import read_metrics
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


async def pid_of(daemon: DaemonProcess, model: str) -> int:
    found = await daemon.find(model)
    assert found is not None
    return int(found["details"]["pid"])


# -- idle -------------------------------------------------------------------------------------------------------------


async def test_an_idle_model_stops_when_request_json_or_setting_say_in_this_order(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "plain")
    tiny_models.install(tmp_path / "models", "own", metadata={"keep_alive": -1})
    async with DaemonProcess(tmp_path, "--keep-alive", "0.3") as daemon:
        await complete(daemon, "own")
        await complete(daemon, "plain")
        await daemon.until_state("plain", "downloaded")
        assert await daemon.state("own") == "running"
        await complete(daemon, "plain", keep_alive="1h")
        await complete(daemon, "own", keep_alive=0.5)
        await daemon.until_state("own", "downloaded")
        assert await daemon.state("plain") == "running"
        # What a request asked for holds until the next one.
        await complete(daemon, "plain")
        await daemon.until_state("plain", "downloaded")
        assert daemon.workers() == []
        told = await daemon.told("worker")
        metrics = await read_metrics(daemon)

    assert not [event for event in told if "keep_alive" in event["line"]]
    assert metrics["jand_requests_total", frozenset({("model", "plain"), ("status", "200")})] == 3
    assert metrics["jand_load_seconds_count", frozenset({("model", "plain")})] == 2
    predicted = metrics["jand_tokens_predicted_total", frozenset({("model", "plain")})]
    assert predicted > 0
    # One conversation has at most what three answers and their prompts have together.
    assert 1 < metrics["jand_n_tokens_max", frozenset({("model", "plain")})] <= predicted + 3 * 64


async def test_idle_time_begins_when_the_last_answer_ends(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "a", init=LONG, metadata={"keep_alive": 0})
    async with DaemonProcess(tmp_path) as daemon:
        async with long_answer(daemon, "a") as response:
            await complete(daemon, "a")
            assert await daemon.state("a") == "running"
            await read_to_its_end(response)
        await daemon.until_state("a", "downloaded")


# -- a daemon's end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_what_ran_and_what_says_so_starts_with_the_daemon(tmp_path: Path, how: signal.Signals) -> None:
    tiny_models.install(tmp_path / "models", "says-so", metadata={"autostart": True})
    for name in ("ran", "stopped", "never"):
        tiny_models.install(tmp_path / "models", name)
    async with DaemonProcess(tmp_path) as daemon:
        await daemon.until_state("says-so", "running")
        await daemon.call("PUT", "/v1/models/ran/start")
        await daemon.call("PUT", "/v1/models/stopped/start")
        await daemon.call("PUT", "/v1/models/stopped/stop")
        workers = daemon.workers()
        daemon.signal(how)
        await daemon.wait()
        await until(lambda: not any(worker.is_running() for worker in workers), what="the workers to end")
        daemon.spawn()
        await daemon.ready()
        await daemon.until_state("says-so", "running")
        await daemon.until_state("ran", "running")
        states = {name: await daemon.state(name) for name in ("stopped", "never")}

    assert states == {"stopped": "downloaded", "never": "downloaded"}


# -- one from another -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["original", "custom"])
async def test_a_copy_runs_beside_its_original_and_deleting_either_leaves_the_other_whole(
    tmp_path: Path, first: str
) -> None:
    """It shares the binary, has parameters of its own, and of the two it does not matter which one goes first."""
    folder = tiny_models.install(tmp_path / "models", "original", runtime={"max_tokens": 4})
    binary = (folder / "original.gguf").read_bytes()
    async with DaemonProcess(tmp_path) as daemon:
        wanted = {"id": "custom", "parameters": {"init": {"ctx_len": 1024}, "runtime": {"max_tokens": 9}}}
        await daemon.call("POST", "/v1/models/original/copy", wanted, status=201)
        await daemon.until_state("custom", "downloaded")

        async def tokens(model: str) -> int:
            return int((await complete(daemon, model, max_tokens=None))["usage"]["completion_tokens"])

        assert (await tokens("original"), await tokens("custom")) == (4, 9)
        models = await daemon.models_by_id("?state=running")
        assert {name: models[name]["details"]["context"] for name in models} == {"original": 512, "custom": 1024}
        other = "custom" if first == "original" else "original"
        await daemon.call("DELETE", f"/v1/models/{first}")
        # What still runs goes on, and what is left starts anew from its files.
        left = await tokens(other)
        await daemon.call("PUT", f"/v1/models/{other}/stop")
        assert await tokens(other) == left
        found = await daemon.find(other)
        assert found is not None
        assert [file["present"] for file in found["files"]] == [True]
        there = [path.read_bytes() for path in (tmp_path / "models").rglob("*.gguf")]
        await daemon.call("DELETE", f"/v1/models/{other}")
        assert list((tmp_path / "models").rglob("*.gguf")) == []

    assert there == [binary]


# -- what cannot be ---------------------------------------------------------------------------------------------------


async def test_no_room_says_what_is_needed_what_is_free_and_what_holds_it(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "holder", metadata={"pinned": True})
    tiny_models.install(tmp_path / "models", "other")
    tiny_models.install(tmp_path / "models", "giant", init={"ctx_len": 2048, "n_parallel": 256})
    budget = 600_000_000
    async with DaemonProcess(tmp_path, "--memory-budget", str(budget)) as daemon:
        await daemon.call("PUT", "/v1/models/holder/start")
        body = {"model": "other", "prompt": "a"}
        async with daemon.session.post("http://jand/v1/completions", json=body) as response:
            answer = await response.json()
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
        giant = await daemon.call("PUT", "/v1/models/giant/start", status=503)
        found = await daemon.find("other")
        assert await daemon.state("holder") == "running"
        # Whoever holds it goes, and the other runs.
        await daemon.call("PUT", "/v1/models/holder/stop")
        await complete(daemon, "other")

    message = answer["error"]["message"]
    assert answer["error"]["code"] == giant["error"]["code"] == "no-room"
    number = r"[\d.]+ [GM]B"
    needed = (
        rf'cannot start "other": it needs {number}, and of {number} only {number} can be had, holder may not be stopped'
    )
    assert re.match(needed, message), message
    assert "giant" in giant["error"]["message"]
    assert found is not None
    assert found["error"]["code"] == "no-room"


async def test_a_crash_loop_is_told_and_ends_with_a_start_by_a_person(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "a")
    async with DaemonProcess(tmp_path) as daemon:
        for _ in range(CRASHES_IN_LOOP):
            await complete(daemon, "a")
            os.kill(await pid_of(daemon, "a"), signal.SIGKILL)
            await daemon.until_state("a", "downloaded")
        found = await daemon.find("a")
        assert found is not None
        assert found["error"]["code"] == "crash-loop"
        assert "SIGKILL" in found["error"]["message"]
        refused = await daemon.call("POST", "/v1/completions", {"model": "a", "prompt": "a"}, status=503)
        assert refused["error"]["code"] == "crash-loop"
        assert daemon.workers() == []
        await daemon.call("PUT", "/v1/models/a/start")
        await complete(daemon, "a")
        cured = await daemon.find("a")
        metrics = await read_metrics(daemon)

    assert cured is not None
    assert cured["error"] is None
    of_a = frozenset({("model", "a")})
    assert metrics["jand_worker_deaths_total", of_a] == CRASHES_IN_LOOP
    assert metrics["jand_worker_restarts_total", of_a] == CRASHES_IN_LOOP


async def test_more_than_a_queue_holds_is_429_with_a_time_to_come_back(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "a")
    body = {"model": "a", "prompt": "a b c", "max_tokens": 10, "ignore_eos": True, "n": 32}
    async with DaemonProcess(tmp_path) as daemon:
        await daemon.call("PUT", "/v1/models/a/start")

        async def ask() -> tuple[int, str | None, Any]:
            async with daemon.session.post("http://jand/v1/completions", json=body) as response:
                return response.status, response.headers.get("Retry-After"), await response.json()

        answers = await asyncio.gather(*(ask() for _ in range(16)))
        await complete(daemon, "a")

    answered = [answer for status, _, answer in answers if status == 200]
    refused = [(retry_after, answer) for status, retry_after, answer in answers if status == 429]
    assert len(answered) + len(refused) == 16
    assert all(len(answer["choices"]) == 32 for answer in answered)
    assert len(answered) >= 8
    assert refused
    for retry_after, answer in refused:
        assert answer["error"]["code"] == "queue-full"
        assert int(retry_after or 0) >= 1


# -- the disk under a running model -----------------------------------------------------------------------------------


async def test_an_edited_json_counts_at_once_or_asks_for_a_restart(tmp_path: Path) -> None:
    folder = tiny_models.install(tmp_path / "models", "a", runtime={"max_tokens": 3})
    async with DaemonProcess(tmp_path) as daemon:
        await daemon.call("PUT", "/v1/models/a/start")
        pid = await pid_of(daemon, "a")

        async def tokens() -> int:
            return int((await complete(daemon, "a", max_tokens=None))["usage"]["completion_tokens"])

        async def restart_needed() -> bool:
            found = await daemon.find("a")
            assert found is not None
            return bool(found["restart_needed"])

        assert await tokens() == 3
        tiny_models.write_spec(folder / "a.json", runtime={"max_tokens": 7})

        async def is_in_force() -> bool:
            return await tokens() == 7

        await until(is_in_force, what="the new default")
        assert not await restart_needed()
        tiny_models.write_spec(folder / "a.json", runtime={"max_tokens": 7}, init={"ctx_len": 256})
        await until(restart_needed, what="restart_needed")
        found = await daemon.find("a")
        assert found is not None
        assert (found["state"], found["details"]["pid"], found["details"]["context"]) == ("running", pid, 512)
        assert await tokens() == 7
        await daemon.call("PUT", "/v1/models/a/stop")
        await daemon.call("PUT", "/v1/models/a/start")
        found = await daemon.find("a")

    assert found is not None
    assert found["details"]["context"] == 256
    assert not found["restart_needed"]


async def test_a_binary_that_is_replaced_goes_on_until_it_is_started_anew(tmp_path: Path) -> None:
    folder = tiny_models.install(tmp_path / "models", "a", init=LONG)
    replacement = tmp_path / "other.gguf"
    gguf_files.tiny_llama(replacement, context_length=2048, seed=1)
    async with DaemonProcess(tmp_path) as daemon:
        before = (await complete(daemon, "a", max_tokens=30))["choices"][0]["text"]
        pid = await pid_of(daemon, "a")
        async with long_answer(daemon, "a") as response:
            replacement.rename(folder / "a.gguf")
            await daemon.call("POST", "/v1/rescan")
            assert (await complete(daemon, "a", max_tokens=30))["choices"][0]["text"] == before
            await read_to_its_end(response)
        assert await pid_of(daemon, "a") == pid
        await daemon.call("PUT", "/v1/models/a/stop")
        after = (await complete(daemon, "a", max_tokens=30))["choices"][0]["text"]

    assert after != before


@pytest.mark.parametrize("change", ["renamed", "removed"])
async def test_a_folder_that_goes_lets_running_answers_end(tmp_path: Path, change: str) -> None:
    folder = tiny_models.install(tmp_path / "models", "a", init=LONG)
    target = (tmp_path / "models" if change == "renamed" else tmp_path) / "elsewhere"
    async with DaemonProcess(tmp_path) as daemon:
        async with long_answer(daemon, "a") as response:
            worker = psutil.Process(await pid_of(daemon, "a"))
            folder.rename(target)

            async def is_noticed() -> bool:
                found = await daemon.find("a")
                return found is None or found["path"] == "models/elsewhere/a.json"

            await until(is_noticed, what="the rename to be noticed")
            assert (await daemon.call("GET", "/health"))["details"]["in_flight"] == 1
            assert worker.is_running()
            await read_to_its_end(response)
        await until(lambda: not worker.is_running(), what="the worker to leave")
        if change == "renamed":
            assert await daemon.state("a") == "downloaded"
            await complete(daemon, "a")
        else:
            await daemon.call("GET", "/v1/models/a", status=404)
        noted = json.loads((tmp_path / ".jand" / "state.json").read_bytes())["ran"]

    assert "models/a/a.json" not in noted
