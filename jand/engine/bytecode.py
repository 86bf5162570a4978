"""Compiled modules of the worker. A confined worker may write nowhere, and without them each start would compile them anew, which costs more than loading a small model."""

from __future__ import annotations

import compileall
from functools import cache
from pathlib import Path

PROGRAM = Path(__file__).parent


@cache
def compile_worker() -> None:
    """Compile what is not compiled, or has changed; once in a process. Blocks; where the installation is read-only nothing happens."""
    compileall.compile_dir(PROGRAM, quiet=2)
