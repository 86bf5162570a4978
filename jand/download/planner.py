"""Gathers what a plan is made from, the hub's listing, a header read by ranges, this machine, the disk, and hands it to `plan`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from jand.download import sweep
from jand.download.disk import reserve_of
from jand.download.importers import IMPORTERS
from jand.download.importers.importer import find_one_model
from jand.download.importers.janhq import LARGEST_JSON, parse_own_json
from jand.download.plan import Plan, Surroundings, Wish, fetches, header_wanted, make_plan, repositories_needed
from jand.download.recommend import Row, Use, beside_weights, recommend
from jand.download.repository import Repository, find_hub_address, parse_repository
from jand.download.variants import projectors_of
from jand.download.wish import fill, wish_of
from jand.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from jand.download.hub import Found, Hub
    from jand.download.recommend import Machine
    from jand.download.settings import DownloadSettings
    from jand.model.spec import Spec

_SEARCHES_AT_ONCE: Final = 4
_PLANS_AT_ONCE: Final = 8
"""Thousands of JSONs may be dropped together; the hub is asked for a few at a time."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One repository that a search found. *table* has its variants with what they need here; *note* says why there is none, or none that fits."""

    repository: str
    downloads: int
    likes: int
    gated: bool
    table: tuple[Row, ...] = ()
    note: str = ""


class Planner:
    """*measure* looks at the machine, blocking; it is asked once."""

    def __init__(self, hub: Hub, settings: DownloadSettings, measure: Callable[[], Machine]) -> None:
        self._hub = hub
        self._settings = settings
        self.min_free = settings.min_free
        self._measure = measure
        self._machine: Machine | None = None
        self._measuring = asyncio.Lock()
        self._turn = asyncio.Semaphore(_PLANS_AT_ONCE)

    async def machine(self) -> Machine:
        async with self._measuring:
            if self._machine is None:
                self._machine = await asyncio.to_thread(self._measure)
            return self._machine

    async def plan(
        self,
        spec: Spec,
        directory: Path,
        present: Mapping[str, int],
        *,
        stem: str = "",
        kept: Sequence[str] = (),
        roughly: bool = False,
    ) -> Plan:
        """Return what *spec*, whose JSON lies in *directory*, needs; see `Downloader.plan`."""
        wish = wish_of(spec, stem=stem, kept=tuple(kept))
        if not fetches(wish):
            return make_plan(wish, Surroundings(self._settings.endpoint, await self.machine()))
        async with self._turn:
            offered: Mapping[str, Any] = {}
            own_json = IMPORTERS[wish.import_format].own_json
            if own_json is not None:
                offered = await self._read_own_json(wish, own_json)
                wish = wish_of(fill(spec, offered), stem=stem, kept=tuple(kept))
            return replace(await self._plan(wish, directory, present, roughly=roughly), defaults=offered)

    async def _plan(self, wish: Wish, directory: Path, present: Mapping[str, int], *, roughly: bool) -> Plan:
        endpoint = self._settings.endpoint
        needed = repositories_needed(wish, endpoint)
        listings = {repository: await self._hub.listing(repository) for repository in needed}
        disk_free, begun = await asyncio.to_thread(self._look_at_disk, directory)
        if not wish.kept and not wish.download_url:
            wish = replace(wish, kept=self._begun_paths(wish, begun))
        around = Surroundings(endpoint, await self.machine(), listings, None, present, disk_free)
        if not roughly and (file := header_wanted(wish, around)) is not None:
            listing = listings[parse_repository(wish.origin, endpoint)]
            around = replace(around, header=await self._hub.header(listing, file))
        return make_plan(wish, around)

    async def _read_own_json(self, wish: Wish, name: str) -> Mapping[str, Any]:
        repository = parse_repository(wish.origin, self._settings.endpoint)
        raw = await self._hub.small_file(await self._hub.listing(repository), name, LARGEST_JSON)
        return parse_own_json(raw, repository) if raw is not None else {}

    def _look_at_disk(self, directory: Path) -> tuple[int, tuple[str, ...]]:
        """Return the bytes that may be written below *directory* (or where it will be), and the addresses of what was begun there."""
        existing = directory
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        status = os.statvfs(existing)
        free = status.f_bavail * status.f_frsize - reserve_of(status, self.min_free)
        notes = sweep.read_all_notes(directory)
        return max(0, free), tuple(each.source for each in notes)

    def _begun_paths(self, wish: Wish, begun: Sequence[str]) -> tuple[str, ...]:
        """Return the files of the wish's repository among what was begun: a choice made before a restart is kept."""
        name = parse_repository(wish.origin, self._settings.endpoint).name
        found = (find_hub_address(source, self._settings.endpoint) for source in begun)
        return tuple(address.path for address in found if address is not None and address.repository.name == name)

    async def search(self, words: str, limit: int) -> list[SearchHit]:
        """Return repositories with GGUF files for *words*, each with what fits here, by file sizes alone."""
        found = await self._hub.search(words, limit)
        turn = asyncio.Semaphore(_SEARCHES_AT_ONCE)

        async def look(each: Found) -> SearchHit:
            async with turn:
                return await self._look_into(each)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(look(each)) for each in found]
        return [task.result() for task in tasks]

    async def _look_into(self, found: Found) -> SearchHit:
        hit = SearchHit(found.id, found.downloads, found.likes, bool(found.gated))
        machine = await self.machine()
        try:
            listing = await self._hub.listing(Repository(found.id))
            variants = find_one_model(listing)
            projectors = projectors_of(listing.files)
            use = Use()
            beside = beside_weights(None, use, projectors[0].size if projectors else 0)
            choice = recommend(variants, machine, beside=beside, use=use)
        except DownloadError as error:
            return replace(hit, note=error.message)
        return replace(hit, table=choice.table)
