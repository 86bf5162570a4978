"""`jand bench` as a person or a script uses it, on a real daemon with the real model; what it measures is held to be possible, not to be fast."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.fakes import gguf_files, tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import JAND, Shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    models = tmp_path_factory.mktemp("janroot") / "models"
    (models / "smollm2").mkdir(parents=True)
    spec = {"origin": "tests/smollm2", "parameters": {"init": {"ctx_len": 512, "n_parallel": 3}}}
    (models / "smollm2" / "smollm2.json").write_text(json.dumps(spec))
    (models / "smollm2" / "weights.gguf").symlink_to(gguf_files.smollm2())
    tiny_models.install(models, "tiny", init={"ctx_len": 256})
    async with DaemonProcess(models.parent) as running:
        for name in ("smollm2", "tiny"):
            await running.until_state(name, "downloaded", 20)
        yield running


async def test_real_model_is_measured_and_stopped_again(daemon: DaemonProcess) -> None:
    measures = ("--prompt", "40", "--tokens", "5", "--rounds", "1")
    found: dict[str, Any] = await Shell(daemon.socket).json("bench", "smollm2", *measures)
    assert found["id"] == "smollm2"
    assert found["was_running"] is False
    assert 0 < found["load_s"] < 100
    assert found["memory"] > 50_000_000
    assert 30 <= found["prompt_tokens"] <= 60
    assert [level["streams"] for level in found["streams"]] == [1, 2, 3]
    for level in found["streams"]:
        assert level["first_token_s"] > 0
        assert level["prompt_per_second"] > 0
        assert level["all_per_second"] > 0
        assert level["each_per_second"] > 0
    assert await daemon.state("smollm2") == "downloaded"
    assert not daemon.workers()


async def test_running_model_goes_on_running_and_a_person_sees_a_table(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/tiny/start")
    # Prompt and answer are cut to the context of 256 tokens.
    done = await Shell(daemon.socket)("bench", "tiny", "--rounds", "2", "--prompt", "5000")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tiny: loaded in ")
    assert "answers of 64, medians of 2" in lines[1]
    assert " ".join(lines[3].split()) == "STREAMS PROMPT TOKENS/S FIRST TOKEN TOKENS/S EACH TOKENS/S ALL"
    assert [line.split()[0] for line in lines[4:]] == ["1", "2"]
    assert await daemon.state("tiny") == "running"
    await daemon.call("PUT", "/v1/models/tiny/stop")


async def test_interrupted_it_puts_the_model_back(daemon: DaemonProcess) -> None:
    bench = subprocess.Popen(
        [*JAND, "bench", "tiny", "--rounds", "100", "--socket", str(daemon.socket)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    await daemon.until_state("tiny", "running", 30)
    bench.send_signal(signal.SIGINT)
    await asyncio.to_thread(bench.communicate, None, 30)
    assert bench.returncode == 130
    await daemon.until_state("tiny", "downloaded", 20)


async def test_unknown_model_is_no_traceback(daemon: DaemonProcess) -> None:
    done = await Shell(daemon.socket)("bench", "nobody", status=66)
    assert done.stderr.startswith("jand: ")
    assert "nobody" in done.stderr
