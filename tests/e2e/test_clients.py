"""Clients that people have, each on a real daemon with a real model: over the socket, and over TCP with the token."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.fakes import gguf_files
from tests.fakes.browser import address_of
from tests.fakes.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

TOKEN = "sk-jand-of-this-machine"
PROGRAMS = Path(__file__).parents[1] / "clients"
ANSWER = "The capital of France is Paris."
QUESTION = "What is the capital of France? Answer in one short sentence."
BODY = {"model": "smollm2", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 24}
NPM = ("openai@6.30.1", "undici@6.29.1")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    root = tmp_path_factory.mktemp("clients")
    (root / "models" / "smollm2").mkdir(parents=True)
    (root / "models" / "smollm2" / "weights.gguf").symlink_to(gguf_files.smollm2())
    spec = {"origin": "HuggingFaceTB/SmolLM2", "parameters": {"init": {"ctx_len": 2048}, "runtime": {}}}
    (root / "models" / "smollm2" / "smollm2.json").write_text(json.dumps(spec))
    async with DaemonProcess(root, "--listen", "127.0.0.1:0", environ={"JAND_TOKEN": TOKEN}) as running:
        yield running


async def run(*command: str | Path, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "*", **(environ or {})},
        cwd=cwd,
    )
    told, complained = await process.communicate()
    assert process.returncode == 0, complained.decode()
    return told.decode()


def check(told: Any) -> None:
    for way in ("tcp", "socket"):
        used = told[way]
        assert used["whole"] == ANSWER
        assert "".join(used["pieces"]) == ANSWER
        assert len([piece for piece in used["pieces"] if piece]) > 3
        assert used.get("models", ["smollm2"]) == ["smollm2"]
        # The socket's mode says who may, and no token is asked for.
        assert used["refusals"] == ["model-not-found", *(["unauthorized"] if way == "tcp" else [])]


@pytest.mark.parametrize("program", ["openai_python.py", "langchain_chat.py"])
async def test_python_clients(daemon: DaemonProcess, program: str) -> None:
    base = f"{await address_of(daemon)}/v1"

    check(json.loads(await run(sys.executable, PROGRAMS / program, base, TOKEN, daemon.socket)))


@pytest.mark.needs("node", "npm")
async def test_the_openai_package_of_npm(daemon: DaemonProcess, tmp_path: Path) -> None:
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline")
    await run("npm", "install", *options, "--prefix", tmp_path, *NPM, cwd=tmp_path)
    shutil.copy(PROGRAMS / "openai_npm.mjs", tmp_path)
    base = f"{await address_of(daemon)}/v1"

    check(json.loads(await run("node", tmp_path / "openai_npm.mjs", base, TOKEN, daemon.socket)))


async def test_llm_with_an_entry_for_this_daemon(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Over TCP alone: it knows no sockets."""
    entry = {
        "model_id": "mine",
        "model_name": "smollm2",
        "api_base": f"{await address_of(daemon)}/v1",
        "api_key_name": "jand",
    }
    # A JSON is a YAML.
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([entry]))
    (tmp_path / "keys.json").write_text(json.dumps({"jand": TOKEN}))
    environ = {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    told = await run(
        *(sys.executable, "-m", "llm", "-m", "mine", QUESTION, "--no-log"),
        *("-o", "temperature", "0", "-o", "max_tokens", "24"),
        environ=environ,
    )

    assert told.strip() == ANSWER


@pytest.mark.needs("curl")
@pytest.mark.parametrize("way", ["tcp", "socket"])
async def test_curl(daemon: DaemonProcess, way: str) -> None:
    address = await address_of(daemon) if way == "tcp" else "http://jand"
    through = ["-H", f"Authorization: Bearer {TOKEN}"] if way == "tcp" else ["--unix-socket", daemon.socket]
    curl = ["curl", "-sS", "--fail-with-body", "--noproxy", "*", *through]
    posted = [f"{address}/v1/chat/completions", "-H", "Content-Type: application/json", "-d"]

    listed = json.loads(await run(*curl, f"{address}/v1/models?state=all"))
    assert [model["id"] for model in listed["data"]] == ["smollm2"]
    whole = json.loads(await run(*curl, *posted, json.dumps(BODY)))
    assert whole["choices"][0]["message"]["content"] == ANSWER
    streamed = await run(*curl, "-N", *posted, json.dumps({**BODY, "stream": True}))
    events = [line.removeprefix("data: ") for line in streamed.splitlines() if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(pieces) == ANSWER
    if way == "tcp":
        refused = await run("curl", "-sS", "--noproxy", "*", f"{address}/v1/models")
        assert json.loads(refused)["error"]["code"] == "unauthorized"
