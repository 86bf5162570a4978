"""After any sequence of operations on the disk, what was told equals a fresh scan.

Operations run one after the other without waiting, so that they overlap with the watch, with scans and with one another's events; jand's own writes are among them. Sweeps do not come by
themselves: where the watcher loses its way (it does, see the reference on watching), supervision has to notice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jand import atomic
from jand.library.findings import Tree
from tests.fakes.gguf_files import bare_header
from tests.fakes.library import add_model, quick, watching

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = ["a", "b", "a/in", "a/in/deep", "b/in", ""]
NAMES = [
    "model.json",
    "other.json",
    "weights.gguf",
    "weights-00001-of-00002.gguf",
    "config.json",
    "notes.txt",
    "half.json",
]

DEFAULT_SEQUENCES = 20
SOAK_SEQUENCES = 2000


class Disk:
    """A tree, a place outside it, and operations on them; one that is not possible just now does nothing."""

    def __init__(self, base: Path) -> None:
        self.root = base / "models"
        self.outside = base / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        self._count = 0

    def do_all(self, burst: list[tuple[str, str, str, str]]) -> None:
        for operation in burst:
            self.do(*operation)

    def do(self, action: str, folder: str, other: str, name: str) -> None:
        self._count += 1
        operation: Callable[[Path, Path, str], None] = getattr(self, action)
        try:
            operation(self.root / folder, self.root / other, name)
        except (OSError, shutil.Error):
            return

    def write(self, folder: Path, _: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gguf"):
            bare_header(folder / name, size=1000 + self._count)
        elif name == "half.json":
            (folder / name).write_text('{"origin": ')
        else:
            add_model(folder, name, description=str(self._count))

    def write_slowly(self, folder: Path, other: Path, name: str) -> None:
        self.write(folder, other, name)
        content = (folder / name).read_bytes()
        with (folder / name).open("wb", buffering=0) as stream:
            for start in range(0, len(content), 200):
                stream.write(content[start : start + 200])

    def write_and_rename(self, folder: Path, _: Path, name: str) -> None:
        new = add_model(self.outside, f"new-{self._count}.json", description=str(self._count))
        new.replace(folder / name)

    def write_as_jand(self, folder: Path, _: Path, name: str) -> None:
        (folder / ".jand-part").mkdir(exist_ok=True)
        (folder / ".jand-part" / "partial").write_bytes(b"x" * self._count)
        atomic.write(folder / name, b'{"origin": "someone/something"}', replace=True)
        shutil.rmtree(folder / ".jand-part")

    def remove(self, folder: Path, _: Path, name: str) -> None:
        (folder / name).unlink()

    def remove_folder(self, folder: Path, _: Path, name: str) -> None:
        if folder != self.root:
            shutil.rmtree(folder)

    def rename(self, folder: Path, other: Path, name: str) -> None:
        (folder / name).rename(other / name)

    def rename_folder(self, folder: Path, other: Path, name: str) -> None:
        if folder != self.root:
            folder.rename(other / f"moved-{self._count % 3}")

    def exchange_folders(self, folder: Path, other: Path, name: str) -> None:
        if self.root not in {folder, other}:
            folder.rename(self.outside / "exchanged")
            other.rename(folder)
            (self.outside / "exchanged").rename(other)

    def move_out(self, folder: Path, _: Path, name: str) -> None:
        if folder != self.root:
            folder.rename(self.outside / f"out-{self._count}")

    def move_in(self, _: Path, other: Path, name: str) -> None:
        away = sorted(self.outside.glob("out-*"))
        if away:
            away[0].rename(other / f"moved-{self._count % 3}")

    def copy_folder(self, folder: Path, other: Path, name: str) -> None:
        # Into itself a copy never ends but by the length of its paths; cp refuses that.
        if folder not in {self.root, other, *other.parents}:
            shutil.copytree(folder, other / f"copy-{self._count % 3}", symlinks=True, dirs_exist_ok=True)

    def write_outside(self, _: Path, __: Path, name: str) -> None:
        """Write where the folder now is that was moved out: its old name must not come back."""
        for away in self.outside.glob("out-*"):
            add_model(away, name)

    def remove_outside(self, _: Path, __: Path, name: str) -> None:
        for away in self.outside.glob("out-*"):
            shutil.rmtree(away)

    def hard_link(self, folder: Path, other: Path, name: str) -> None:
        (other / f"linked-{name}").hardlink_to(folder / name)

    def link_to_file(self, folder: Path, other: Path, name: str) -> None:
        (other / f"soft-{name}").symlink_to(folder / name)

    def link_to_folder(self, folder: Path, other: Path, name: str) -> None:
        (other / f"link-{self._count % 3}").symlink_to(folder)

    def touch(self, folder: Path, _: Path, name: str) -> None:
        os.utime(folder / name, (1_000_000_000, 1_000_000_000))

    def truncate(self, folder: Path, _: Path, name: str) -> None:
        os.truncate(folder / name, 10)

    def replace_folder_by_file(self, folder: Path, _: Path, name: str) -> None:
        if folder != self.root:
            shutil.rmtree(folder)
            folder.write_text("no folder")

    def replace_file_by_folder(self, folder: Path, _: Path, name: str) -> None:
        if folder.is_file():
            folder.unlink()
            add_model(folder, name)


ACTIONS = sorted(name for name, value in vars(Disk).items() if callable(value) and not name.startswith(("_", "do")))

operations = st.tuples(
    st.sampled_from(ACTIONS + ["write"] * 6),
    st.sampled_from(FOLDERS),
    st.sampled_from(FOLDERS),
    st.sampled_from(NAMES),
)
sequences = st.lists(st.lists(operations, min_size=1, max_size=8), min_size=1, max_size=5)


async def check(bursts: list[list[tuple[str, str, str, str]]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        disk = Disk(Path(base))
        async with watching(Tree(disk.root, "models"), settings=quick(settle_s=0.05, poll_s=0.2)) as watched:
            for burst in bursts:
                await asyncio.to_thread(disk.do_all, burst)
            await watched.until_true_to_disk(12.0)


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_was_told_equals_a_fresh_scan(soak: bool) -> None:
    @settings(
        max_examples=SOAK_SEQUENCES if soak else DEFAULT_SEQUENCES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(sequences)
    def run(bursts: list[list[tuple[str, str, str, str]]]) -> None:
        asyncio.run(check(bursts))

    run()
