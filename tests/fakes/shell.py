"""The command line as a process of its own, with or without a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

JAND = (sys.executable, "-m", "jand")


class Shell:
    """Runs `jand` where `JAND_SOCKET` names a daemon."""

    def __init__(self, socket: Path) -> None:
        self.environment = {**os.environ, "JAND_SOCKET": str(socket), "COLUMNS": "160"}

    async def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        ended = await asyncio.to_thread(
            subprocess.run,
            [*JAND, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == status, (arguments, ended.stdout, ended.stderr)
        return ended

    async def json(self, *arguments: str) -> Any:
        return json.loads((await self(*arguments, "--json")).stdout)

    def on_terminal(self, *arguments: str, typed: bytes = b"", shown: bytearray | None = None) -> tuple[int, str]:
        """Run on a terminal of its own where somebody has *typed* something; return the exit status and what it showed.

        *shown* grows while it runs, for a test that looks on from another thread.
        """
        shown = bytearray() if shown is None else shown
        here, there = pty.openpty()
        environment = {**self.environment, "TERM": "xterm-256color"}
        process = subprocess.Popen([*JAND, *arguments], env=environment, stdin=there, stdout=there, stderr=there)
        os.close(there)
        os.write(here, typed)
        while piece := _read(here):
            shown += piece
        os.close(here)
        return process.wait(60), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""
