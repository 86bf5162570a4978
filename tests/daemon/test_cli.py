"""Verbs of the command line against the API with an in-memory manager, which does what a real one does only now and then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING

import pytest

from jand.errors import ModelDownloadingError, StartError
from jand.model.problem import ErrorNote
from jand.model.record import FileRecord, Progress, PublicState, Transition
from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager, Kept
from tests.fakes.shell import JAND, Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def shell(manager: FakeManager) -> AsyncIterator[Shell]:
    async with ServedApi(manager) as api:
        yield Shell(api.socket)


async def test_a_slow_start_on_a_terminal_draws_how_far_it_is(manager: FakeManager, shell: Shell) -> None:
    manager.add("big")
    manager.hold.clear()
    seen = bytearray()
    running = asyncio.create_task(asyncio.to_thread(shell.on_terminal, "start", "big", shown=seen))
    await until(lambda: manager.asked)
    manager.change("big", transition=Transition.STARTING, details={"load_progress": 0.42})
    await until(lambda: b"42%" in seen, 10, what="the bar")
    manager.change("big", transition=None, details={"memory": 123_000_000})
    manager.hold.set()

    status, shown = await running

    assert status == 0
    assert "loading big" in shown
    assert "42%" in shown
    assert "big is running" in shown.splitlines()[-1]
    assert "123 MB" in shown.splitlines()[-1]


async def test_a_slow_start_without_a_terminal_draws_nothing(manager: FakeManager, shell: Shell) -> None:
    manager.add("big")
    manager.hold.clear()
    running = asyncio.create_task(shell("start", "big"))
    await until(lambda: manager.asked)
    asyncio.get_running_loop().call_later(1.5, manager.hold.set)

    ended = await running

    assert (ended.stdout.count("\n"), ended.stderr) == (1, "")


async def test_ctrl_c_ends_the_waiting_and_not_the_start(manager: FakeManager, shell: Shell) -> None:
    manager.add("big")
    manager.hold.clear()
    process = subprocess.Popen(
        [*JAND, "start", "big"], env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    await until(lambda: manager.asked, what="the start to be asked for")
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.to_thread(process.communicate, timeout=10)

    assert process.returncode == 130
    assert "Traceback" not in err
    manager.hold.set()


async def test_overrides_are_sent_as_json_where_they_are_json(manager: FakeManager, shell: Shell) -> None:
    manager.add("m")

    await shell("start", "m", "--init", "ctx_len=4096", "--init", "pre_prompt=a = b", "--init", "embedding=true")

    assert manager.asked[0].arguments["init_overrides"] == {"ctx_len": 4096, "pre_prompt": "a = b", "embedding": True}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StartError('cannot start "m": the worker was killed by SIGKILL', hint="free memory"), 1),
        (ModelDownloadingError('cannot start "m": it is downloading', retry_after_s=5), 75),
    ],
)
async def test_what_keeps_a_model_from_starting_is_told_with_its_own_status(
    manager: FakeManager, shell: Shell, error: StartError, status: int
) -> None:
    manager.add("m")
    manager.refuse("start", error)

    ended = await shell("start", "m", status=status)

    assert ended.stderr.splitlines()[0] == f"jand: {error.message}"
    assert ended.stdout == ""


async def test_what_goes_on_and_what_is_wrong_stands_in_the_list(manager: FakeManager, shell: Shell) -> None:
    gone = ErrorNote("hub-not-found", "cannot find the repository", "look at origin")
    file = FileRecord("w.gguf", 2_000_000, present=False)
    manager.add("a", state=PublicState.DOWNLOADING, progress=Progress(500_000, 2_000_000), files=(file,))
    manager.add("b", state=PublicState.DOWNLOADING, error=gone)

    lines = (await shell("list")).stdout.splitlines()

    assert lines[1].split() == ["a", "downloading", "(25%)", "2.0", "MB"]
    assert lines[2].split(maxsplit=3) == ["b", "downloading", "-", "hub-not-found: cannot find the repository"]
    shown = (await shell("show", "b")).stdout
    assert "look at origin" in shown


async def test_a_deletion_says_what_it_left_and_why(manager: FakeManager, shell: Shell) -> None:
    manager.add("m")
    manager.kept = (Kept("shared.gguf", "other-model uses it"),)

    assert (await shell("delete", "m", "-y")).stdout == "m is deleted\nkept shared.gguf: other-model uses it\n"


async def test_a_problem_has_the_shape_that_editors_jump_to(manager: FakeManager, shell: Shell) -> None:
    manager.complain("models/x.json", line=3, column=7, hint="put one there")

    assert (await shell("problems")).stdout == (
        "models/x.json:3:7: error: expected a comma [bad-json]\n    hint: put one there\n"
    )


async def test_names_that_a_terminal_would_obey_come_escaped(manager: FakeManager, shell: Shell) -> None:
    manager.add("\x1b[31mred")

    for verb in (("list",), ("show", "\x1b[31mred"), ("stop", "\x1b[31mred")):
        assert "\x1b" not in (await shell(*verb)).stdout
    assert json.loads((await shell("list", "--json")).stdout)["data"][0]["id"] == "\x1b[31mred"


async def test_a_reader_that_goes_away_ends_the_verb_quietly(manager: FakeManager, shell: Shell) -> None:
    for number in range(300):
        manager.add(f"model-{number}")
    reader, writer = os.pipe()
    os.close(reader)
    ended = await asyncio.to_thread(
        subprocess.run, [*JAND, "list"], env=shell.environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)

    assert ended.returncode != 0
    assert b"Traceback" not in ended.stderr


def completed(shell: Shell, line: str, **variables: str) -> list[str]:
    """Return what bash is offered after *line*."""
    words = line.split(" ")
    ended = subprocess.run(
        list(JAND),
        env={
            **shell.environment,
            "_JAND_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stderr == ""
    return ended.stdout.split()


async def test_the_shell_completes_verbs_ids_and_states(manager: FakeManager, shell: Shell) -> None:
    for name in ("zephyr-7b", "zeta", "llava"):
        manager.add(name)

    assert await asyncio.to_thread(completed, shell, "jand star") == ["start"]
    assert sorted(await asyncio.to_thread(completed, shell, "jand start ze")) == ["zephyr-7b", "zeta"]
    assert await asyncio.to_thread(completed, shell, "jand list --state run") == ["running"]


async def test_completion_is_silent_without_a_daemon_and_takes_the_socket_that_was_typed(
    manager: FakeManager, shell: Shell
) -> None:
    manager.add("zephyr-7b")
    line = f"jand start --socket {shell.environment['JAND_SOCKET']} "

    assert await asyncio.to_thread(completed, shell, "jand start ze", JAND_SOCKET="/nowhere/jand.sock") == []
    assert await asyncio.to_thread(completed, shell, line, JAND_SOCKET="/nowhere/jand.sock") == ["zephyr-7b"]


async def test_a_watched_list_shows_each_change_until_ctrl_c(manager: FakeManager, shell: Shell) -> None:
    manager.add("first")
    process = subprocess.Popen(
        [*JAND, "list", "--watch"], env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    shown = await asyncio.to_thread(_read_table, process.stdout)
    manager.add("second")
    grown = await asyncio.to_thread(_read_table, process.stdout)
    manager.change("second", details={"memory": 123_000_000})
    heavy = await asyncio.to_thread(_read_table, process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.to_thread(process.communicate, timeout=10)

    assert [row.split()[0] for row in shown] == ["ID", "first"]
    assert [row.split()[0] for row in grown] == ["ID", "first", "second"]
    assert "123 MB of memory" in heavy[2]
    assert (process.returncode, err) == (130, "")


def _read_table(stream: IO[str]) -> list[str]:
    return list(iter(lambda: stream.readline().rstrip(), ""))
