"""Whether somebody is writing to a file, asked of a real kernel with real writers."""

from __future__ import annotations

import dataclasses
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest

from jand.library import probe
from tests.fakes.waiting import until_sync


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    return path


def test_a_file_that_is_open_for_writing_is_being_written(file: Path) -> None:
    assert probe.is_being_written(file) is False
    with file.open("r+b"):
        assert probe.is_being_written(file) is True
    assert probe.is_being_written(file) is False


def test_readers_do_not_count(file: Path) -> None:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
        assert probe.is_being_written(file) is False


def test_a_writable_map_counts_although_its_file_is_closed(file: Path) -> None:
    with file.open("r+b") as stream:
        mapped = mmap.mmap(stream.fileno(), 0)
    with mapped:
        assert probe.is_being_written(file) is True
    assert probe.is_being_written(file) is False


def test_a_writer_through_another_name_of_the_file_counts(file: Path) -> None:
    other = file.with_name("other")
    other.hardlink_to(file)
    link = file.with_name("link")
    link.symlink_to(other)

    with other.open("ab"):
        assert probe.is_being_written(file) is True
        assert probe.is_being_written(link) is True


def test_what_cannot_be_asked_is_unknown(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert probe.is_being_written(tmp_path / "absent") is None
    assert probe.is_being_written(tmp_path / "pipe") is None
    with file.open("r+b") as stream:
        assert probe.has_writer(stream.fileno()) is not False


HOLD = """
import fcntl, os, signal, sys
from jand.library import probe
if sys.argv[2] == "ignore":
    probe.ignore_lease_signal()
taken, set_lease = [], fcntl.fcntl
def slow(descriptor, command, argument=0):
    result = set_lease(descriptor, command, argument)
    if command == fcntl.F_SETLEASE and argument == fcntl.F_RDLCK:
        print("taken", flush=True)
        sys.stdin.readline()
    return result
fcntl.fcntl = slow
print(probe.is_being_written(sys.argv[1]), flush=True)
"""
"""The probe in a process of its own, with the instant between taking and giving back the lease stretched until a line comes."""


@pytest.mark.parametrize("signals", ["default", "ignore"])
def test_a_writer_that_comes_during_the_probe_waits_and_ends_nobody(file: Path, signals: str) -> None:
    """The signal of a broken lease ends a process by default."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), signals], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asker:
        assert asker.stdin is not None
        assert asker.stdout is not None
        assert asker.stdout.readline() == "taken\n"
        writer = subprocess.Popen([sys.executable, "-c", f"open({str(file)!r}, 'r+b').write(b'x')"])
        until_sync(lambda: _is_breaking(file), what="the writer to ask for the file")
        asker.stdin.write("\n")
        asker.stdin.flush()

        assert asker.stdout.read() == "False\n"
        assert asker.wait(5) == 0
        assert writer.wait(5) == 0
    assert file.read_bytes()[:1] == b"x"


def _is_breaking(file: Path) -> bool:
    inode = file.stat().st_ino
    locks = Path("/proc/locks").read_text().splitlines()
    return any("LEASE" in line and "BREAKING" in line and f":{inode} " in line for line in locks)


def test_ignoring_the_lease_signal_is_for_the_whole_process() -> None:
    before = signal.getsignal(signal.SIGIO)
    try:
        probe.ignore_lease_signal()
        os.kill(os.getpid(), signal.SIGIO)
        assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGIO, before)


@dataclasses.dataclass
class Status:
    st_birthtime: float


@pytest.mark.parametrize(
    ("created", "platform", "busy"),
    [
        (443_779_200.0, "darwin", True),
        (-2_082_844_800.0, "darwin", True),
        (1_700_000_000.0, "darwin", False),
        (443_779_200.0, "linux", False),
    ],
)
def test_a_copy_that_finder_has_not_finished_bears_an_impossible_date(
    created: float, platform: str, busy: bool
) -> None:
    assert probe.is_marked_busy(cast("os.stat_result", Status(created)), platform) is busy


def test_asking_takes_microseconds(file: Path) -> None:
    begin = time.process_time()
    for _ in range(1000):
        probe.is_being_written(file)

    assert (time.process_time() - begin) / 1000 < 0.000_2
