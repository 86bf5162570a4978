"""One daemon for each root, with real locks and real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jand.errors import RootLockedError, SettingsError
from jand.service.lock import RootLock

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from jand.service.lock import RootLock
lock = RootLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def hold(own: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, own], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_one_names_the_first_ones_pid(tmp_path: Path) -> None:
    with hold(tmp_path / ".jand") as first:
        with pytest.raises(RootLockedError) as caught:
            RootLock(tmp_path / ".jand").acquire()
        assert f"pid {first.pid}" in caught.value.message
        first.kill()


def test_a_killed_holder_leaves_the_root_free(tmp_path: Path) -> None:
    with hold(tmp_path / ".jand") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    lock = RootLock(tmp_path / ".jand")
    lock.acquire()
    assert (tmp_path / ".jand" / "jand.pid").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_released_means_free(tmp_path: Path) -> None:
    for _ in range(3):
        lock = RootLock(tmp_path)
        lock.acquire()
        lock.release()


def test_a_root_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(SettingsError, match="cannot serve"):
        RootLock(tmp_path / "root" / ".jand").acquire()
