"""Giving a bare GGUF its JSON, and taking a generated one away when a person's JSON claims the binary.

Waits until the folder is settled: a JSON often lands right after its binary, and then there is nothing to adopt.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from jand.library import adopt

if TYPE_CHECKING:
    from jand.library.findings import BareBinary, EntryScan, Found
    from jand.library.library import Library
    from jand.lifecycle.notes import Notes
    from jand.tasks import TaskSet

log = structlog.get_logger(__name__)

DECLINED = "declined"
"""The section of the notes with the binaries whose JSON was deleted and which were kept: adopting those again would undo the DELETE."""


class Adoption:
    """At most one adoption for an entry is under way; each looks again at what the last scan of it said."""

    def __init__(self, library: Library, tasks: TaskSet, notes: Notes) -> None:
        self._library = library
        self._tasks = tasks
        self._notes = notes
        self._last: dict[tuple[str, str], EntryScan] = {}
        self._busy: set[tuple[str, str]] = set()

    def consider(self, scan: EntryScan) -> None:
        key = (scan.tree.label, scan.entry)
        if not scan.bare and not any(found.generated for found in scan.models):
            self._last.pop(key, None)
            return
        self._last[key] = scan
        if key not in self._busy:
            self._busy.add(key)
            self._tasks.spawn(self._attend(key), name=f"adopt in {scan.entry or 'the models folder'}")

    def decline(self, found: Found, *, links_alone: bool) -> None:
        """Leave the binaries in the folder of *found*, or those among them that are links, bare from now on, as they are."""
        for binary in found.binaries:
            inside = binary.path.is_relative_to(found.directory)
            if binary.stamp is not None and inside and not (links_alone and binary.owned):
                self._notes.note(
                    DECLINED, _identity(binary.stamp.device, binary.stamp.inode, binary.stamp.size), str(binary.path)
                )

    async def _attend(self, key: tuple[str, str]) -> None:
        seen: EntryScan | None = None
        try:
            while (scan := self._last.get(key)) is not None and scan is not seen:
                await self._library.wait_settled(*key)
                if self._last.get(key) is not scan:
                    continue
                seen = scan
                changed = await asyncio.to_thread(self._act, scan)
                if changed:
                    self._library.touch(*key)
        finally:
            self._busy.discard(key)

    def _act(self, scan: EntryScan) -> bool:
        """Write and remove what this scan calls for (blocks for disk I/O); return whether anything was done."""
        done = False
        for superseded in adopt.find_superseded(scan):
            superseded.unlink(missing_ok=True)
            log.info("generated JSON removed", path=str(superseded), reason="another JSON claims its binary")
            done = True
        for bare in scan.bare:
            if self._wanted(bare) and (written := adopt.adopt(bare)) is not None:
                log.info("binary adopted", path=str(written))
                done = True
        return done

    def _wanted(self, bare: BareBinary) -> bool:
        return all(
            binary.whole
            and binary.stamp is not None
            and self._notes.find(DECLINED, _identity(binary.stamp.device, binary.stamp.inode, binary.stamp.size))
            is None
            for binary in bare.binaries
        )


def _identity(device: int, inode: int, size: int) -> str:
    return f"{device}:{inode}:{size}"
