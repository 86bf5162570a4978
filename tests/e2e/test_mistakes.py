"""Usual mistakes: each ends in one sentence that says what and why, a hint that solves it, and an exit status of its kind; never in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB, gguf_bytes
from tests.fakes.shell import JAND, Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]
TINY = "TheBloke/tiny-GGUF"
AS_NOBODY = """
import contextlib, io, os, sys
from jand.cli.program import run
with contextlib.redirect_stderr(io.StringIO()):
    run(["list", "--socket", "/dev/null"])  # everything is imported while its files can be read
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
else:
    os.chmod(sys.argv[1], 0)
sys.exit(run(["list"]))
"""


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    """Run a daemon with one whole model, one that waits for a binary that nobody has, and a hub with one repository."""
    async with FakeHub() as hub:
        hub.add(TINY, {f"tiny.{name}.gguf": gguf_bytes(MIB, 1) for name in ("Q2_K", "Q4_K_M", "Q8_0")})
        for name in ("small", "waiting"):
            (tmp_path / "models" / name).mkdir(parents=True)
        gguf_files.bare_header(tmp_path / "models" / "small" / "small.gguf", size=12_345)
        (tmp_path / "models" / "small" / "small.json").write_text('{"origin": "tests/tiny"}')
        (tmp_path / "models" / "waiting" / "waiting.json").write_text(
            json.dumps({"origin": "tests/waiting", "download_url": "/nowhere/waiting.gguf"})
        )
        environ = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "JAND_DOWNLOAD__MIN_FREE": "0"}
        async with DaemonProcess(tmp_path, "--settle", "0.1", "--no-reuse", environ=environ) as daemon:
            yield Shell(daemon.socket)


WITH_A_DAEMON = {
    "a verb with a typo": ("strat small", 2, "no such command 'strat'", "--help"),
    "an option with a typo": ("list --stat running", 2, "no such option: --stat", "--help"),
    "an id with a typo": ("start smal", 66, 'cannot find model "smal"', "small"),
    "a state that is none": ("list --state runing", 65, "runing", "running"),
    "an override without a value": ("start small --init ctx_len", 2, "expected NAME=VALUE", "--help"),
    "an override that does not exist": ("start small --init ctx_length=5", 65, "ctx_length", "ctx_len"),
    "a model whose binary is missing": ("start waiting", 75, "waiting.gguf", "put"),
    "a copy onto an id that is taken": ("copy small waiting", 73, "waiting", "another"),
    "a repository that does not exist": ("pull nobody/nothing-GGUF", 1, "nobody/nothing-GGUF", "correct the origin"),
    "a quantisation that it does not have": (f"pull {TINY}:Q9_X", 1, "Q9_X", "Q4_K_M"),
    "a catalogue id that does not exist": ("pull zefyr", 66, "zefyr", "jand catalog"),
    "a path that does not exist": ("add /nowhere/model.gguf", 66, "/nowhere/model.gguf", "path"),
    "a folder that does not exist": ("check /nowhere", 66, "/nowhere", "folder"),
    "deleting from a script without saying so": ("delete small", 2, "delete", "--yes"),
}


async def test_mistakes_at_verbs(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html><html>not found</html>")
    page = {"a web page in place of a model": (f"add {tmp_path / 'page.gguf'}", 65, "web page", "download")}
    for line, status, about, hint in (WITH_A_DAEMON | page).values():
        _judge(await shell(*line.split(), status=status), about, hint)
    # And one in a file, which is told by line and column.
    (tmp_path / "models" / "comma.json").write_text('{"origin": "a/b"\n"download_url": "c.gguf"}')

    async def is_told() -> bool:
        return "comma.json" in (await shell("problems")).stdout

    await until(is_told, 10)
    told = (await shell("problems")).stdout

    assert "models/comma.json:1:17" in told
    assert "expected a comma" in told


def _judge(ended: subprocess.CompletedProcess[str], about: str, hint: str) -> None:
    lines = ended.stderr.splitlines()
    assert len(lines) == 2, ended.stderr
    assert lines[0].startswith("jand: ")
    assert about in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in ended.stderr


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jand-test-") as folder:
        yield Path(folder)


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*JAND, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "160", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_no_daemon(short: Path) -> None:
    ended = run("list", JAND_SOCKET=str(short / "none.sock"))

    assert ended.returncode == 69
    _judge(ended, "cannot reach the daemon", "jand serve")


def test_a_socket_of_somebody_else(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(short / "s.sock"))
        foreign.listen()
        (short / "s.sock").chmod(0o600)
        short.chmod(0o755)
        # Root may connect to everything, so it is somebody else who tries, with the modules that he may read.
        ended = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(short / "s.sock")],
            env={**os.environ, "JAND_SOCKET": str(short / "s.sock")},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 69
    _judge(ended, "no permission", "socket_mode")


SETTINGS = {
    "an unknown key": ("rescna = 5", "rescna", "rescan"),
    "a value that is no number": ('settle = "soon"', "settle", "jand.toml"),
    "no TOML": ("settle 5", "jand.toml", "line"),
}


@pytest.mark.parametrize("mistake", SETTINGS)
def test_a_mistake_in_the_settings(short: Path, mistake: str) -> None:
    text, about, hint = SETTINGS[mistake]
    (short / "jand.toml").write_text(text)
    ended = run("serve", "--root", short, "--socket", short / "s")

    assert ended.returncode == 78
    assert about in ended.stderr
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr


SERVING = {
    "a root that cannot be made": (["--root", "/proc/nowhere"], "/proc/nowhere", "--root"),
    "open to the network without a token": (["--listen", "0.0.0.0:0"], "token", "token"),
    "a socket path that is too long": (["--socket", f"/tmp/{'long' * 40}/s.sock"], "long", "--socket"),
}


@pytest.mark.parametrize("mistake", SERVING)
def test_a_mistake_at_serve(short: Path, mistake: str) -> None:
    flags, about, hint = SERVING[mistake]
    ended = run("serve", "--root", short, "--socket", short / "s", *flags)

    assert ended.returncode != 0
    assert about in ended.stderr
    assert hint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken(short: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("serve", "--root", short, "--socket", short / "s", "--listen", address)

    assert ended.returncode != 0
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr


def _installing(folder: Path, path: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the installation in a copy of the project's outermost files, with *path* as PATH."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return subprocess.run(
        ["/bin/sh", str(folder / ".ci" / "install")],
        env={"PATH": path, "HOME": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _tools(folder: Path, *names: str) -> str:
    (folder / "bin").mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "rm", "uname", "mktemp", "awk", *names):
        found = shutil.which(name)
        assert found is not None, name
        (folder / "bin" / name).symlink_to(found)
    return str(folder / "bin")


def test_installing_without_a_compiler_says_so_before_anything_is_downloaded(tmp_path: Path) -> None:
    path = _tools(tmp_path)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    ended = _installing(tmp_path, path)

    assert ended.returncode == 1
    _judge(ended, "no C++ compiler", "apt install g++")
    assert not (tmp_path / ".venv").exists()


def test_installing_without_a_new_enough_python(tmp_path: Path) -> None:
    ended = _installing(tmp_path, _tools(tmp_path))

    assert ended.returncode == 1
    _judge(ended, "Python 3.11 or newer", "PYTHON=")
