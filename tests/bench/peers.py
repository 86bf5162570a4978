"""The servers beside which the engine is measured: built or installed once into a cache, and started as child processes.

llama-server comes from the source of llama.cpp that llama-cpp-python's own source package carries, with ggml's flags as `.ci/install` sets them for jand;
`llama_cpp.server` runs on jand's own build of llama.cpp, only what it needs beside is installed; `xllamacpp` is the wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jand-bench"
XLLAMACPP: Final = "xllamacpp==2026.10.11549"
SERVER_EXTRAS: Final = (
    "uvicorn==0.54.0",
    "fastapi==0.165.0",
    "pydantic-settings==2.16.3",
    "sse-starlette==3.7.0",
    "starlette-context==0.3.6",
    "PyYAML==6.0.4",
)
"""What `llama-cpp-python[server]` adds."""
PORTABLE: Final = tuple(
    f"-DGGML_{name}"
    for name in (
        "NATIVE=OFF",
        *(("AVX=ON", "AVX2=ON", "FMA=ON", "F16C=ON", "BMI2=ON") if os.uname().machine == "x86_64" else ()),
    )
)
SERVER_ONLY: Final = tuple(
    f"-D{name}"
    for name in (
        *("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF"),
        *("LLAMA_BUILD_APP=OFF", "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF"),
    )
)
"""The last three keep the build from fetching a web page and from needing a TLS library."""
START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens: the path of a socket, or a port of this machine. *model* is what its requests must name."""

    name: str
    path: str = ""
    port: int = 0
    model: str = "model"
    pid: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.path:
            return await asyncio.open_unix_connection(self.path, limit=1 << 24)
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)

    def call(self) -> socket.socket:
        """Return a connection that blocks."""
        if not self.path:
            return socket.create_connection(("127.0.0.1", self.port), 5)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(5)
        connection.connect(self.path)
        return connection


@dataclass(frozen=True, slots=True)
class Load:
    """What a server is started with; *ctx_len* is what each of *parallel* conversations gets."""

    weights: Path
    threads: int = 2
    parallel: int = 8
    ctx_len: int = 4096


def build_llama_server(cache: Path = CACHE) -> Path:
    """Return the program, built at the first call: about 6 minutes on two cores."""
    release = version("llama-cpp-python")
    folder = cache / f"llama-server-{release}"
    program = folder / "build" / "bin" / "llama-server"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = _unpack_source(folder, release)
        print(f"building llama-server {release} into {folder}: some minutes, once", flush=True)
        with (folder / "build.log").open("wb") as log:
            tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            configure = [
                "cmake",
                "-G",
                "Ninja",
                "-S",
                str(source),
                "-B",
                str(folder / "build"),
                *SERVER_ONLY,
                *PORTABLE,
            ]
            build = ["cmake", "--build", str(folder / "build"), "--target", "llama-server"]
            for command in (configure, build):
                subprocess.run(command, check=True, stdout=log, stderr=log, env=tools)
    return program


def _unpack_source(folder: Path, release: str) -> Path:
    source = folder / "source"
    if not source.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            wanted = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", f"llama-cpp-python=={release}"]
            _pip(sys.executable, "download", *wanted, "-d", scratch)
            (packed,) = Path(scratch).glob("*.tar.gz")
            with tarfile.open(packed) as archive:
                archive.extractall(scratch, filter="data")
            (vendored,) = Path(scratch).glob("*/vendor/llama.cpp")
            vendored.rename(source)
    return source


def install_xllamacpp(cache: Path = CACHE) -> Path:
    """Return the Python that has it."""
    return environment(cache / XLLAMACPP.replace("==", "-"), [XLLAMACPP])


def install_llama_cpp_server(cache: Path = CACHE) -> Path:
    """Return a Python that has what `llama_cpp.server` needs, and jand's own llama_cpp after that."""
    return environment(
        cache / f"llama_cpp.server-{version('llama-cpp-python')}", SERVER_EXTRAS, sysconfig.get_path("purelib")
    )


def environment(folder: Path, packages: Sequence[str], beside: str = "") -> Path:
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {' '.join(packages)} into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _pip(python, "install", *packages)
        if beside:
            (site,) = folder.glob("lib/python*/site-packages")
            (site / "beside.pth").write_text(f"{beside}\n")
        (folder / "ready").touch()
    return python


def _pip(python: Path | str, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments], check=True)


@contextlib.contextmanager
def llama_server(load: Load, cache: Path = CACHE, *more: str) -> Iterator[Place]:
    """Run it on a socket, as jand's daemon is asked."""
    with tempfile.TemporaryDirectory(prefix="jand-bench-") as scratch:
        path = f"{scratch}/llama-server.sock"
        command = [
            str(build_llama_server(cache)),
            *("-m", str(load.weights)),
            *("-c", str(load.ctx_len * load.parallel)),
        ]
        command += [*("-np", str(load.parallel)), *("-t", str(load.threads)), *("-tb", str(load.threads))]
        with _running(
            [*command, *("--host", path), *("--offline", "--no-ui"), *more], Path(scratch) / "log"
        ) as process:
            place = Place("llama-server", path=path, pid=process.pid)
            _wait(place, process)
            yield place


XLLAMACPP_CHILD: Final = """
import sys, xllamacpp
weights, threads, parallel, ctx_len, port = sys.argv[1], *map(int, sys.argv[2:])
wanted = xllamacpp.CommonParams()
wanted.model.path, wanted.port, wanted.n_parallel, wanted.n_ctx = weights, port, parallel, parallel * ctx_len
wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = threads
server = xllamacpp.Server(wanted)
sys.stdin.read()
"""


@contextlib.contextmanager
def xllamacpp(load: Load, cache: Path = CACHE) -> Iterator[Place]:
    port = _free_port()
    numbers = [str(number) for number in (load.threads, load.parallel, load.ctx_len, port)]
    command = [str(install_xllamacpp(cache)), "-c", XLLAMACPP_CHILD, str(load.weights), *numbers]
    with (
        tempfile.TemporaryDirectory(prefix="jand-bench-") as scratch,
        _running(command, Path(scratch) / "log") as process,
    ):
        place = Place("xllamacpp", port=port, pid=process.pid)
        _wait(place, process)
        yield place


@contextlib.contextmanager
def llama_cpp_server(load: Load, cache: Path = CACHE) -> Iterator[Place]:
    """Run it with the context of one conversation: it has one at a time."""
    port = _free_port()
    command = [str(install_llama_cpp_server(cache)), "-m", "llama_cpp.server", "--model", str(load.weights)]
    command += ["--n_ctx", str(load.ctx_len), "--n_threads", str(load.threads), "--n_threads_batch", str(load.threads)]
    # Else each new request cuts off the answer of the one before.
    command += ["--port", str(port), "--interrupt_requests", "false"]
    with (
        tempfile.TemporaryDirectory(prefix="jand-bench-") as scratch,
        _running(command, Path(scratch) / "log") as process,
    ):
        place = Place("llama_cpp.server", port=port, pid=process.pid)
        _wait(place, process, path="/v1/models")
        yield place


@contextlib.contextmanager
def _running(command: Sequence[str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        yield process
    except BaseException:
        sys.stderr.write(log_path.read_text(errors="replace")[-4000:])
        raise
    finally:
        process.kill()
        process.communicate()


def end_in_order() -> None:
    """Let SIGTERM, as `timeout` sends it, end this process as Ctrl-C does: what it has started ends with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(place: Place, process: subprocess.Popen[bytes], path: str = "/health") -> None:
    """Wait until it answers *path* with 200."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{place.name} ended with {process.returncode}")
        with contextlib.suppress(OSError), place.call() as connection:
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
            if connection.recv(64).split()[1:2] == [b"200"]:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{place.name} does not answer")
