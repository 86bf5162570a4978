"""`jand serve --detach`: what python-daemon leaves open is settled, and the terminal learns how it went."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jand.errors import SettingsError
from jand.service.detach import check_allowed
from tests.fakes import gguf_files
from tests.fakes.detached import Detached
from tests.fakes.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(60)

REMOTE = {"origin": "http://127.0.0.1:9/v1", "import_format": "openai"}
UNAVAILABLE = 69
SETTINGS = 78


@pytest.fixture
def detached(tmp_path: Path) -> Iterator[Detached]:
    with Detached(tmp_path / "root") as found:
        yield found


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events_of(path: Path) -> list[str]:
    return [line["event"] for line in lines_of(path)] if path.exists() else []


async def drop(detached: Detached, name: str) -> None:
    """Drop a JSON and wait until it is listed: the watcher's threads and the loop live."""
    (detached.root / "models").mkdir(parents=True, exist_ok=True)
    (detached.root / "models" / f"{name}.json").write_text(json.dumps(REMOTE))
    async with detached.client() as client:

        async def listed() -> bool:
            return name in [model["id"] for model in await client.list_models()]

        await until(listed, 5, what="the model to be listed")


@dataclass(frozen=True, slots=True)
class Caller:
    """A daemon that was started by a caller with odd habits: umask 0, a limit for cores, a file open under a high number."""

    detached: Detached
    prompt: str
    held: Path
    pid_file: Path


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    scratch = tmp_path_factory.mktemp("caller")
    held, pid_file = scratch / "held", scratch / "run.pid"
    held.write_text("x")
    models = scratch / "root" / "models"
    models.mkdir(parents=True)
    gguf_files.tiny_llama(models / "tiny.gguf")
    (models / "tiny.json").write_text(json.dumps({"origin": "a/b"}))
    cores = resource.getrlimit(resource.RLIMIT_CORE)[1]
    high = min(60_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1)
    with Detached(scratch / "root") as detached, held.open() as file:
        os.dup2(file.fileno(), high)
        try:
            ended = detached.serve(
                "--pid-file",
                str(pid_file),
                umask=0,
                pass_fds=(file.fileno(), high),
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (4096, cores)),
            )
        finally:
            os.close(high)
        yield Caller(detached, ended.stdout, held, pid_file)


async def test_the_prompt_comes_back_when_it_serves_and_what_is_dropped_is_seen(caller: Caller) -> None:
    async with caller.detached.client() as client:
        assert (await client.ready())["status"] == "ready"
    assert f"pid {caller.detached.pid}" in caller.prompt
    assert str(caller.detached.socket) in caller.prompt
    assert str(caller.detached.log) in caller.prompt
    await drop(caller.detached, "late")


async def test_a_worker_starts_below_it(caller: Caller) -> None:
    """Nothing of llama.cpp may have been there before the forks; the worker's bond to its parent is made after them."""
    async with caller.detached.client() as client:
        assert (await client.start("tiny"))["state"] == "running"
        assert (await client.stop("tiny"))["state"] == "downloaded"


def test_it_belongs_to_no_terminal_and_keeps_no_directory(caller: Caller) -> None:
    process = caller.detached.process

    assert process.terminal() is None
    assert os.getsid(process.pid) not in {os.getsid(0), process.pid}, "a session leader could get a terminal again"
    assert process.cwd() == "/"
    assert process.ppid() != os.getpid()


def test_limits_of_the_caller_stay(caller: Caller) -> None:
    if sys.platform == "linux":
        assert caller.detached.process.rlimit(psutil.RLIMIT_CORE)[0] == 4096


def test_others_cannot_write_what_it_makes_whatever_the_umask(caller: Caller) -> None:
    own = caller.detached.log.parent
    made = [own, *own.rglob("*"), caller.pid_file]

    assert caller.detached.log in made
    assert [str(path) for path in made if path.stat().st_mode & (stat.S_IWOTH | stat.S_IWGRP)] == []


def test_nothing_that_the_caller_had_open_stays_open(caller: Caller) -> None:
    """python-daemon goes by a limit that it froze at import and stops at 2048 where there is none."""
    assert str(caller.held) not in [file.path for file in caller.detached.process.open_files()]


def test_standard_streams_lead_to_the_log(caller: Caller) -> None:
    """What python or a library says outside of logging would else be lost in /dev/null."""
    log = caller.detached.log
    if sys.platform == "linux":
        streams = [str(Path(f"/proc/{caller.detached.pid}/fd/{number}").readlink()) for number in range(3)]
        assert streams == [os.devnull, str(log), str(log)]
    assert {"listening", "first scan done"} <= set(events_of(log))


async def test_a_second_one_is_refused_at_the_terminal_and_the_first_unharmed(caller: Caller) -> None:
    detached = caller.detached
    first = detached.pid
    ended = await asyncio.to_thread(detached.serve, status=UNAVAILABLE)

    assert f"pid {first}" in ended.stderr
    assert ended.stdout == ""
    assert detached.pid == first
    await drop(detached, "still")


def test_a_pid_file_of_ones_own_is_written_and_locked(caller: Caller, tmp_path: Path) -> None:
    assert caller.pid_file.read_text() == f"{caller.detached.pid}\n"
    with Detached(tmp_path / "other") as other:
        ended = other.serve("--pid-file", str(caller.pid_file), status=UNAVAILABLE)

    assert str(caller.pid_file) in ended.stderr
    assert f"pid {caller.detached.pid}" in ended.stderr


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "deleted"])
async def test_a_log_that_was_moved_away_is_begun_anew(caller: Caller, moved: bool) -> None:
    log = caller.detached.log
    if moved:
        log.rename(log.with_suffix(".old"))
    else:
        log.unlink()
    caller.detached.process.send_signal(signal.SIGHUP)

    await until(lambda: events_of(log), what="a line in a new log")
    assert "listening" not in events_of(log)
    if sys.platform == "linux":
        assert str(Path(f"/proc/{caller.detached.pid}/fd/2").readlink()) == str(log)
    await drop(caller.detached, f"after-{moved}".lower())


@pytest.mark.parametrize("stdin", ["closed", "socket"])
def test_it_detaches_whatever_its_standard_input_is(detached: Detached, stdin: str) -> None:
    """python-daemon's own guess takes a socket for inetd and does not detach; without any it breaks."""
    if stdin == "closed":
        detached.serve(before=("/bin/sh", "-c", 'exec "$0" "$@" <&-'))
    else:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            detached.serve(stdin=theirs)

    assert os.getsid(detached.pid) != os.getsid(0)


def test_what_a_killed_one_left_is_no_hindrance_and_sigterm_ends_it_in_order(detached: Detached) -> None:
    detached.serve()
    first = detached.process
    first.kill()
    first.wait(5)
    assert detached.pid_file.read_text() == f"{first.pid}\n"
    assert detached.socket.exists()
    detached.serve()
    second = detached.process
    assert second.pid != first.pid
    second.terminate()
    second.wait(5)

    assert events_of(detached.log)[-2:] == ["stopping", "stopped"]
    assert not detached.socket.exists()
    assert detached.pid_file.read_text() == ""


def test_why_it_does_not_start_is_said_at_the_terminal(detached: Detached, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = detached.serve("--socket", str(tmp_path / "file" / "jand.sock"), status=UNAVAILABLE)

    assert ended.stderr.splitlines()[0].startswith("jand: cannot listen on")
    assert "Traceback" not in ended.stderr


def test_a_log_that_cannot_be_written_is_said_before_anything_is_done(detached: Detached, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = detached.serve("--log-file", str(tmp_path / "file" / "log"), status=SETTINGS)

    assert "cannot write the log" in ended.stderr
    assert not detached.root.exists()


def test_one_that_dies_before_it_is_ready_is_not_reported_as_serving(detached: Detached) -> None:
    """The signal comes while it waits for the first scan, which a FIFO in the place of jand's own directory cannot be: it is killed as soon as it has written its pid."""
    began = subprocess.Popen(
        [*detached.command, *detached.flags()],
        env=detached.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_sync(lambda: detached.pid_file.exists() and detached.pid_file.read_text(), 10, what="a pid")
    detached.process.kill()
    out, err = began.communicate(timeout=10)

    if began.returncode == 0:
        assert "serving" in out, "it was ready before the kill came"
    else:
        assert began.returncode == 70
        assert "it ended before it was ready" in err
        assert str(detached.log) in err


async def test_the_log_rotates_at_its_size(detached: Detached) -> None:
    await asyncio.to_thread(detached.serve, "--log-max-bytes", "4096", "--log-keep", "2")
    async with detached.client() as client:
        for _ in range(60):
            await client.rescan()

    def names() -> list[str]:
        return sorted(path.name for path in detached.log.parent.glob("jand.log*"))

    # It goes on writing, and between two renames one is missing.
    await until(lambda: names() == ["jand.log", "jand.log.1", "jand.log.2"], what="three logs")
    assert all(path.stat().st_size <= 4096 for path in detached.log.parent.glob("jand.log*"))
    assert all(lines_of(path) for path in detached.log.parent.glob("jand.log*")), "whole lines alone"


@pytest.mark.parametrize("environ", [{"NOTIFY_SOCKET": "/run/x"}, {}], ids=["notify", "exec"])
def test_it_refuses_below_systemd(detached: Detached, environ: dict[str, str]) -> None:
    before = () if environ else ("/bin/sh", "-c", 'SYSTEMD_EXEC_PID=$$ exec "$0" "$@"')
    ended = detached.serve(status=SETTINGS, environ=environ, before=before)

    assert "cannot detach: systemd started this process" in ended.stderr
    assert not detached.root.exists()


def test_a_terminal_that_systemd_started_is_no_hindrance(detached: Detached) -> None:
    detached.serve(environ={"INVOCATION_ID": "0" * 32, "SYSTEMD_EXEC_PID": "1"})


def test_launchd_is_known_by_its_name_for_the_job() -> None:
    job = {"XPC_SERVICE_NAME": "ai.jan.jand"}
    with pytest.raises(SettingsError, match="launchd started this process"):
        check_allowed(job, pid=9, parent=1, platform="darwin")
    check_allowed(job, pid=9, parent=80, platform="darwin")
    check_allowed({"XPC_SERVICE_NAME": "0"}, pid=9, parent=1, platform="darwin")
    check_allowed(job, pid=9, parent=1, platform="linux")
