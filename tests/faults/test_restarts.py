"""A daemon started and stopped again and again: each life finds what the last one had, and leaves nothing but what the next one may use."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest

from tests.fakes import gguf_files, tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.daemon_downloading import is_released
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(1800)

ENDS: Final = (signal.SIGTERM, signal.SIGINT)
OF_ONE_LIFE: Final = ("pid", "memory", "reserved", "loaded_in", "load_s", "warm_up_s", "since")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Make a directory for temporary files whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="jand-test-", dir="/tmp") as folder:
        yield Path(folder)


def lay_out(models: Path) -> None:
    """One model that runs, one that is only there, one that cannot be had, one of a provider, and one problem."""
    tiny_models.install(models, "runs", metadata={"autostart": True})
    gguf_files.bare_header(models / "bare.gguf", name="bare")
    (models / "lacks.json").write_text('{"origin": "tests/lacks", "download_url": "/nowhere/lacks.gguf"}')
    (models / "remote.json").write_text('{"origin": "http://127.0.0.1:9/v1", "import_format": "openai"}')
    (models / "broken.json").write_text('{"origin": ')


async def registry(daemon: DaemonProcess) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what is listed, without what belongs to one life: pids, moments, measured figures."""
    models = await daemon.models_by_id()
    for model in models.values():
        for name in OF_ONE_LIFE:
            model["details"].pop(name, None)
        if model["error"]:
            model["error"] = {name: model["error"][name] for name in ("code", "message", "hint")}
    problems = (await daemon.call("GET", "/v1/problems"))["data"]
    return models, sorted((problem["path"], problem["code"]) for problem in problems)


async def broken_is_told(daemon: DaemonProcess) -> bool:
    return "models/broken.json" in [problem["path"] for problem in (await daemon.call("GET", "/v1/problems"))["data"]]


def those_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes that were started with *variable*: the daemon and whatever it started, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_starts_and_stops_of_the_daemon_leave_nothing_behind(tmp_path: Path, scratch: Path, soak: bool) -> None:
    """Neither sockets, processes, temporary folders nor locks; and every life lists the same."""
    lives = 100 if soak else 3
    lay_out(tmp_path / "models")
    pid_file = tmp_path / "jand.pid"
    listed: list[Any] = []
    left: list[set[str]] = []
    began = time.monotonic()
    daemon = DaemonProcess(
        tmp_path,
        *("--settle", "0.1", "--no-reuse", "--pid-file", str(pid_file)),
        environ={"TMPDIR": str(scratch)},
    )
    try:
        for life in range(lives):
            daemon.spawn()
            await daemon.ready()
            await daemon.until_state("runs", "running")
            await daemon.until_state("bare", "downloaded")
            await until(lambda: broken_is_told(daemon), what="the problem")
            assert pid_file.read_text().strip() == str(daemon.pid)
            listed.append(await registry(daemon))
            mine = those_with("TMPDIR", str(scratch))
            assert len(mine) >= 2, "the daemon and a worker"
            daemon.signal(ENDS[life % len(ENDS)])

            assert await daemon.wait() == 0
            assert those_with("TMPDIR", str(scratch)) == []
            assert list(scratch.iterdir()) == []
            assert list(daemon.socket.parent.iterdir()) == []
            for lock in (pid_file, tmp_path / ".jand" / "jand.pid"):
                assert is_released(lock)
                assert lock.read_bytes() == b"", "the name of no process that another may have by now"
            left.append({str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")})
        log = daemon.log()
    finally:
        await daemon.__aexit__(None, None, None)
    sys.stderr.write(f"{lives} lives in {time.monotonic() - began:.0f} s\n")

    # The first life adopts the bare binary and learns; from the second on nothing is new.
    assert listed[1:] == [listed[1]] * (lives - 1)
    assert left[1:] == [left[1]] * (lives - 1)
    assert listed[0][0].keys() == listed[1][0].keys() == {"runs", "bare", "lacks", "remote"}
    assert "Traceback" not in log
