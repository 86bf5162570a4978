"""A wall clock that is set while the daemon runs, by years and by hours, forth and back: what waits, waits as long as it should, and what has happened is told with the time that it is."""

from __future__ import annotations

import datetime
import json
import os
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.fakes import gguf_files, tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.faulty import compile_library, variables
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.timeout(600), pytest.mark.needs("cc")]

HOUR_S: Final = 3600
YEAR_S: Final = 365 * 24 * HOUR_S
JUMPS: Final = (YEAR_S, -3 * HOUR_S, -YEAR_S, 3 * HOUR_S, 0)
KEEP_ALIVE_S: Final = 1.5
SOON_S: Final = 8.0
ASKED: Final = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}


async def test_a_clock_that_is_set_disturbs_nothing(tmp_path: Path, soak: bool) -> None:
    """Each time that it is set: an idle model is stopped after its time, no sooner and no later; a file that comes is used, one that stays incomplete is told; a change without an event is found by the periodic scan."""
    faults = tmp_path / "faults"
    faults.mkdir()
    clock = faults / "clock"
    root = tmp_path / "root"
    tiny_models.install(root / "models", "tiny")
    outside = tmp_path / "linked.json"
    outside.write_text(json.dumps({"origin": "https://api.openai.com/v1", "import_format": "openai", "created": 1}))
    os.link(outside, root / "models" / "linked.json")
    flags = ("--no-reuse", "--settle", "0.1", "--keep-alive", str(KEEP_ALIVE_S), "--rescan", "1")
    environ = variables(compile_library(tmp_path), faults)
    async with DaemonProcess(root, *flags, environ=environ) as daemon:
        for number, jump in enumerate(JUMPS * 10 if soak else JUMPS[:2], start=2):
            await daemon.call("POST", "/v1/chat/completions", ASKED)
            answered = time.monotonic()
            clock.write_text(str(jump))

            # Written through its other name, which lies in no folder that is watched.
            outside.write_text(outside.read_text().replace(f'"created": {number - 1}', f'"created": {number}'))
            (daemon.models / f"came{number}").mkdir()
            gguf_files.bare_header(daemon.models / f"came{number}" / f"came{number}.gguf")
            half = daemon.models / f"half{number}.gguf"
            gguf_files.bare_header(half)
            os.truncate(half, half.stat().st_size - 8)

            await daemon.until_state("tiny", "downloaded", SOON_S)
            stopped_after_s = time.monotonic() - answered
            assert KEEP_ALIVE_S * 0.8 < stopped_after_s < SOON_S
            await daemon.until_state(f"came{number}", "downloaded", SOON_S)

            async def is_told(half: Path = half) -> bool:
                problems = (await daemon.call("GET", "/v1/problems"))["data"]
                return (f"models/{half.name}", "incomplete-binary") in {
                    (each["path"], each["code"]) for each in problems
                }

            async def is_found(number: int = number) -> bool:
                return bool((await daemon.call("GET", "/v1/models/linked"))["created"] == number)

            await until(is_told, SOON_S, what="what is incomplete to be told")
            await until(is_found, SOON_S, what="the change without an event to be found")
            last = datetime.datetime.fromisoformat(daemon.log_events()[-1]["timestamp"])
            assert abs(last.timestamp() - (time.time() + jump)) < SOON_S
        assert "Traceback" not in daemon.log()
        assert {line["level"] for line in daemon.log_events()} <= {"debug", "info"}
