"""Logs: one shape for every source, no secrets, and a stuck reader that stops nobody."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from typing_extensions import override

from jand.log import MASK, Secrets, Sink, logging_to
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


class Terminal(io.StringIO):
    @override
    def isatty(self) -> bool:
        return True


def lines_of(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_elsewhere_than_on_a_terminal_is_one_json_object() -> None:
    out = io.StringIO()
    with logging_to(out):
        structlog.get_logger("jand.test").info("model ready", model="zephyr-7b", seconds=1.5, file="a\nb\udcff")

    (line,) = lines_of(out)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "model ready",
        "logger": "jand.test",
        "model": "zephyr-7b",
        "seconds": 1.5,
        "file": "a\nb\udcff",
    }


def test_a_line_on_a_terminal_is_for_people_and_obeys_nothing_that_a_file_name_says() -> None:
    out = Terminal()
    with logging_to(out):
        structlog.get_logger().warning("odd name", name="\x1b[2J\u202e", path="two words", size=3)

    text = out.getvalue()
    assert "odd name" in text
    assert '"two words"' in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_text_without_a_terminal_has_no_colours() -> None:
    out = io.StringIO()
    with logging_to(out, form="text"):
        structlog.get_logger().error("it failed", model="m")

    assert "\x1b" not in out.getvalue()
    assert out.getvalue().endswith("error   it failed  model=m\n")


def test_lines_below_the_level_are_not_written() -> None:
    out = io.StringIO()
    with logging_to(out, level="warning"):
        structlog.get_logger().info("quiet")
        structlog.get_logger().warning("loud")

    assert [line["event"] for line in lines_of(out)] == ["loud"]


def test_libraries_are_heard_from_warnings_on_in_the_same_shape() -> None:
    out = io.StringIO()
    with logging_to(out):
        logging.getLogger("aiohttp.server").info("chatter")
        logging.getLogger("aiohttp.server").warning("request of %s failed", "x", exc_info=ValueError("cause"))

    (line,) = lines_of(out)
    assert (line["event"], line["level"], line["logger"]) == ("request of x failed", "warning", "aiohttp.server")
    assert "ValueError: cause" in line["exception"]


def test_at_level_debug_libraries_are_heard_too() -> None:
    out = io.StringIO()
    with logging_to(out, level="debug"):
        logging.getLogger("asyncio").debug("detail")

    assert [line["event"] for line in lines_of(out)] == ["detail"]


def test_a_record_that_cannot_be_formatted_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    with logging_to(out):
        record = logging.LogRecord("odd", logging.ERROR, __file__, 1, "%d", ("no number",), None)
        logging.getLogger().handlers[-1].handle(record)
        structlog.get_logger().info("goes on")

    assert [line["event"] for line in lines_of(out)] == ["goes on"]
    assert "no number" in capsys.readouterr().err


def test_python_s_warnings_are_log_lines() -> None:
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with logging_to(out):
            warnings.warn("old thing", stacklevel=1)

    (line,) = lines_of(out)
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "old thing" in line["event"]


def test_a_known_secret_is_masked_wherever_it_stands() -> None:
    out = io.StringIO()
    secrets = Secrets()
    secrets.add(["sk-123456789", "ab"])

    def fail() -> None:
        raise ValueError("refused sk-123456789")

    with logging_to(out, secrets=secrets):
        log = structlog.get_logger()
        log.info(
            "key sk-123456789 used", url="https://x/?k=sk-123456789", nested={"a": ["sk-123456789", b"sk-123456789"]}
        )
        log.info("short ones only whole", code="ab", word="abacus", odd=Exception("sk-123456789"))
        log.info("by name", **{"API-KEY": "unknown-one", "token": "t", "api_key": None})
        try:
            fail()
        except ValueError:
            log.exception("it failed")
        logging.getLogger("lib").error("header: %s", "Bearer sk-123456789")

    text = out.getvalue()
    assert "sk-123456789" not in text
    assert "unknown-one" not in text
    lines = lines_of(out)
    assert lines[0]["nested"] == {"a": [MASK, MASK]}
    assert (lines[1]["code"], lines[1]["word"]) == (MASK, "abacus")
    assert (lines[2]["token"], lines[2]["api_key"]) == (MASK, None)
    assert f"ValueError: refused {MASK}" in lines[3]["exception"]


def test_a_secret_that_becomes_known_later_is_masked_from_then_on() -> None:
    out = io.StringIO()
    secrets = Secrets()
    with logging_to(out, secrets=secrets):
        secrets.add(["hush-hush", ""])
        structlog.get_logger().info("saying hush-hush")

    assert lines_of(out)[0]["event"] == f"saying {MASK}"


@pytest.fixture
def stuck_pipe() -> Iterator[tuple[TextIO, int]]:
    """Give a pipe that is full and that nobody reads, as the stream to write to and the descriptor to read from."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"\n" * 65536)
    os.set_blocking(write_end, True)
    stream = os.fdopen(write_end, "w")
    yield stream, read_end
    # Whoever still writes is let go by somebody who reads to the end: closing waits for it.
    reader = threading.Thread(target=_read_to_the_end, args=(read_end,))
    reader.start()
    stream.close()
    reader.join()
    os.close(read_end)


def _read_to_the_end(read_end: int) -> None:
    while os.read(read_end, 1 << 20):
        pass


def test_a_reader_that_has_stopped_reading_stops_nobody_and_every_line_is_written_or_counted(
    stuck_pipe: tuple[TextIO, int],
) -> None:
    stream, read_end = stuck_pipe
    seen = bytearray()
    reader = threading.Thread(target=_read_until, args=(read_end, b'"last"', seen))
    began = time.monotonic()
    logged = 1000
    with logging_to(stream, form="json", limit=50):
        log = structlog.get_logger()
        for number in range(logged):
            log.info("line", number=number, padding="x" * 1000)
        assert time.monotonic() - began < 0.5, "logging waited for the reader"
        reader.start()
        until_sync(lambda: b"log lines lost" in seen)
        log.info("last")
        logged += 1
    reader.join()

    lines = [json.loads(line) for line in seen.splitlines() if line]
    lost = sum(line["lines"] for line in lines if line["event"] == "log lines lost")
    assert lost > 0
    assert lost + sum(line["event"] != "log lines lost" for line in lines) == logged


def _read_until(read_end: int, end: bytes, seen: bytearray) -> None:
    while end not in seen:
        seen += os.read(read_end, 65536)


def test_closing_waits_for_a_stuck_reader_no_longer_than_told(stuck_pipe: tuple[TextIO, int]) -> None:
    sink = Sink(stuck_pipe[0])
    for _ in range(100):
        sink.write("x" * 10_000)

    began = time.monotonic()
    sink.close(timeout_s=0.1)

    assert time.monotonic() - began < 1.0


def test_closing_writes_what_waits_and_ends_the_thread() -> None:
    out = io.StringIO()
    sink = Sink(out)
    for number in range(500):
        sink.write(str(number))
    sink.close()

    assert out.getvalue().split() == [str(number) for number in range(500)]
    assert "log" not in {thread.name for thread in threading.enumerate()}


def test_no_thread_runs_before_the_first_line() -> None:
    """A process that detaches itself forks after the logs were set up."""
    with logging_to(io.StringIO()):
        assert "log" not in {thread.name for thread in threading.enumerate()}


def test_a_closed_stream_raises_nothing() -> None:
    out = io.StringIO()
    out.close()
    sink = Sink(out)
    sink.write("nobody reads this")
    sink.close()


def test_after_the_block_logging_is_as_it_was_before() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with logging_to(io.StringIO(), level="debug"):
        pass

    assert (list(root.handlers), root.level) == before
