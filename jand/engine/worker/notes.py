"""Lines for the worker's log, which is its standard error."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def note(line: str) -> None:
    os.write(2, line.encode("utf-8", "replace") + b"\n")


def log_unknown(names: Sequence[str]) -> None:
    if names:
        note(f"ignoring unknown request fields: {', '.join(sorted(names))[:200]}")
