"""`jand serve --detach` as a person types it: what the terminal gets, and the daemon that it leaves behind."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from jand.client import Client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class Detached:
    """Use as a context manager: whatever daemon has the root's pid file at the end is killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        self.socket = Path(self._scratch.name) / "run" / "jand.sock"
        self.log = root / ".jand" / "jand.log"
        self.pid_file = root / ".jand" / "jand.pid"
        self.command = (sys.executable, "-m", "jand", "serve", "--detach")
        self.environ = {**os.environ, "HOME": self._scratch.name, "HF_HUB_OFFLINE": "1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(psutil.Error, ValueError, FileNotFoundError):
            process = psutil.Process(self.pid)
            children = process.children(recursive=True)
            process.kill()
            process.wait(5)
            for child in children:
                child.kill()
        if error is not None and self.log.exists():
            sys.stderr.write(self.log.read_text())
        self._scratch.cleanup()

    def flags(self, *more: str) -> list[str]:
        return ["--root", str(self.root), "--socket", str(self.socket), *more]

    def serve(
        self,
        *more: str,
        status: int = 0,
        environ: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
        **how: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Type the command and wait for the prompt; *before* is what it is typed behind, *how* goes to `subprocess.run`."""
        ended = subprocess.run(
            [*before, *self.command, *self.flags(*more)],
            env={**self.environ, **(environ or {})},
            text=True,
            timeout=30,
            check=False,
            **({"stdin": subprocess.DEVNULL, "capture_output": True} | how),
        )
        assert ended.returncode == status, (ended.returncode, ended.stdout, ended.stderr)
        return ended

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.pid)

    def client(self) -> Client:
        return Client(self.socket)
