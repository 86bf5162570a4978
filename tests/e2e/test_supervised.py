"""The daemon below a service manager: what it says of itself, sockets that it is handed, reload, dump, stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import psutil
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.notify import NotifySocket
from tests.fakes.shell import Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.timeout(60)

SETTINGS = 78
WATCHDOG_S = 0.9


@pytest.fixture
def manager() -> Iterator[NotifySocket]:
    with NotifySocket() as found:
        yield found


@pytest.fixture
async def daemon(tmp_path: Path, manager: NotifySocket) -> AsyncIterator[DaemonProcess]:
    (tmp_path / "models").mkdir()
    gguf_files.tiny_llama(tmp_path / "models" / "tiny.gguf")
    (tmp_path / "models" / "tiny.json").write_text(json.dumps({"origin": "a/b"}))
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
    async with DaemonProcess(tmp_path, "--log-level", "info", environ=environ) as process:
        yield process


def lines(daemon: DaemonProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in daemon.log_events() if line["event"] == event]


async def test_from_start_to_stop_it_says_what_it_does(daemon: DaemonProcess, manager: NotifySocket) -> None:
    ready = await manager.until("READY", "1")
    assert manager.told[0]["STATUS"] == "scanning the models"
    await manager.until("STATUS", "1 model", after=ready)
    assert all("READY" not in fields for fields in manager.told[:ready])
    extended = manager.fields("EXTEND_TIMEOUT_USEC")
    assert extended
    assert all(int(microseconds) >= 10_000_000 for microseconds in extended)

    await daemon.call("PUT", "/v1/models/tiny/start")
    await manager.until("STATUS", "1 model, 1 running", after=ready)
    daemon.signal(signal.SIGTERM)
    assert await daemon.wait() == 0
    assert manager.fields("STOPPING") == ["1"]
    assert manager.fields("READY") == ["1"]


async def test_the_watchdog_is_fed_in_time_and_not_by_a_daemon_that_hangs(
    daemon: DaemonProcess, manager: NotifySocket
) -> None:
    await manager.until("READY", "1")
    at = []
    seen = len(manager.told)
    for _ in range(6):
        seen = await manager.until("WATCHDOG", "1", after=seen) + 1
        at.append(time.monotonic())
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert sorted(gaps)[len(gaps) // 2] < WATCHDOG_S / 2

    daemon.signal(signal.SIGSTOP)
    stopped_at = len(manager.told)
    with pytest.raises(AssertionError):
        await manager.until("WATCHDOG", "1", after=stopped_at + 1, timeout_s=2 * WATCHDOG_S)
    daemon.signal(signal.SIGCONT)
    await manager.until("WATCHDOG", "1", after=stopped_at + 1)


async def test_sighup_reads_the_settings_again_and_says_when_that_is_done(
    daemon: DaemonProcess, manager: NotifySocket
) -> None:
    ready = await manager.until("READY", "1")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    (daemon.root / "jand.toml").write_text('keep_alive = 7\nlisten = "127.0.0.1:0"\nlog_level = "debug"\n')
    daemon.signal(signal.SIGHUP)
    reloading = await manager.until("RELOADING", "1", after=ready + 1)
    done = await manager.until("READY", "1", after=reloading)

    assert (
        before <= int(manager.told[reloading]["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    )
    assert done > reloading
    await until(lambda: lines(daemon, "scanned"), what="the scan that follows")
    applied = {line["key"]: (line["before"], line["after"]) for line in lines(daemon, "setting applied")}
    assert applied == {"keep_alive": (300.0, 7.0)}, "flags go over the file, so log_level stays"
    assert [line["key"] for line in lines(daemon, "setting needs a restart")] == ["listen"]


async def test_a_file_that_cannot_be_used_changes_nothing_and_is_named(
    daemon: DaemonProcess, manager: NotifySocket
) -> None:
    ready = await manager.until("READY", "1")
    (daemon.root / "jand.toml").write_text("keep_alive = 7\nrescan = soon\n")
    daemon.signal(signal.SIGHUP)
    await manager.until("READY", "1", after=ready + 1)
    (line,) = await until(lambda: lines(daemon, "settings not read again"))
    assert "jand.toml, line 2" in line["reason"]
    assert line["level"] == "error"

    shell = Shell(daemon.socket)
    ended = await shell("reload", status=SETTINGS)
    assert "jand.toml, line 2" in ended.stderr
    assert "the old settings stay in force" in ended.stderr
    (daemon.root / "jand.toml").write_text("keep_alive = 7\n")
    assert (await shell.json("reload"))["applied"] == [{"key": "keep_alive", "before": 300.0, "after": 7.0}]
    assert (await shell("reload")).stdout == "nothing has changed\n"


async def test_what_is_applied_counts_at_once(daemon: DaemonProcess) -> None:
    toml = daemon.root / "jand.toml"
    toml.write_text("start_on_request = false\n")
    await daemon.call("POST", "/v1/reload")
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
    refused = await daemon.call("POST", "/v1/chat/completions", asked, status=409)
    assert refused["error"]["code"] == "model-not-running"

    toml.write_text("memory_budget = 1\n")
    await daemon.call("POST", "/v1/reload")
    refused = await daemon.call("POST", "/v1/chat/completions", asked, status=503)
    assert refused["error"]["code"] == "no-room"

    toml.write_text("keep_alive = 0\n")
    await daemon.call("POST", "/v1/reload")
    await daemon.call("POST", "/v1/chat/completions", asked)
    await daemon.until_state("tiny", "downloaded")


def make_certificate(directory: Path, name: str) -> None:
    """Put a self-made certificate of *name* where the daemon's is."""
    subject = ("-subj", f"/CN={name}", "-days", "2", "-nodes")
    where = ("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *subject, *where]
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.mark.needs("openssl")
async def test_certificate_token_and_hosts_are_renewed_without_a_restart(tmp_path: Path) -> None:
    """As whoever renews certificates does: the same files, then SIGHUP."""
    make_certificate(tmp_path, "first")
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("the-first-token\n")
    flags = ("--listen", "127.0.0.1:0", "--token-file", str(token), "--log-level", "info")
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    async with DaemonProcess(tmp_path / "root", *flags, *tls) as daemon:
        (listening,) = await until(lambda: lines(daemon, "listening"))
        port = int(listening["on"][-1].rpartition(":")[2])

        async def shown() -> str:
            return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))

        async def status(given: str, host: str) -> int:
            headers = {"Authorization": f"Bearer {given}", "Host": f"{host}:{port}"}
            async with aiohttp.ClientSession() as session:
                answer = await session.get(f"https://127.0.0.1:{port}/v1/models", headers=headers, ssl=False)
                return answer.status

        first = await shown()
        assert first == (tmp_path / "cert.pem").read_text()
        assert [await status("the-first-token", host) for host in ("localhost", "box.lan")] == [200, 403]

        make_certificate(tmp_path, "second")
        token.write_text("the-second-token\n")
        (daemon.root / "jand.toml").write_text('hosts = ["box.lan"]\n')
        await daemon.call("POST", "/v1/reload")
        assert await shown() == (tmp_path / "cert.pem").read_text() != first
        assert [await status(given, "box.lan") for given in ("the-first-token", "the-second-token")] == [401, 200]

        (tmp_path / "key.pem").write_text("no key\n")
        refused = await daemon.call("POST", "/v1/reload", status=409)
        assert "cannot use the certificate" in refused["error"]["message"]
        token.write_text("")
        assert (await daemon.call("POST", "/v1/reload", status=409))["error"]["code"] == "bad-setting"
        assert await status("the-second-token", "box.lan") == 200
        assert "second-token" not in daemon.log()


async def test_a_storm_of_sighups_is_a_few_reloads(daemon: DaemonProcess, manager: NotifySocket) -> None:
    await manager.until("READY", "1")
    for _ in range(300):
        daemon.signal(signal.SIGHUP)
        await asyncio.sleep(0)
    (daemon.root / "jand.toml").write_text("keep_alive = 9\n")
    daemon.signal(signal.SIGHUP)

    await until(lambda: lines(daemon, "setting applied"), what="the last one")
    process = psutil.Process(daemon.pid)
    descriptors, threads = process.num_fds(), process.num_threads()
    for _ in range(100):
        await daemon.call("POST", "/v1/reload")
    assert process.num_fds() <= descriptors + 1
    assert process.num_threads() <= threads + 1
    assert len(lines(daemon, "settings read again")) < 300
    assert (await daemon.call("GET", "/health"))["status"] == "ok"


async def test_sigusr1_writes_what_goes_on_into_the_log(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/tiny/start")
    daemon.signal(signal.SIGUSR1)
    await until(lambda: lines(daemon, "dump thread"), what="the dump")

    (head,) = lines(daemon, "dump")
    assert head["models"] == {"running": 1}
    assert head["watch"] == {"models": "events"}
    (model,) = lines(daemon, "dump model")
    assert (model["model"], model["state"], model["in_flight"]) == ("tiny", "running", 0)
    tasks = {line["task"]: line["at"] for line in lines(daemon, "dump task")}
    assert "watch of models" in tasks
    assert all(":" in at for name, at in tasks.items() if name == "manager")
    assert {"MainThread", "log"} <= {line["thread"] for line in lines(daemon, "dump thread")}


# -- where the other end is not as it should be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notify", "listen_pid", "count"),
    [("nobody", "1", "1"), ("no socket", "self", "zero"), ("abstract", "", "1")],
)
async def test_what_is_not_meant_for_us_or_cannot_be_told_is_no_reason_not_to_serve(
    tmp_path: Path, notify: str, listen_pid: str, count: str
) -> None:
    """A service manager that went away; and LISTEN_FDS of a parent that forgot to unset it: what is under number 3 is somebody else's."""
    (tmp_path / "file").write_text("")
    addresses = {"nobody": str(tmp_path / "nobody"), "no socket": str(tmp_path / "file")}
    with NotifySocket(abstract=True) as abstract:
        environ = {"NOTIFY_SOCKET": addresses.get(notify, abstract.address), "WATCHDOG_USEC": "600000"}
        environ |= {"LISTEN_PID": listen_pid, "LISTEN_FDS": count}
        async with DaemonProcess(tmp_path / "root", environ=environ) as daemon:
            assert (await daemon.call("GET", "/health"))["status"] == "ok"
            if notify == "abstract":
                await abstract.until("READY", "1")
                await abstract.until("WATCHDOG", "1")


# -- sockets that are handed over --------------------------------------------------------------------------------------


class Activated:
    """`systemd-socket-activate` in front of the daemon: it listens, and starts the daemon at the first connection."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        self.socket = Path(self._scratch.name) / "activated.sock"
        self.process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        command = [sys.executable, "-m", "jand", "serve", "--root", str(self.root), "--log-format", "json"]
        handed = [f"--setenv={name}" for name in ("HOME", "HF_HUB_OFFLINE")]
        self.process = subprocess.Popen(
            ["systemd-socket-activate", "-l", str(self.socket), *handed, *command],
            env={**os.environ, "HOME": self._scratch.name, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await until(self._listens, what="systemd-socket-activate to listen")
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self.process is not None
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self.process.wait, 6)
        self.process.kill()
        self.process.wait()
        self._scratch.cleanup()

    def _listens(self) -> bool:
        """Whether connections are taken: the file is there a moment before (__SO_ACCEPTCON in the flags, unix(7) and /proc/net/unix)."""
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return any(int(words[3], 16) & 1 << 16 for words in lines if words[7:] == [str(self.socket)])

    async def get(self, path: str) -> Any:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.get(f"http://jand{path}") as response,
        ):
            return await response.json()


@pytest.mark.needs("systemd-socket-activate")
async def test_the_first_request_starts_it_and_the_socket_survives_it(tmp_path: Path) -> None:
    async with Activated(tmp_path) as activated:
        assert activated.process is not None
        assert not (tmp_path / "models").exists(), "nothing runs before somebody asks"
        assert (await activated.get("/v1/models"))["object"] == "list"
        # systemd-socket-activate has become the daemon.
        daemon = psutil.Process(activated.process.pid)
        assert "serve" in daemon.cmdline()
        own = [path for path in Path(activated._scratch.name).rglob("*.sock") if path != activated.socket]
        assert own == [], "the socket that was handed over stands for the default one"
        activated.process.terminate()
        assert await asyncio.to_thread(activated.process.wait, 6) == 0
        assert activated.socket.exists(), "it is the service manager's"


def test_descriptors_that_are_no_sockets_are_named(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@" 3</dev/null', sys.executable, "-m", "jand", "serve"]
    ended = subprocess.run(
        [*command, "--root", str(tmp_path)],
        env={**os.environ, "HOME": str(tmp_path), "LISTEN_FDS": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == SETTINGS
    assert "cannot use the inherited descriptor 3" in ended.stderr
    assert "Traceback" not in ended.stderr
