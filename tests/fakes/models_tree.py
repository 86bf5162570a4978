"""A models folder of a test: files put into it in a line each, and scans of it, also as they would be some seconds later."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jand.library.findings import LOOSE, Tree
from jand.library.headers import HeaderCache, is_racy, make_stamp
from jand.library.scan import list_entries, scan_entry
from tests.fakes import gguf_files
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

    from jand.library.findings import BareBinary, EntryScan, Found
    from jand.model.problem import Problem

LATER_S = 60.0
"""When everything that lies there counts as lying there for long."""


@dataclass
class ModelsTree:
    path: Path
    headers: HeaderCache = field(default_factory=HeaderCache)
    writable: bool = True

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def tree(self) -> Tree:
        return Tree(self.path, "models", self.writable)

    def at(self, name: str) -> Path:
        """Return the path of *name*, whose folder is made."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, text: str) -> Path:
        path = self.at(name)
        path.write_text(text)
        return path

    def spec(self, name: str, **fields: Any) -> Path:
        """Write a model JSON."""
        return self.text(name, json.dumps({"origin": "user/repo", **fields}))

    def gguf(self, file: str, **facts: Any) -> Path:
        """Write a small whole GGUF."""
        return gguf_files.bare_header(self.at(file), **facts)

    def projector(self, name: str) -> Path:
        return gguf_files.bare_header(self.at(name), architecture="clip", kind="mmproj")

    def listed(self, folder: str) -> list[str]:
        """Return the names of all that lies in *folder*."""
        return sorted(path.name for path in (self.path / folder).iterdir())

    def scan(self, entry: str, *, later_s: float = 0.0) -> EntryScan:
        return scan_entry(self.tree, entry, self.headers, now=time.time() + later_s)

    def scan_all(self, *, later_s: float = LATER_S) -> list[EntryScan]:
        return [self.scan(entry, later_s=later_s) for entry in list_entries(self.tree)]

    def models(self) -> dict[str, Found]:
        """Scan everything, as it would be later, and return the models by their paths."""
        return {found.path: found for scan in self.scan_all() for found in scan.models}

    def only(self, entry: str = LOOSE, *, later_s: float = LATER_S) -> Found:
        """Scan *entry*, which holds one model, and return it."""
        (found,) = self.scan(entry, later_s=later_s).models
        return found

    def bare(self) -> list[BareBinary]:
        return [bare for scan in self.scan_all() for bare in scan.bare]

    def problems(self) -> list[Problem]:
        return [problem for scan in self.scan_all() for problem in scan.problems]

    def changed_at(self, name: str) -> float:
        """Return the Unix time of the last change of *name*."""
        return (self.path / name).stat().st_ctime_ns / 1e9

    def let_age(self) -> None:
        """Wait until what lies there may be remembered: the clock of a file system ticks."""
        files = [path for path in self.path.rglob("*") if path.is_file()]
        until_sync(lambda: not any(is_racy(make_stamp(path.stat())) for path in files), what="files to age")
