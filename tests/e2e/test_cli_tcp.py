"""The command line over TCP, with a token and TLS by the self-made certificate: every kind of verb, and what is said where it cannot be."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import JAND, Shell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class Served:
    port: int
    cert: str
    token_file: str
    shell: Shell
    daemon: DaemonProcess

    def options(self, scheme: str = "https", host: str = "localhost") -> tuple[str, ...]:
        return ("--url", f"{scheme}://{host}:{self.port}", "--token-file", self.token_file, "--certificate", self.cert)

    async def ask(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        return await self.shell(*self.options(), *words, status=status)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    tiny_models.install(tmp_path / "models", "tiny")
    shell = Shell(tmp_path / "no.sock")
    shell.environment.pop("JAND_SOCKET")
    shell.environment["HOME"] = str(tmp_path / "home")
    made = await shell.json("service", "certificate", "--root", str(tmp_path))
    token_file = tmp_path / "token"
    token_file.touch(0o600)
    token_file.write_text(f"{TOKEN}\n")
    flags = ("--listen", "127.0.0.1:0", "--tls-cert", made["cert"], "--tls-key", made["key"])
    async with DaemonProcess(tmp_path, "--no-reuse", *flags, "--token-file", str(token_file)) as daemon:
        (listening,) = await daemon.told("listening")
        port = int(listening["on"][-1].rpartition(":")[2])
        yield Served(port, made["cert"], str(token_file), shell, daemon)


async def followed(served: Served, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*JAND, *served.options(), *words),
        env=served.shell.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


async def hears(feed: asyncio.StreamReader, happen: Callable[[int], None]) -> None:
    """Let something happen again and again until *feed* tells of it: before, it may still be on its way to the daemon."""
    told = asyncio.ensure_future(feed.readline())
    for turn in range(100):
        happen(turn)
        await asyncio.wait([told], timeout=0.2)
        if told.done():
            return
    told.cancel()
    raise AssertionError("nothing was told")


async def test_every_kind_of_verb(served: Served) -> None:
    spec = served.daemon.models / "tiny" / "tiny.json"
    assert "tiny" in (await served.ask("list")).stdout
    events = await followed(served, "events", "--json")
    assert events.stdout is not None
    await hears(events.stdout, lambda turn: tiny_models.write_spec(spec, metadata={"turn": turn}))
    (await served.ask("start", "tiny")).check_returncode()
    told: dict[str, Any] = {}
    while told.get("data", {}).get("state") != "running":
        told = json.loads(await asyncio.wait_for(events.stdout.readline(), 20))
    assert told["type"] == "model.state"
    events.terminate()
    await events.wait()

    (running,) = json.loads((await served.ask("list", "--state", "running", "--json")).stdout)["data"]
    assert running["id"] == "tiny"
    chatted = await asyncio.to_thread(
        subprocess.run,
        [*JAND, *served.options("https", "127.0.0.1"), "chat", "tiny", "--param", "max_tokens=3"],
        env=served.shell.environment,
        input="hello\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert chatted.returncode == 0, chatted.stderr
    assert chatted.stdout.strip()
    assert "jand: ready" in (await served.ask("logs", "tiny")).stdout
    status = json.loads((await served.ask("status", "--json")).stdout)
    assert status["url"] == f"https://localhost:{served.port}"
    assert (await served.ask("doctor", "--root", str(served.daemon.root))).stdout.count("it answers on https://") == 1
    assert "nothing has changed" in (await served.ask("reload")).stdout
    assert (await served.ask("problems")).stdout == "no problems\n"
    assert "done" not in (await served.ask("stop", "tiny")).stderr
    assert TOKEN not in served.daemon.log()


async def test_what_cannot_be_is_one_sentence_and_a_hint_and_variables_stand_for_the_options(
    served: Served, tmp_path: Path
) -> None:
    url = f"https://localhost:{served.port}"
    token, cert = ("--token-file", served.token_file), ("--certificate", served.cert)
    wrong = tmp_path / "wrong"
    wrong.write_text("another")
    cases: dict[tuple[str, ...], tuple[int, str, str]] = {
        ("--url", url, *cert): (77, "token is missing or wrong", "--token-file"),
        ("--url", url, *cert, "--token-file", str(wrong)): (77, "token is missing or wrong", "--token-file"),
        ("--url", url, *token): (69, "certificate is not trusted", "--certificate"),
        ("--url", url.replace("https", "http"), *token): (69, "closed the connection", "https://"),
        ("--url", "https://localhost:1", *token): (69, "nobody listens there", "listen"),
        ("--url", "localhost:1337"): (78, "no address of a daemon", "http://HOST:PORT"),
        ("--url", url, "--token-file", "/nowhere/token"): (78, "/nowhere/token", "first line"),
        ("--url", url, *token, "--certificate", served.token_file): (78, "no PEM file", "cert.pem"),
    }
    said = await asyncio.gather(
        *(served.shell(*options, "list", status=status) for options, (status, _, _) in cases.items())
    )
    for ended, (_, message, hint) in zip(said, cases.values(), strict=True):
        first, second = ended.stderr.splitlines()
        assert message in first
        assert second.startswith("hint: ")
        assert hint in second
        assert TOKEN not in ended.stderr

    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    ended = await served.shell("--url", "http://192.0.2.1:1337", "add", str(tmp_path / "x.gguf"), status=1)
    assert "runs on another machine" in ended.stderr
    assert "scp" in ended.stderr

    environ = {"JAND_URL": f"{url}/v1", "JAND_TOKEN": TOKEN, "JAND_CERTIFICATE": served.cert}
    served.shell.environment.update(environ)
    assert "tiny" in (await served.shell("list")).stdout
    ended = await served.shell("list", "--socket", "/nowhere/jand.sock", status=69)
    assert "/nowhere/jand.sock" in ended.stderr
    # A daemon that is started where they are set takes no notice of them.
    assert "JAND_URL" not in (await served.shell("config", "--root", str(served.daemon.root))).stdout
