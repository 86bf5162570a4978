"""Log files that rotate and are begun anew, and the journal's entries."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from jand.log import LogFile, logging_to
from jand.log.journal import Journal, render_entry, with_priority
from jand.log.shapes import TextRenderer
from jand.paths import leads_to_journal
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_it_rotates_before_it_becomes_too_large_and_keeps_a_few(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", max_bytes=100, keep=2)
    for number in range(40):
        log.write(f"line {number:02}\n")
    log.close()
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}

    assert set(files) == {"log", "log.1", "log.2"}
    assert all(len(text) <= 100 for text in files.values())
    assert (files["log.2"] + files["log.1"] + files["log"]).splitlines()[-1] == "line 39"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_without_any_to_keep_it_begins_anew(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", max_bytes=20, keep=0)
    for number in range(5):
        log.write(f"line {number} of five\n")

    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_text() == "line 4 of five\n"


def test_what_was_there_before_is_appended_to_and_counts(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 90 + "\n")
    log = LogFile(tmp_path / "log", max_bytes=100)
    log.write("hello there\n")

    assert (tmp_path / "log.1").stat().st_size == 91
    assert (tmp_path / "log").read_text() == "hello there\n"


def test_a_directory_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "own" / "log")
    shutil.rmtree(tmp_path / "own")
    log.write("again\n")

    assert (tmp_path / "own" / "log").read_text() == "again\n"


def test_where_nothing_can_be_renamed_it_goes_on_in_the_same_file(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", max_bytes=50, keep=1)
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "in the way").write_text("")
    for number in range(20):
        log.write(f"line {number:02}\n")

    assert len((tmp_path / "log").read_text().splitlines()) == 20


def test_descriptors_that_it_stands_for_follow(tmp_path: Path) -> None:
    with (tmp_path / "other").open("w") as other:
        log = LogFile(tmp_path / "log", max_bytes=30, keep=1)
        log.stand_for(other.fileno())
        for _ in range(3):
            log.write("twenty characters..\n")
        os.write(other.fileno(), b"by descriptor\n")

    assert (tmp_path / "log").read_text().endswith("by descriptor\n")
    assert (tmp_path / "other").read_text() == ""


def test_lines_lost_to_a_full_disk_are_counted_when_there_is_room_again(tmp_path: Path) -> None:
    """The link leads to a device that is always full, then to a file."""
    place = tmp_path / "log"
    place.symlink_to("/dev/full")
    log = LogFile(place)
    with logging_to(log, form="json") as logs:
        for number in range(7):
            structlog.get_logger().info("lost", number=number)
        until_sync(lambda: logs.lost == 7, what="seven losses")
        place.unlink()
        structlog.get_logger().info("written")
    told = [json.loads(line) for line in place.read_text().splitlines()]

    assert [line["event"] for line in told][-1] == "written"
    assert sum(line.get("lines", 0) for line in told) + sum(line["event"] == "lost" for line in told) == 7


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    """Stand in for journald's end of its socket; 252's own parser reads entries in tests/e2e/test_systemd.py."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        place = tmp_path / "j"
        listener.bind(str(place))
        listener.settimeout(5)
        yield listener


def parse(entry: bytes) -> dict[str, bytes]:
    """Read an entry as the native protocol of the journal has it."""
    fields: dict[str, bytes] = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            fields[name.decode()] = value
            continue
        size = int.from_bytes(entry[:8], "little")
        fields[name.decode()] = entry[8 : 8 + size]
        entry = entry[8 + size + 1 :]
    return fields


def sent(listener: socket.socket, **event: Any) -> dict[str, bytes]:
    outlet = Journal(Path(listener.getsockname()))
    outlet.write(render_entry(event) + "\n")
    outlet.close()
    return parse(listener.recv(1 << 20).removesuffix(b"\n"))


def test_an_entry_has_level_message_and_fields(journal: socket.socket) -> None:
    entry = sent(
        journal, event="model started", level="warning", logger="jand.x", timestamp="t", model="zephyr-7b", seconds=1.5
    )

    assert entry["PRIORITY"] == b"4"
    assert entry["MESSAGE"] == b"model started model=zephyr-7b seconds=1.5"
    assert (entry["JAND_MODEL"], entry["JAND_SECONDS"]) == (b"zephyr-7b", b"1.5")
    assert entry["SYSLOG_IDENTIFIER"] == b"jand"


def test_a_traceback_and_odd_names_are_one_entry(journal: socket.socket) -> None:
    odd = "a\nPRIORITY=0\udcff\u20ac"
    entry = sent(
        journal,
        event="it failed",
        level="error",
        exception="Traceback:\n  line\nValueError: x",
        name=odd,
        **{"API-KEY": 1},
    )

    assert entry["PRIORITY"] == b"3", "a name is no field"
    assert entry["MESSAGE"].split(b"\n")[1:] == [b"Traceback:", b"  line", b"ValueError: x"]
    assert entry["JAND_NAME"] == odd.encode("utf-8", "surrogateescape")
    assert entry["JAND_API_KEY"] == b"1"


def test_where_the_journal_s_socket_is_away_lines_carry_their_level() -> None:
    with pytest.raises(OSError, match=r"No such file|not exist"):
        Journal(Path("/nowhere/socket"))
    line = with_priority(TextRenderer(colours=False))(
        {"event": "it failed", "level": "error", "timestamp": "2026-01-01T00:00:00+00:00", "exception": "a\nb"}
    )

    assert [part[:3] for part in line.split("\n")] == ["<3>", "<3>", "<3>"]


def test_only_the_stream_that_the_environment_names_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert leads_to_journal(f"{found.st_dev}:{found.st_ino}", stream)
        for other in (f"{found.st_dev}:{found.st_ino + 1}", "", "1", "a:b", ":"):
            assert not leads_to_journal(other, stream)
    assert not leads_to_journal("1:2", io.StringIO())


def test_a_command_that_fails_in_a_service_says_so_as_an_error(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        found = os.fstat(stream.fileno())
        environ = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}", "JAND_SETTLE": "soon"}
        command = [sys.executable, "-m", "jand", "serve", "--root", str(tmp_path / "r")]
        subprocess.run(command, env=environ, stderr=stream, check=False, timeout=20)
        stream.seek(0)
        lines = stream.read().splitlines()

    assert lines[0].startswith("<3>jand: cannot use settle")
    assert all(line.startswith("<3>") for line in lines)
