"""What a real daemon and its workers log: enough to understand a death, and never what people say or keep secret."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

PROMPT = "quokkas-dance-at-midnight"
KEY = "sk-never-to-be-seen-0123456789"
TOKEN = "token-never-to-be-seen-0123456789"
HEADER = "header-never-to-be-seen-0123456789"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    models = tmp_path / "models"
    models.mkdir()
    gguf_files.tiny_llama(models / "tiny.gguf")
    (models / "tiny.json").write_text(json.dumps({"origin": "a/b"}))
    remote = {"origin": "http://127.0.0.1:9/v1", "import_format": "openai"}
    (models / "far.json").write_text(json.dumps({**remote, "parameters": {"init": {"API-KEY": KEY}}}))
    async with DaemonProcess(tmp_path, environ={"JAND_TOKEN": TOKEN, "OPENAI_API_KEY": KEY}) as process:
        yield process


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3, **more}


async def test_neither_prompts_nor_answers_nor_secrets_are_logged_whatever_goes_wrong(daemon: DaemonProcess) -> None:
    """At level debug, which is what the fixture's daemon logs at."""
    answered: list[Any] = []
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [PROMPT]}}}
    tool = {"type": "function", "function": {"name": "f", "description": PROMPT, "parameters": {}}}
    bodies = [
        chat(),
        chat(stop=PROMPT, logit_bias={PROMPT: 1}),
        chat(temperature=PROMPT),
        chat(messages=PROMPT),
        chat(messages=[{"role": PROMPT, "content": [{"type": PROMPT}]}]),
        chat(messages=[{"role": "user", "content": PROMPT * 4000}]),
        chat(response_format=schema),
        chat(tools=[tool], tool_choice={"type": "function", "function": {"name": PROMPT}}),
        chat(keep_alive=PROMPT),
        chat(model="far"),
        chat(model=PROMPT[:6]),
        {"model": "tiny", "prompt": [PROMPT, 3], "max_tokens": 2},
    ]
    headers = {"Authorization": f"Bearer {HEADER}"}
    for body in bodies:
        for path in ("chat/completions", "completions", "embeddings", "responses"):
            async with daemon.session.post(f"http://jand/v1/{path}", json=body, headers=headers) as response:
                answered.append(await response.text())
    async with daemon.session.post("http://jand/v1/chat/completions", data=f'{{"{PROMPT}'.encode()) as response:
        answered.append(await response.text())
    stream = await daemon.session.post("http://jand/v1/chat/completions", json=chat(stream=True, max_tokens=4000))
    await stream.content.readline()
    stream.close()
    told = json.dumps(
        [await daemon.call("GET", path) for path in ("/v1/models/tiny/logs", "/v1/problems", "/v1/models")]
    )
    daemon.signal(signal.SIGUSR1)
    await until(lambda: "dump thread" in daemon.log(), what="the dump")
    await daemon.call("PUT", "/v1/models/tiny/stop?force=true")

    log = daemon.log()
    assert any("completion_tokens" in text for text in answered), answered
    for secret in (PROMPT, KEY, TOKEN, HEADER):
        lines = [line[:300] for line in log.splitlines() if secret in line]
        assert lines == [], f"{secret} in the log"
        assert secret not in told
    assert KEY not in "".join(answered)
    said = [json.loads(text)["choices"][0]["message"]["content"] for text in answered if '"chat.completion"' in text]
    assert said
    assert all(words not in log for words in said if words and len(words) > 5)


async def test_what_llama_cpp_wrote_is_kept_and_folded_in_and_each_request_has_its_name(
    daemon: DaemonProcess,
) -> None:
    await daemon.call("PUT", "/v1/models/tiny/start")
    shown = (await daemon.call("GET", "/v1/models/tiny/logs?tail=2000"))["data"]
    texts = [line["text"] for line in shown]
    running = await daemon.find("tiny")
    assert running is not None
    pid = running["details"]["pid"]
    assert texts[0] == "jand: starting a worker"
    assert texts[-1].startswith("jand: ready after")
    assert any("llama" in text for text in texts[1:-1])
    assert not [text for text in texts if text.startswith("<")]
    folded = await daemon.told("worker", len(texts) - 2)
    assert {line["model"] for line in folded} == {"tiny"}
    assert not [line for line in folded if "request_id" in line], "a worker outlives who asked for it"
    assert {"debug", "info"} >= {line["level"] for line in folded}

    os.kill(pid, signal.SIGKILL)
    await daemon.until_state("tiny", "downloaded")
    (last,) = (await daemon.call("GET", "/v1/models/tiny/logs?tail=1"))["data"]
    assert "SIGKILL" in last["text"]

    refused = await daemon.call(
        "PUT", "/v1/models/tiny/start", {"parameters": {"init": {"ctx_len": 2**30}}}, status=None
    )
    (last,) = (await daemon.call("GET", "/v1/models/tiny/logs?tail=1"))["data"]
    assert refused["error"]["message"].startswith(last["text"].removeprefix("jand: ")) or "SIGKILL" in last["text"]

    async with daemon.session.post(
        "http://jand/v1/chat/completions", json=chat(), headers={"X-Request-Id": "mine-1"}
    ) as response:
        assert response.headers["X-Request-Id"] == "mine-1"

    def mine() -> list[dict[str, Any]]:
        return [line for line in daemon.log_events() if line.get("request_id") == "mine-1"]

    def answered() -> list[dict[str, Any]]:
        return [line for line in mine() if line["event"] == "request answered"]

    (line,) = await until(answered)
    assert (line["path"], line["status"], line["level"]) == ("/v1/chat/completions", 200, "info")
    assert "model started" in [line["event"] for line in mine()], "what it set off is told under its name"
