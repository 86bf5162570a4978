"""A worker's life from the daemon's side, against the fake worker executable: every way in which it can go wrong ends in a sentence and an empty process table."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import aiohttp
import psutil
import pytest

from jand.engine.process import Worker, start_with_protection
from jand.engine.protocol import WorkerConfig
from jand.errors import StartError, WorkerDiedError
from tests.fakes import worker as fake
from tests.fakes.waiting import until, until_sync

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path) -> WorkerConfig:
    return WorkerConfig(model_id="zephyr-7b", weights=("/nowhere.gguf",), socket=str(tmp_path / "w.sock"))


class Notes(dict[str, object]):
    def set(self, key: str, value: object) -> None:
        self[key] = value


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


async def ask(worker: Worker, path: str = "/v1/chat/completions", **body: object) -> dict[str, object]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(worker.socket))) as session,
        session.post(f"http://worker{path}", json=body) as response,
    ):
        answer: dict[str, object] = await response.json()
        return answer


async def test_start_returns_a_worker_that_answers(config: WorkerConfig) -> None:
    progress: list[float] = []
    worker = await Worker.start(config, command=fake.command(), on_progress=progress.append)
    answer = await ask(worker)
    assert answer["model"] == "zephyr-7b"
    assert worker.details["slots"] == 1
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert worker.memory() > 1 << 20
    note = await worker.stop(grace_s=5)
    assert (note.code, note.expected) == (0, True)
    assert gone(worker.pid)
    assert worker.memory() == 0
    assert not worker.socket.exists()


async def test_worker_has_its_own_process_group_and_no_secrets(config: WorkerConfig) -> None:
    environ = {
        **os.environ,
        "HF_TOKEN": "hf_x",
        "OPENAI_API_KEY": "sk-x",
        "JAND_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
    }
    worker = await Worker.start(config, command=fake.command(), environ=environ)
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)
    passed = psutil.Process(worker.pid).environ()
    assert not {"HF_TOKEN", "OPENAI_API_KEY", "JAND_TOKEN", "AWS_SECRET_ACCESS_KEY"} & passed.keys()
    assert passed["GGML_NO_BACKTRACE"] == "1"
    await worker.stop(grace_s=5)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
async def test_worker_asks_for_large_pages_unless_the_user_chose(
    config: WorkerConfig, given: str | None, passed_on: str
) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    worker = await Worker.start(
        config, command=fake.command(), environ=environ | ({"GLIBC_TUNABLES": given} if given else {})
    )
    assert psutil.Process(worker.pid).environ()["GLIBC_TUNABLES"] == passed_on
    await worker.stop(grace_s=5)


async def test_log_lines_reach_the_callback_and_the_error(config: WorkerConfig) -> None:
    lines: list[str] = []
    command = fake.command(
        "--log", "loading the model", "--log", "error: tensor blk.0 is missing", "--die", "load", "--status", "3"
    )
    with pytest.raises(
        WorkerDiedError,
        match=r'cannot start "zephyr-7b": the worker ended with status 3 \(error: tensor blk.0 is missing\)',
    ) as caught:
        await Worker.start(config, command=command, on_log=lambda line, _level: lines.append(line))
    assert "loading the model" in lines
    assert "error: tensor blk.0 is missing" in caught.value.facts["log"]  # type: ignore[operator]


async def test_reported_failure_is_the_start_error(config: WorkerConfig) -> None:
    with pytest.raises(StartError, match='cannot start "zephyr-7b": the file is no model') as caught:
        await Worker.start(config, command=fake.command("--fail", "the file is no model"))
    assert caught.value.facts["reason"] == "bad-model"
    assert not Path(config.socket).exists()


async def test_death_by_sigkill_names_the_likely_cause(config: WorkerConfig) -> None:
    with pytest.raises(
        WorkerDiedError, match='cannot start "zephyr-7b": the worker was killed by SIGKILL, probably for lack of memory'
    ):
        await Worker.start(config, command=fake.command("--die", "load", "--signal", "SIGKILL"))


async def test_slow_start_is_ended_at_the_timeout(config: WorkerConfig) -> None:
    lines: list[str] = []
    command = fake.command("--hang", "load", "--ignore-sigterm", "--log", "here")
    with pytest.raises(StartError, match=r"it was not ready within 0\.5 s"):
        await Worker.start(config, command=command, start_timeout_s=0.5, on_log=lambda line, _level: lines.append(line))
    assert children() == []


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "worker.py" in " ".join(child.cmdline())]


async def test_cancelled_start_leaves_no_process(config: WorkerConfig) -> None:
    started = asyncio.Event()
    starting = asyncio.create_task(
        Worker.start(config, command=fake.command("--hang", "load"), on_progress=lambda _: started.set())
    )
    await started.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() == []


@pytest.mark.parametrize("yields", [0, 1, 2, 3, 5, 8, 13])
async def test_start_cancelled_at_any_moment_leaves_no_process_and_no_descriptor(
    config: WorkerConfig, yields: int
) -> None:
    before = psutil.Process().num_fds()
    starting = asyncio.create_task(Worker.start(config, command=fake.command()))
    for _ in range(yields):
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: children() == [], what="no child")
    await until(lambda: psutil.Process().num_fds() <= before, what="descriptors closed")


async def test_program_that_is_not_there_is_a_start_error(config: WorkerConfig) -> None:
    with pytest.raises(StartError, match="No such file"):
        await Worker.start(config, command=("/nonexistent/python",))


async def test_too_long_socket_path_is_refused_before_anything_starts(config: WorkerConfig, tmp_path: Path) -> None:
    long = WorkerConfig(model_id="m", weights=(), socket=str(tmp_path / ("x" * 120)))
    with pytest.raises(StartError, match="socket is longer than"):
        await Worker.start(long, command=fake.command())


async def test_stop_lets_the_running_answer_end(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command("--tokens", "10", "--pace", "0.03"))
    asking = asyncio.create_task(ask(worker))
    await until(lambda: active(worker), what="the answer to run")
    note = await worker.stop(grace_s=5)
    answer = await asking
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
    assert note.code == 0


async def active(worker: Worker) -> bool:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(worker.socket))) as session,
        session.get("http://worker/health") as response,
    ):
        return bool((await response.json())["active"])


async def test_stop_kills_what_ignores_every_word(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command("--ignore-stop", "--ignore-sigterm"))
    note = await worker.stop(grace_s=0.1)
    assert note.signal == "SIGKILL"
    assert gone(worker.pid)
    assert not worker.socket.exists()


async def test_forced_stop_overtakes_a_patient_one(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command("--tokens", "1000", "--pace", "0.1"))
    asking = asyncio.create_task(ask(worker))
    await until(lambda: active(worker), what="the answer to run")
    patient = asyncio.create_task(worker.stop(grace_s=60))
    await asyncio.sleep(0)
    first, second = await asyncio.gather(patient, worker.stop(grace_s=60, force=True))
    assert first == second
    with pytest.raises(aiohttp.ClientError):
        await asking


async def test_stop_of_a_frozen_worker_ends(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command())
    os.kill(worker.pid, signal.SIGSTOP)
    note = await worker.stop(grace_s=0.1)
    assert note.signal == "SIGKILL"


async def test_death_while_running_is_told_to_whoever_waits(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command("--die", "answer", "--signal", "SIGABRT"))
    with pytest.raises(aiohttp.ClientError):
        await ask(worker)
    note = await worker.wait()
    assert (note.signal, note.expected) == ("SIGABRT", False)
    assert note.message.startswith("the worker was killed by SIGABRT, llama.cpp gave up")
    assert await worker.stop(grace_s=1) == note


async def test_a_frozen_worker_is_found_out_by_its_missing_heartbeats(config: WorkerConfig) -> None:
    worker = await Worker.start(replace(config, heartbeat_s=0.1), command=fake.command())
    living, _ = await asyncio.wait([asyncio.ensure_future(worker.wait())], timeout=1.0)
    assert not living, "it was taken for frozen while it lived"
    os.kill(worker.pid, signal.SIGSTOP)
    note = await worker.wait()

    assert note.message == "the worker gave no sign of life and was killed"
    assert gone(worker.pid)


async def test_a_worker_that_goes_silent_while_it_loads_is_not_waited_for_until_the_start_timeout(
    config: WorkerConfig,
) -> None:
    start = Worker.start(replace(config, heartbeat_s=0.05), command=fake.command("--hang", "load"), start_timeout_s=60)
    with pytest.raises(WorkerDiedError, match=r"gave no sign of life and was killed") as caught:
        async with asyncio.timeout(8):
            await start

    assert caught.value.facts["phase"] == "load"


async def test_an_engine_that_finishes_no_step_is_hung_however_well_its_process_answers(config: WorkerConfig) -> None:
    beat_s = 0.1
    slow = await Worker.start(replace(config, heartbeat_s=beat_s), command=fake.command("--step-age", "17.9"))
    stuck = await Worker.start(
        replace(config, heartbeat_s=beat_s, socket=f"{config.socket}2"), command=fake.command("--step-age", "18.1")
    )
    note = await stuck.wait()
    assert await ask(slow)
    await slow.stop(grace_s=5)

    assert note.message == "the worker gave no sign of life and was killed"


async def test_runtime_defaults_can_be_changed_while_running(config: WorkerConfig) -> None:
    worker = await Worker.start(config, command=fake.command("--tokens", "9"))
    worker.set_runtime({"token_limit": 2})

    async def limited() -> bool:
        return (await ask(worker))["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

    await until(limited)
    await worker.stop(grace_s=5)


async def test_crash_in_the_warm_up_is_retried_without_extra_buffers_and_remembered(config: WorkerConfig) -> None:
    notes = Notes()
    command = fake.command("--die", "warm", "--only-with-extra-bufts")
    worker = await start_with_protection(config, notes, command=command)
    assert list(notes.values()) == [True]
    await worker.stop(grace_s=5)
    again = await start_with_protection(
        config, notes, command=fake.command("--die", "warm", "--only-with-extra-bufts", "--log", "once")
    )
    assert again.last_lines() == ("once",)
    await again.stop(grace_s=5)


async def test_crash_that_the_protection_does_not_cure_is_not_remembered(config: WorkerConfig) -> None:
    notes = Notes()
    with pytest.raises(WorkerDiedError, match="SIGSEGV"):
        await start_with_protection(config, notes, command=fake.command("--die", "warm"))
    assert not notes


async def test_kill_for_lack_of_memory_is_not_retried(config: WorkerConfig) -> None:
    lines: list[str] = []
    command = fake.command("--die", "warm", "--signal", "SIGKILL", "--log", "attempt")
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        await start_with_protection(config, Notes(), command=command, on_log=lambda line, _level: lines.append(line))
    assert lines == ["attempt"]


DAEMON = """
    import asyncio, sys
    from jand.engine.process import Worker
    from jand.engine.protocol import WorkerConfig
    from tests.fakes import worker as fake

    async def main(socket, switches):
        config = WorkerConfig(model_id="m", weights=(), socket=socket)
        def report(_):
            pass
        start = asyncio.create_task(Worker.start(config, command=fake.command(*switches), on_progress=lambda _: print("loading", flush=True)))
        worker = await start
        print("ready", worker.pid, flush=True)
        await worker.wait()

    asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("switches", "word"),
    [((), "ready"), (("--hang", "load", "--ignore-sigterm"), "loading"), (("--ignore-stop",), "ready")],
)
def test_worker_ends_with_a_daemon_that_is_killed(tmp_path: Path, switches: tuple[str, ...], word: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DAEMON), str(tmp_path / "w.sock"), *switches],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    while word not in parent.stdout.readline():
        assert parent.poll() is None
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until_sync(lambda: not workers[0].is_running(), 2.0, what="the worker to end")
