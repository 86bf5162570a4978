"""A daemon on a scratch copy of janroot.example: started as a child, ended and swept away whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from jand.cli.errors import Failure
from jand.client import Client
from jand.errors import JandError
from jand.paths import Janroot, shipped_example

if TYPE_CHECKING:
    from types import TracebackType

START_S: Final = 30.0
STOP_S: Final = 10.0
POLL_S: Final = 0.02
LONGEST_SOCKET: Final = 100
"""Bytes; the kernels allow 104 to 108."""


def example() -> Path:
    """Return janroot.example. Raises Failure where it is missing."""
    place = shipped_example()
    if not place.is_dir():
        raise Failure(f"cannot find {place}: this installation is incomplete", hint="install jand again")
    return place


class ScratchDaemon:
    """`async with` starts it and waits until it is ready; the end of the block ends it and removes its folder.

    It runs in a session of its own, so that Ctrl-C reaches the caller alone, who ends it in order.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jand-demo-"))
        if len(str(self.folder)) > LONGEST_SOCKET - len("/jand.sock"):
            self.folder.rmdir()
            self.folder = Path(tempfile.mkdtemp(prefix="jand-demo-", dir="/tmp"))
        self.root = Janroot(self.folder / "janroot")
        self.socket = self.folder / "jand.sock"
        self.log = self.folder / "log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(shutil.copytree, example(), self.root.path)
            await self._start()
        except BaseException:
            await self._sweep()
            raise
        return self

    async def _start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAND_")}
        command = [sys.executable, "-m", "jand", "serve", "--root", str(self.root.path), "--socket", str(self.socket)]
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                "--log-format",
                "text",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not await self._answers():
            if self._process.returncode is not None:
                raise Failure(f"cannot start the daemon: it ended with status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise Failure(f"cannot start the daemon: it does not answer after {START_S:.0f} s")
            await asyncio.sleep(POLL_S)

    async def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        try:
            async with Client(self.socket) as client:
                await client.list_models()
        except JandError:
            return False
        return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def stop(self) -> None:
        """Ask it to end, as a service manager would, and wait until it has. Raises Failure where that goes wrong."""
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_S):
            status = await process.wait()
        if status != 0:
            raise Failure(f"cannot call this a success: the daemon ended with status {status}")

    def last_lines(self, count: int = 15) -> list[str]:
        try:
            return self.log.read_text(errors="replace").splitlines()[-count:]
        except OSError:
            return []

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self._sweep()

    async def _sweep(self) -> None:
        try:
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(TimeoutError, Failure):
                    await self.stop()
        finally:
            if self._process is not None and self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
