"""A library over real folders: what it tells, and what a fresh scan of the same folders says."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jand.library import scan
from jand.library.findings import Tree
from jand.library.headers import HeaderCache
from jand.library.library import Library, LibrarySettings
from jand.library.vigilance import Vigilance
from jand.library.watcher import default_observer
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from jand.library.findings import Binary, EntryScan
    from jand.library.settle import Key
    from jand.library.status import Mode, WatchStatus
    from jand.library.watcher import ObserverLike
    from jand.model.problem import ErrorNote

SPEC = '{"origin": "https://api.openai.com", "import_format": "openai", "metadata": {"description": "%s"}}'
"""A model JSON that needs no binary."""

SEEMS_SETTLED_S = 3600.0
"""So much later than now, everything that lies in a folder has lain there for long."""

QUICK = Vigilance(check_s=0.2, cookie_s=1.0, cookie_timeout_s=2.0, audit_s=1.0)
"""As the daemon does it, several times as often."""

NEVER_S = 3600.0
"""Sweeps this seldom do not come within a test: what is seen is seen by events."""


def add_model(folder: Path, name: str = "model.json", *, description: str = "") -> Path:
    """Write the JSON of a remote model into *folder*, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(SPEC % description)
    return path


@dataclass
class Watched:
    """A running library and everything that it has told."""

    trees: list[Tree]
    library: Library = field(init=False)
    picture: dict[Key, EntryScan] = field(default_factory=dict)
    told: list[EntryScan] = field(default_factory=list)
    statuses: list[WatchStatus] = field(default_factory=list)
    listeners: list[Callable[[EntryScan], None]] = field(default_factory=list)

    def on_scan(self, found: EntryScan) -> None:
        for listener in self.listeners:
            listener(found)
        key = (found.tree.label, found.entry)
        self.told.append(found)
        if found.exists:
            self.picture[key] = found
        else:
            assert key in self.picture, f"{key} is told to be gone and never was there"
            del self.picture[key]

    @property
    def models(self) -> set[str]:
        """The paths of all models, as shown."""
        return {found.path for scanned in self.picture.values() for found in scanned.models}

    @property
    def problem_codes(self) -> set[str]:
        """Those of the watch, now."""
        return {problem.code for problem in self.library.status.problems}

    @property
    def codes_so_far(self) -> set[str]:
        return {problem.code for status in self.statuses for problem in status.problems}

    def mode(self, label: str = "models") -> Mode:
        return self.library.status.modes[label]

    async def until_models(self, *paths: str, timeout_s: float = 5.0) -> None:
        """Wait until exactly the models with *paths* are there."""
        await until(
            lambda: self.models == set(paths), timeout_s, what=f"models {sorted(paths)}, have {sorted(self.models)}"
        )

    async def until_model(self, path: str, timeout_s: float = 5.0) -> None:
        await until(lambda: path in self.models, timeout_s, what=f"model {path}")

    async def until_true_to_disk(self, timeout_s: float = 5.0) -> None:
        """Wait until what was told is what a fresh scan says."""
        try:
            await until(lambda: not self.differences(), timeout_s)
        except AssertionError:
            raise AssertionError(f"after {timeout_s} s these differ:\n" + "\n".join(self._describe())) from None

    def _describe(self) -> list[str]:
        return [
            f"{key}: {side} {'nothing' if scanned is None else (scanned.offline, scanned.models, scanned.bare, scanned.problems)}"
            for key, sides in self.differences().items()
            for side, scanned in zip(("told", "disk"), sides, strict=True)
        ]

    def differences(self) -> dict[Key, tuple[EntryScan | None, EntryScan | None]]:
        """Return what was told and what a fresh scan says, where they differ.

        What leads nowhere is told as it was before that, which a fresh scan cannot know.
        """
        fresh = fresh_picture(self.trees)
        keys = fresh.keys() | self.picture.keys()
        sides = {key: (_essence(self.picture.get(key)), _essence(fresh.get(key))) for key in keys}
        return {
            key: (told, disk)
            for key, (told, disk) in sides.items()
            if told != disk and not (_is_offline(told) and _is_offline(disk))
        }


def _essence(scanned: EntryScan | None) -> EntryScan | None:
    """Return *scanned* without the sentences for people: what is wrong with a file is found out once for all names that it has, and the sentence has the name by which it was met first."""
    if scanned is None:
        return None
    return dataclasses.replace(
        scanned,
        models=tuple(
            dataclasses.replace(found, error=_bare(found.error), binaries=tuple(map(_unworded, found.binaries)))
            for found in scanned.models
        ),
        bare=tuple(dataclasses.replace(bare, binaries=tuple(map(_unworded, bare.binaries))) for bare in scanned.bare),
        problems=tuple(dataclasses.replace(problem, message="", hint="") for problem in scanned.problems),
    )


def _unworded(binary: Binary) -> Binary:
    return dataclasses.replace(binary, error=_bare(binary.error))


def _bare(note: ErrorNote | None) -> ErrorNote | None:
    return None if note is None else dataclasses.replace(note, message="", hint="")


def _is_offline(scanned: EntryScan | None) -> bool:
    return scanned is not None and scanned.offline


def fresh_picture(trees: list[Tree]) -> dict[Key, EntryScan]:
    headers = HeaderCache()
    now = time.time() + SEEMS_SETTLED_S
    return {
        (tree.label, entry): scan.scan_entry(tree, entry, headers, now=now)
        for tree in trees
        for entry in scan.list_entries(tree)
    }


def quick(**changes: object) -> LibrarySettings:
    """Return settings with which supervision is quick and sweeps do not come by themselves."""
    settings = LibrarySettings(settle_s=0.3, rescan_s=NEVER_S, poll_s=0.5, vigilance=QUICK)
    return dataclasses.replace(settings, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def watching(
    *roots: Path | Tree,
    settings: LibrarySettings | None = None,
    observer: Callable[[], ObserverLike] = default_observer,
) -> AsyncIterator[Watched]:
    """Run a library over *roots*, the first of which is `models`, until the first scan is told and to the end of the block."""
    trees = [
        root if isinstance(root, Tree) else Tree(root, "models" if not number else str(root))
        for number, root in enumerate(roots)
    ]
    watched = Watched(trees)
    watched.library = Library(
        trees,
        settings or quick(),
        headers=HeaderCache(),
        on_scan=watched.on_scan,
        on_status=watched.statuses.append,
        observer=observer,
    )
    running = asyncio.ensure_future(watched.library.run())
    try:
        ready = asyncio.ensure_future(watched.library.ready.wait())
        await asyncio.wait({ready, running}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        assert ready.done(), "the first scan does not end"
        yield watched
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
