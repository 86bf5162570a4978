"""`jand doctor` on installations that are well, and on such that are not: it names what is wrong, mends nothing, and its exit status says so."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import Shell

pytestmark = pytest.mark.timeout(60)


async def findings(shell: Shell, *arguments: str, status: int = 0) -> dict[str, dict[str, Any]]:
    answer = json.loads((await shell("doctor", *arguments, "--json", status=status)).stdout)
    assert answer["ok"] == (status == 0)
    return {one["name"]: one for one in answer["findings"]}


async def test_a_machine_that_is_well(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path) as daemon:
        shell = Shell(daemon.socket)
        shown = (await shell("doctor", "--root", str(tmp_path))).stdout
        found = await findings(shell, "--root", str(tmp_path))

    assert "nothing is wrong" in shown
    assert {"python", "engine", "memory", "files", "settings", "folder", "disk", "hub", "service", "daemon"} <= set(
        found
    )
    assert all(one["verdict"] != "wrong" for one in found.values())
    assert str(daemon.socket) in found["daemon"]["message"]


async def test_what_is_wrong_comes_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "openai").write_text("sk-very-secret")
    (tmp_path / "secrets" / "openai").chmod(0o644)
    shell = Shell(tmp_path / "none.sock")
    found = await findings(shell, "--root", str(tmp_path), status=1)

    assert {name for name, one in found.items() if one["verdict"] == "wrong"} == {"secrets"}
    assert found["daemon"]["verdict"] == "warning"
    assert found["daemon"]["hint"] == "start one with: jand serve"
    assert found["secrets"]["hint"] == f"chmod 600 {tmp_path / 'secrets' / 'openai'}"
    assert "sk-very-secret" not in str(found)


async def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="jand-test-") as short, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{short}/s.sock")
        found = await findings(Shell(Path(short) / "s.sock"), "--root", str(tmp_path), status=1)

    assert found["daemon"]["verdict"] == "wrong"
    assert "jand serve" in found["daemon"]["hint"]


async def test_settings_that_are_wrong_are_told_and_the_rest_is_looked_at_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "jand.toml").write_text("rescna = 5\n")
    found = await findings(Shell(tmp_path / "none.sock"), "--root", str(tmp_path), status=1)

    assert "rescna" in found["settings"]["message"]
    assert "rescan" in found["settings"]["hint"]
    assert found["engine"]["verdict"] == "good"


async def test_a_models_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    found = await findings(Shell(tmp_path / "none.sock"), "--root", str(tmp_path), status=1)

    assert found["folder"]["verdict"] == "wrong"
    assert str(tmp_path / "models") in found["folder"]["hint"]


async def test_an_engine_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").touch()
    (tmp_path / "llama_cpp" / "llama_cpp.py").write_text("raise OSError('libllama.so: undefined symbol')")
    shell = Shell(tmp_path / "none.sock")
    shell.environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = await findings(shell, "--root", str(tmp_path), status=1)

    assert "undefined symbol" in found["engine"]["message"]
    assert "pip install" in found["engine"]["hint"]
