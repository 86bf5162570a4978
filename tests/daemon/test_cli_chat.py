"""`jand chat`: what is asked, what is shown, and what Ctrl-C ends."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Self

import pytest

from jand.errors import StartError
from jand.model.record import PublicState
from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager
from tests.fakes.records import make_spec
from tests.fakes.shell import JAND
from tests.fakes.upstream import DONE, Exchange, FakeUpstream, answer_events, answer_json, chat_chunk
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def manager() -> AsyncIterator[FakeManager]:
    manager = FakeManager()
    manager.add("a", state=PublicState.RUNNING)
    yield manager
    await manager.close()


@pytest.fixture
async def upstream(manager: FakeManager) -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as upstream:
        manager.serve_with(upstream.socket)
        upstream.behave = answer_events([chat_chunk("It is "), chat_chunk("Paris.\n"), DONE])
        yield upstream


@pytest.fixture
async def api(manager: FakeManager, upstream: FakeUpstream) -> AsyncIterator[ServedApi]:
    async with ServedApi(manager) as api:
        yield api


async def chat(api: ServedApi, *arguments: str, typed: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Send *typed* through a pipe."""
    process = await asyncio.create_subprocess_exec(
        *(*JAND, "chat", *arguments),
        env={**os.environ, "JAND_SOCKET": str(api.socket)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate(typed.encode())
    assert process.returncode == status, (out, err)
    return subprocess.CompletedProcess(arguments, status, out.decode(), err.decode())


def messages(upstream: FakeUpstream) -> list[list[tuple[str, str]]]:
    return [[(each["role"], each["content"]) for each in request.json["messages"]] for request in upstream.requests]


class Terminal:
    """`jand chat a` on a terminal of its own: what was typed, what was shown."""

    def __init__(self, api: ServedApi, state: Path, *arguments: str, kind: str = "dumb") -> None:
        self._api = api
        self._arguments = arguments
        self._environment = {"TERM": kind, "XDG_STATE_HOME": str(state), "COLUMNS": "80", "LINES": "40"}
        self.shown = ""

    async def __aenter__(self) -> Self:
        self._here, there = pty.openpty()
        environment = {**os.environ, "JAND_SOCKET": str(self._api.socket), **self._environment}
        command = [*JAND, "chat", "a", *self._arguments]
        self.process = subprocess.Popen(
            command, env=environment, stdin=there, stdout=there, stderr=there, start_new_session=True
        )
        os.close(there)
        asyncio.get_running_loop().add_reader(self._here, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._here)
        self.process.kill()
        self.process.wait()
        os.close(self._here)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._here, 65536).decode()
        except OSError:  # how Linux says that the other side is closed
            asyncio.get_running_loop().remove_reader(self._here)

    def type(self, text: str) -> None:
        os.write(self._here, text.encode())

    def interrupt(self) -> None:
        """Do what a terminal does to its foreground program at Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def shows(self, text: str, times: int = 1) -> None:
        await until(lambda: self.shown.count(text) >= times, 20, what=f"{text!r} in {self.shown!r}")

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 10)


async def test_lines_of_a_pipe_are_questions_and_nothing_but_answers_comes_out(
    api: ServedApi, upstream: FakeUpstream
) -> None:
    ended = await chat(api, "a", "--system", "Be short.", typed="Capital of France?\n\n  \nAnd again?\n")

    assert (ended.stdout, ended.stderr) == ("It is Paris.\nIt is Paris.\n", "")
    beginning = [("system", "Be short."), ("user", "Capital of France?")]
    assert messages(upstream) == [beginning, [*beginning, ("assistant", "It is Paris.\n"), ("user", "And again?")]]
    assert upstream.requests[0].json["stream"] is True


async def test_a_model_that_does_not_run_is_started_first(api: ServedApi, manager: FakeManager) -> None:
    manager.add("b", state=PublicState.DOWNLOADED, aliases=("other",))
    await chat(api, "other", typed="Hello\n")

    assert [(asked.verb, asked.model) for asked in manager.asked if asked.verb in {"start", "use"}] == [
        ("start", "b"),
        ("use", "b"),
    ]


async def test_a_model_that_cannot_be_started_or_is_not_there_is_told_with_its_status(
    api: ServedApi, manager: FakeManager
) -> None:
    manager.add("b")
    manager.refuse("start", StartError('cannot start "b": no memory'))

    assert (await chat(api, "b", typed="Hello\n", status=1)).stderr == 'jand: cannot start "b": no memory\n'
    assert (await chat(api, "none", typed="Hello\n", status=66)).stdout == ""


async def test_an_answer_that_fails_is_told_and_its_question_forgotten(api: ServedApi, upstream: FakeUpstream) -> None:
    error = {"error": {"message": "cannot fit; hint: ask less", "type": "x", "param": None, "code": "bad-request"}}
    upstream.behave = answer_json(error, 400)

    ended = await chat(api, "a", typed="Too long\nToo long\n", status=65)

    assert ended.stderr == "jand: cannot fit\nhint: ask less\n" * 2
    assert messages(upstream) == [[("user", "Too long")]] * 2


async def test_what_a_terminal_would_obey_comes_escaped_and_all_else_as_it_is(
    api: ServedApi, upstream: FakeUpstream
) -> None:
    upstream.behave = answer_events([chat_chunk("a\x1b[31mb\n\tß 👩‍👩 \u202e"), DONE])

    assert (await chat(api, "a", typed="?\n")).stdout == "a\\x1b[31mb\n\tß 👩‍👩 \u202e\n"


async def test_a_json_that_wants_no_stream_shows_the_answer_when_it_is_whole(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add(
        "whole", state=PublicState.RUNNING, spec=make_spec(parameters={"init": {}, "runtime": {"stream": "false"}})
    )
    release = asyncio.Event()

    async def wait_in_the_middle(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        await exchange.send(chat_chunk("half "))
        await release.wait()
        await exchange.send(chat_chunk("whole") + DONE)
        await exchange.end()

    upstream.behave = wait_in_the_middle
    process = await asyncio.create_subprocess_exec(
        *(*JAND, "chat", "whole"),
        env={**os.environ, "JAND_SOCKET": str(api.socket)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"?\n")
    process.stdin.close()
    reading = asyncio.create_task(process.stdout.read(100))
    await until(lambda: upstream.requests, 20)
    done, _ = await asyncio.wait([reading], timeout=0.3)
    assert not done
    release.set()

    assert await reading == b"half whole\n"
    assert await process.wait() == 0


async def test_on_a_terminal_ctrl_c_ends_the_answer_and_ctrl_d_the_conversation(
    api: ServedApi, upstream: FakeUpstream, tmp_path: Path
) -> None:
    async def go_on_for_ever(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        await exchange.send(chat_chunk("Once upon a time"))
        await exchange.wait_left()

    async with Terminal(api, tmp_path) as terminal:
        await terminal.shows("talking to a; /? for help")
        upstream.behave = go_on_for_ever
        terminal.type("A story\n")
        await terminal.shows("Once upon a time")
        terminal.interrupt()
        await until(upstream.exchanges[0].left.is_set, 10, what="the generation to be ended")
        upstream.behave = answer_events([chat_chunk("Paris."), DONE])
        await terminal.shows("> ", 2)
        terminal.type("Capital of France?\n")
        await terminal.shows("Paris.")
        await terminal.shows("> ", 3)
        terminal.interrupt()
        await terminal.shows("> ", 4)
        terminal.type("\x04")
        assert await terminal.ended() == 0

    assert messages(upstream)[1] == [
        ("user", "A story"),
        ("assistant", "Once upon a time"),
        ("user", "Capital of France?"),
    ]
    assert "Traceback" not in terminal.shown


async def test_commands_of_the_conversation(api: ServedApi, upstream: FakeUpstream, tmp_path: Path) -> None:
    async with Terminal(api, tmp_path) as terminal:
        terminal.type("One\n")
        await terminal.shows("Paris.")
        terminal.type("/clear\n")
        await terminal.shows("forgotten")
        terminal.type("/?\n")
        await terminal.shows("end the answer that is being given")
        terminal.type("Two\n")
        await terminal.shows("Paris.", 2)
        terminal.type("/bye\n")
        assert await terminal.ended() == 0

    assert messages(upstream) == [[("user", "One")], [("user", "Two")]]


async def test_system_parameters_and_another_try_can_be_typed(
    api: ServedApi, upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with Terminal(api, tmp_path, "--param", "top_k=5", "--system", "Be short.") as terminal:
        terminal.type("/retry\n")
        await terminal.shows("there is no answer yet")
        terminal.type("/params temperature=0\n")
        await terminal.shows("top_k=5  temperature=0")
        terminal.type("One\n")
        await terminal.shows("Paris.")
        terminal.type("/params top_k=\n")
        await terminal.shows("temperature=0\r\n> ")
        terminal.type("/system Be long.\n")
        await terminal.shows("system: Be long.")
        terminal.type("/params messages=x\n")
        await terminal.shows("expected NAME=VALUE")
        terminal.type("/nonsense\n")
        await terminal.shows("/? lists what can be typed")
        terminal.type("/retry\n")
        await terminal.shows("Paris.", 2)
        terminal.type("/bye\n")
        assert await terminal.ended() == 0

    assert messages(upstream) == [
        [("system", "Be short."), ("user", "One")],
        [("system", "Be long."), ("user", "One")],
    ]
    first, second = (request.json for request in upstream.requests)
    assert (first["temperature"], first["top_k"]) == (0, 5)
    assert (second["temperature"], "top_k" in second) == (0, False)


async def test_pictures_go_with_the_next_question_as_data_of_their_kind(
    api: ServedApi, upstream: FakeUpstream, tmp_path: Path
) -> None:
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (tmp_path / "notes.txt").write_text("no picture")
    async with Terminal(api, tmp_path, "--image", str(tmp_path / "dot.png")) as terminal:
        terminal.type(f"/image {tmp_path / 'notes.txt'}\n")
        await terminal.shows("it is no picture")
        terminal.type(f"/image {tmp_path / 'dot.png'}\n")
        await terminal.shows("it goes with your next question")
        terminal.type("What is it?\n")
        await terminal.shows("Paris.")
        terminal.type("/bye\n")
        assert await terminal.ended() == 0

    (asked,) = upstream.requests[0].json["messages"]
    assert [part["type"] for part in asked["content"]] == ["image_url", "image_url", "text"]
    assert asked["content"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgpyZXN0"
    assert (await chat(api, "a", "--image", str(tmp_path / "none.png"), typed="?\n", status=66)).stdout == ""


async def test_what_was_typed_is_there_in_the_next_conversation_for_its_owner_alone(
    api: ServedApi, upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with Terminal(api, tmp_path) as terminal:
        terminal.type("A question to find again\n")
        await terminal.shows("Paris.")
        terminal.type("\x04")
        assert await terminal.ended() == 0
    async with Terminal(api, tmp_path) as terminal:
        await terminal.shows("> ")
        terminal.type("\x1b[A\n")  # the key with the upward arrow
        await terminal.shows("Paris.")
        terminal.type("\x04")
        assert await terminal.ended() == 0
    kept = tmp_path / "jand" / "chat-history"

    assert [asked[-1] for asked in messages(upstream)] == [("user", "A question to find again")] * 2
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()
    async with Terminal(api, tmp_path, "--no-history") as terminal:
        terminal.type("/bye\n")
        assert await terminal.ended() == 0
    assert not kept.exists()


async def test_on_a_terminal_answers_are_drawn_and_obey_nothing(
    api: ServedApi, upstream: FakeUpstream, tmp_path: Path
) -> None:
    pieces = [
        "# A hea",
        "ding\n\n- one\n- two\n\n```py\nprint(1)\n\nprint(2)\n```\n\n",
        "\x1b]0;owned\x07 **bo",
        "ld** end",
    ]
    thought = b'data: {"choices": [{"delta": {"reasoning_content": "Let me think."}}]}\n\n'
    upstream.behave = answer_events([thought, *map(chat_chunk, pieces), DONE])
    async with Terminal(api, tmp_path, kind="xterm-256color") as terminal:
        terminal.type("Draw\n")
        await terminal.shows("end")
        await terminal.shows("> ", 2)
        terminal.type("\x04")
        assert await terminal.ended() == 0

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown)
    # Each frame erases its line before the next one is drawn; what stays is what was printed once, at the beginning of a line or after an erased one.
    assert len(re.findall(r"(?:^|\n|\x1b\[2K)[^\n\r]*bold[^\n\r]*end *\r\n", terminal.shown)) == 1
    assert "Let me think." in text
    assert " • one" in text
    assert "print(2)" in text
    assert "\x1b[1mbold\x1b[0m" in terminal.shown
    assert "\x1b]0;owned" not in terminal.shown
    assert "# A heading" not in text
