"""Requests that a machine makes from `/openapi.json`, right and wrong ones, sent to a running jand by schemathesis: no fault of ours, and no answer that is not as described."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.models_tree import ModelsTree

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
)
"""All that can be held to: that whatever has the right shape is accepted cannot (a model may not be there, a name may be taken), nor that Allow names one route's methods (an id may hold
slashes, so `/v1/models/a/copy` is also the model "a/copy")."""

CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503", "507"]
"""
"""What passes by itself (a download under way, no hub) is a 503 and no fault."""

ENDLESS = ("/v1/events", "/v1/models/{id}/logs")
SOAK_S = 20 * 60


@pytest.mark.timeout(SOAK_S + 300)
async def test_no_request_made_from_the_description_is_answered_otherwise(tmp_path: Path, *, soak: bool) -> None:
    tree = ModelsTree(tmp_path / "root" / "models")
    for name in ("a", "b", "c"):
        tree.spec(f"{name}/{name}.json", download_url=f"{name}.gguf", parameters={"init": {"ctx_len": 64}})
        gguf_files.tiny_llama(tree.at(f"{name}/{name}.gguf"))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    environ = {"JAND_LISTEN": "127.0.0.1:0", "JAND_MEMORY_BUDGET": str(2 << 30)}
    async with DaemonProcess(tmp_path / "root", "--no-reuse", environ=environ) as daemon:
        (listening,) = await daemon.told("listening")
        command = [
            *(str(Path(sys.executable).with_name("st")), "--config-file", "schemathesis.toml", "run"),
            f"http://{listening['on'][-1]}/openapi.json",
            *(part for path in ENDLESS for part in ("--exclude-path", path)),
            *(
                "--checks",
                ",".join(CHECKS),
                "--seed",
                "1",
                "--no-color",
                "--warnings",
                "off",
                "--request-timeout",
                "30",
            ),
            *("--continue-on-failure", "--generation-database", "none"),
            *(
                ("--max-time", str(SOAK_S))
                if soak
                else ("--phases", "fuzzing", "--max-examples", "12", "--workers", "2")
            ),
        ]
        ended = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SOAK_S + 200
        )
        counted = re.search(r"(\d+) generated", ended.stdout)

        assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-2000:]
        assert counted
        assert int(counted[1]) > (5000 if soak else 200)
        assert not [event for event in daemon.log_events() if "unexpected" in event["event"]]
        await daemon.call("GET", "/v1/models")
