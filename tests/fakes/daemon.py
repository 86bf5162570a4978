"""A real daemon as a child process, on a root and a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import psutil

from tests.fakes.waiting import until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from types import TracebackType


class DaemonProcess:
    """Use as an async context manager: started and ready inside, killed with all its children after.

    Without *streams* it is started with standard input, output and error closed, and leaves no log.

    The socket lies in a short temporary directory of its own, because pytest's paths are too long for one. *flags* are those of `jand serve`, *start* is what runs jand; no hub is reached
    unless *environ* says otherwise.
    """

    def __init__(
        self,
        root: Path,
        *flags: str,
        socket: Path | None = None,
        environ: Mapping[str, str] | None = None,
        streams: bool = True,
        start: Sequence[str] = (sys.executable, "-m", "jand"),
    ) -> None:
        self.root = root
        self.models = root / "models"
        self._flags = flags
        self._start = list(start)
        if not streams:
            self._start = ["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *self._start]
        self._environ = environ or {}
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        self.socket = socket or Path(self._scratch.name) / "run" / "jand.sock"
        self.log_path = Path(self._scratch.name) / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.spawn()
        try:
            await self.ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
        children = self.workers()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.process.wait, 6)
            self.process.kill()
            self.process.wait()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        if error is not None:
            sys.stderr.write(self.log())
        self._scratch.cleanup()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process (again, after it ended) without waiting for it."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self._start, "serve", "--root", str(self.root), "--socket", str(self.socket)),
                    *("--log-format", "json", "--log-level", "debug"),
                    *self._flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": self._scratch.name, "HF_HUB_OFFLINE": "1", **self._environ},
            )
        return self.process

    async def ready(self, timeout_s: float = 20.0) -> None:
        """Wait until the first scan is done."""

        async def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log()}"
            try:
                async with self.session.get("http://jand/ready") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until(is_ready, timeout_s, what="the daemon to be ready")

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket), limit=0))
        return self._session

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def call(self, method: str, path: str, body: Any = None, *, status: int | None = 200) -> Any:
        """Return the JSON that the daemon answers; *status* is what it must answer with (None: whatever)."""
        async with self.session.request(method, f"http://jand{path}", json=body) as response:
            answer = await response.json()
            assert status is None or response.status == status, (response.status, answer)
            return answer

    async def models_by_id(self, query: str = "") -> dict[str, Any]:
        listed = await self.call("GET", f"/v1/models{query}")
        return {model["id"]: model for model in listed["data"]}

    async def find(self, model_id: str) -> dict[str, Any] | None:
        answer = await self.call("GET", f"/v1/models/{model_id}", status=None)
        return None if "error" in answer and "id" not in answer else answer

    async def state(self, model_id: str) -> str | None:
        model = await self.find(model_id)
        return None if model is None else model["state"]

    async def until_state(self, model_id: str, state: str | None, timeout_s: float = 10.0) -> None:
        async def reached() -> bool:
            return await self.state(model_id) == state

        await until(reached, timeout_s, what=f"{model_id} to be {state}")

    def workers(self) -> list[psutil.Process]:
        """Return the living children of the daemon."""
        if self.process is None:
            return []
        try:
            children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []
        return children

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_events(self) -> list[dict[str, Any]]:
        lines = self.log().splitlines(keepends=True)  # the last one may be half written
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    async def told(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the log's lines about *event* as soon as there are *count*: a thread of the daemon writes them, a moment after they are said."""

        def lines() -> list[dict[str, Any]] | None:
            found = [line for line in self.log_events() if line["event"] == event]
            return found if len(found) >= count else None

        return await until(lines, what=f"{count} lines about {event!r}") or []

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self, timeout_s: float = 10.0) -> int:
        """Return the exit status."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, timeout_s)


def find_worker(daemon: DaemonProcess, model: str) -> psutil.Process | None:
    """Find the process that serves or loads *model*: the daemon gives a worker its model's id as the last argument."""
    for process in daemon.workers():
        try:
            if process.cmdline()[-1:] == [model] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except psutil.Error:
            continue
    return None
