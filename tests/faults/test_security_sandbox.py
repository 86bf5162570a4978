"""What a model that has taken over its worker can still do: as good as nothing. The same function that confines workers confines the program that tries it here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jand.engine import sandbox
from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from jand.engine.sandbox import landlock, seccomp
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, user
from tests.fakes.daemon import DaemonProcess
from tests.fakes.models_tree import ModelsTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def attempt(weights: Path) -> Callable[..., dict[str, Any]]:
    """Return what has a confined program try things, and answers what came of each."""

    def run(*tries: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.fakes.confined", str(weights), *tries]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    return run


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def of(answers: dict[str, Any], tries: list[str]) -> set[str]:
    return {answers[name] for name in tries}


def test_this_machine_can_show_it() -> None:
    """The other tests would prove nothing on a kernel without these."""
    assert landlock.find_version() >= 1
    assert seccomp.is_available()
    assert sandbox.MISSING not in sandbox.available().values()


def test_what_is_said_to_be_in_force_is_what_was_promised(attempt: Callable[..., dict[str, Any]]) -> None:
    assert attempt()["sandbox"] == sandbox.available()


def test_no_address_can_be_reached(attempt: Callable[..., dict[str, Any]], port: int) -> None:
    tries = [f"tcp={port}", f"udp={port}", f"tcp6={port}"]
    assert of(attempt(*tries), tries) == {"EACCES"}


def test_no_socket_of_another_program_can_be_reached(attempt: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """The daemon's own among them, and those of containers, of the desktop, of the journal."""
    stream, datagram, abstract = tmp_path / "stream", tmp_path / "datagram", f"jand-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as third,
    ):
        first.bind(str(stream))
        first.listen()
        second.bind("\0" + abstract)
        second.listen()
        third.bind(str(datagram))
        third.setblocking(False)
        tries = [f"unix={stream}", f"abstract={abstract}", f"datagram={datagram}"]
        assert of(attempt(*tries), tries) <= {"EACCES", "EPERM"}
        with pytest.raises(BlockingIOError):
            third.recv(1)


def test_nothing_can_be_written_anywhere(attempt: Callable[..., dict[str, Any]], weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    before = other.stat()
    tries = [f"write={tmp_path / 'new'}", *(f"write={place}/jand-test" for place in ("/tmp", "/dev/shm", Path.home()))]
    tries += [f"{name}={other}" for name in ("write", "append", "truncate", "remove", "rename", "make", "link")]
    tries += [f"{name}={other}" for name in ("chmod", "touch")]
    tries += [f"{name}={weights}" for name in ("write", "append", "truncate", "remove", "rename", "chmod", "touch")]
    answers = attempt(*tries)

    assert {name: answers[name] for name in tries if answers[name] not in {"EACCES", "EPERM"}} == {}
    after = other.stat()
    assert (other.read_text(), weights.read_bytes()) == ("mine", b"GGUF")
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf", "notes.txt"]


def test_only_its_own_files_and_the_systems_can_be_read(
    attempt: Callable[..., dict[str, Any]], weights: Path, tmp_path: Path
) -> None:
    """No neighbour's model, no key, no token, no home."""
    secret = tmp_path / "key"
    secret.write_text("sk-secret")
    link = tmp_path / "link.gguf"
    link.symlink_to(secret)
    forbidden = [
        f"read={secret}",
        f"read={link}",
        f"read-from-thread={secret}",
        f"list={tmp_path}",
        f"list={Path.home()}",
    ]
    forbidden += ["list=/", "read=/etc/shadow"]
    allowed = [f"read={weights}", "read=/proc/cpuinfo", "list=/sys/devices/system/cpu", "list=/usr/lib"]
    answers = attempt(*forbidden, *allowed)

    assert {answers[name] for name in forbidden} == {"EACCES"}
    assert {answers[name] for name in allowed} == {"done"}


def test_no_program_can_be_run_and_no_process_made(attempt: Callable[..., dict[str, Any]]) -> None:
    tries = ["execute=/bin/true", "replace=/bin/true", f"replace={sys.executable}", "memory-program=", "fork="]
    assert of(attempt(*tries), tries) <= {"EACCES", "EPERM"}


def test_the_daemon_cannot_be_signalled_or_looked_into(attempt: Callable[..., dict[str, Any]]) -> None:
    """Its environment holds the keys of providers."""
    tries = [f"kill={os.getpid()}", f"stop={os.getpid()}", f"environment={os.getpid()}"]
    assert of(attempt(*tries), tries) <= {"EACCES", "EPERM"}
    assert psutil.Process().status() != psutil.STATUS_STOPPED


def test_what_an_engine_needs_goes_on(attempt: Callable[..., dict[str, Any]]) -> None:
    tries = ["thread=", "pair=", "random=", "null=", "import=aiohttp", "import=numpy", "import=llama_cpp.llama_cpp"]
    assert of(attempt(*tries), tries) == {"done"}


def test_memory_beyond_the_machines_is_refused_at_once(attempt: Callable[..., dict[str, Any]]) -> None:
    assert attempt("grow-memory=")["grow-memory="] == "ENOMEM"


def test_limits_are_as_told(attempt: Callable[..., dict[str, Any]]) -> None:
    assert attempt()["sandbox"]["limits"] == "rlimits"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_a_real_worker_is_confined_and_answers(tmp_path: Path) -> None:
    """With the template of its GGUF, which a process made before confinement applies."""
    (path,) = gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    started = await Worker.start(WorkerConfig("tiny", (str(path),), str(tmp_path / "w.sock"), init={"ctx_len": 256}))
    try:
        async with Asker(started.socket) as asker:
            assert (await asker.ok(TEXT, prompt="hello", max_tokens=3))["object"] == "text_completion"
            assert (await asker.ok(CHAT, messages=user("hello"), max_tokens=3))["object"] == "chat.completion"
        processes = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        threads = [thread.id for process in processes for thread in process.threads()]
        limits = Path(f"/proc/{started.pid}/limits").read_text()
        confined = [status_of(thread) for thread in threads]
    finally:
        await started.stop(grace_s=5)

    assert started.details["sandbox"] == sandbox.available()
    assert len(processes) == 3  # itself, who makes renderers, the renderer
    assert len(threads) > len(processes)
    assert {(facts["Seccomp"], facts["NoNewPrivs"]) for facts in confined} == {("2", "1")}
    assert {facts["CapEff"].lstrip("0") for facts in confined} <= {"", "4"}
    assert "Max core file size        0                    0" in limits


async def test_the_sandbox_can_be_turned_off_and_status_says_so(tmp_path: Path) -> None:
    tree = ModelsTree(tmp_path / "models")
    tree.spec("m/m.json", download_url="m.gguf")
    gguf_files.tiny_llama(tree.at("m/m.gguf"))
    async with DaemonProcess(tmp_path, environ={"JAND_SANDBOX": "false"}) as daemon:
        await daemon.until_state("m", "downloaded")
        await daemon.call("PUT", "/v1/models/m/start", {"parameters": {"init": {"ctx_len": 64}}})
        model = await daemon.call("GET", "/v1/models/m")
        health = await daemon.call("GET", "/health")
        (worker, *_) = daemon.workers()

        assert model["details"]["sandbox"] == health["details"]["sandbox"] == sandbox.switched_off()
        assert status_of(worker.pid)["Seccomp"] == "0"
