"""Options and fixtures of all tests: soak counts, system programs, and a loop that may not block."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run tests with their large counts (make soak)")
    parser.addoption("--pictures", metavar="DIR", help="keep the pictures of the page in DIR (make screenshots)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*programs): the system programs without which the test is left out, by name"
    )
    config.stash[LEFT_OUT] = []
    # No test sees the settings of whoever runs it; here and not in a fixture, since those of a whole module come before those of a test.
    for name in list(os.environ):
        if name.startswith(("JAND_", "HF_", "HUGGING_FACE_")) or name == "XDG_RUNTIME_DIR":
            del os.environ[name]
    # A shell that starts us in the background lets us ignore Ctrl-C (POSIX, "Asynchronous Lists"), and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # pytest-asyncio asks for "the current loop" before its first test, and Python 3.11 would make one that nobody ever closes.
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and say so at the end, what needs a system program that is not here."""
    kept, left_out = [], []
    for item in items:
        if "soak" in getattr(item, "fixturenames", ()):
            # make soak runs those whose counts depend on it, and no others.
            item.add_marker(pytest.mark.soak)
        programs = {name for mark in item.iter_markers("needs") for name in mark.args}
        missing = sorted(name for name in programs if not is_there(name))
        if missing:
            config.stash[LEFT_OUT].append(f"{item.nodeid} (needs {', '.join(missing)})")
            left_out.append(item)
        else:
            kept.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@functools.cache
def is_there(name: str) -> bool:
    """Whether a system program is here, or the right to mount things (`mounts`), which root lacks in many containers."""
    if name == "mounts":
        return (
            shutil.which("unshare") is not None
            and os.geteuid() == 0
            and subprocess.call(MOUNTING, stderr=subprocess.DEVNULL) == 0
        )
    return shutil.which(name) is not None


MOUNTING = ("unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[LEFT_OUT]:
        terminalreporter.section("left out, because a system program is missing")
        for line in config.stash[LEFT_OUT]:
            terminalreporter.line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has left out; all of them collect the same tests, so one list is enough."""
    told = getattr(node, "workeroutput", {}).get("left out")
    if told:
        node.config.stash[LEFT_OUT] = told


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that must be complete (CI) where something was left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash[LEFT_OUT]
    if session.config.stash[LEFT_OUT] and os.environ.get("TEST_COMPLETE"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def soak(pytestconfig: pytest.Config) -> bool:
    """Whether this run takes the large counts."""
    return bool(pytestconfig.getoption("--soak"))


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """Make a directory on another file system than *tmp_path* (memory against disk)."""
    for place in ("/dev/shm", "/run", str(Path.home()), "/tmp", "/var/tmp"):
        base = Path(place)
        if base.is_dir() and os.access(base, os.W_OK) and base.stat().st_dev != tmp_path.stat().st_dev:
            folder = Path(tempfile.mkdtemp(prefix="jand-test-", dir=base))
            yield folder
            shutil.rmtree(folder, ignore_errors=True)
            return
    pytest.fail("no second file system to write to")
