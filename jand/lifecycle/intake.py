"""Models that come in by being asked for: a JSON is written for them, and they are here once the scan has registered it; what they would fetch can be told before.

The JSON goes the way of any airdrop. Waiting for it begins before it is written: a scan may be faster than the thread that wrote it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jand.errors import NotPossibleError, RootOfflineError
from jand.lifecycle import registering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from jand.download.downloader import Downloader, Received
    from jand.download.plan import Plan
    from jand.library.findings import Tree
    from jand.library.library import Library
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.catalog import Catalog, CatalogEntry
    from jand.lifecycle.fetching import Fetching
    from jand.lifecycle.registering import Draft
    from jand.lifecycle.registry import Registry
    from jand.model.spec import Spec

SEEN_TIMEOUT_S: Final = 30.0
"""A scan that takes longer than this to see what was just written or deleted is a bug; the call then fails rather than hang."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What a registration would do: *spec* would be written to *path* and be called *model_id*, and *plan* be fetched. *exists*: that id is taken, or that file is there."""

    model_id: str
    path: str
    spec: Spec
    plan: Plan
    exists: bool


class Intake:
    """Writes into *tree*, the root's own. *place_of* tells in which tree and entry an actor's JSON lies."""

    def __init__(
        self,
        tree: Tree,
        library: Library,
        registry: Registry,
        fetching: Fetching,
        downloader: Downloader,
        catalog: Catalog,
        place_of: Callable[[Actor], tuple[Tree, str]],
    ) -> None:
        self._tree = tree
        self._library = library
        self._registry = registry
        self._fetching = fetching
        self._downloader = downloader
        self._catalog = catalog
        self._place_of = place_of
        self._awaited: dict[str, asyncio.Future[Actor]] = {}

    def registered(self, actor: Actor) -> None:
        """Tell whoever waits for *actor* that a scan has found it."""
        awaited = self._awaited.get(actor.found.path)
        if awaited is not None and not awaited.done():
            awaited.set_result(actor)

    async def register(self, body: Mapping[str, Any]) -> Actor:
        """Write the model JSON that *body* asks for; return once it is registered."""
        draft, _ = await self._draft(body)
        self._refuse_existing(draft)
        return await self._write(draft, self._tree, draft.directory.name)

    async def preview(self, body: Mapping[str, Any]) -> Preview:
        """Say what `register` would do, without doing it. Asks the hub; raises DownloadError."""
        draft, spec = await self._draft(body)
        actor = self._registry.find_path(draft.path)
        if actor is not None:
            plan = await self._fetching.plan_again(actor)
        else:
            stem = draft.name.removesuffix(".json")
            plan = await self._downloader.plan(spec, draft.directory, {}, stem=stem)
        exists = actor is not None or self._registry.find(draft.model_id) is not None
        return Preview(draft.model_id, draft.path, spec, plan, exists)

    async def plan_entry(self, entry: CatalogEntry) -> Plan:
        """Return what an entry of the catalogue would fetch, as far as sizes tell: nobody has asked for it yet. Asks the hub; raises DownloadError."""
        return await self._downloader.plan(entry.spec, self._tree.path / entry.id, {}, stem=entry.id, roughly=True)

    async def copy(self, original: Actor, body: Mapping[str, Any]) -> Actor:
        """Write beside the JSON of *original* another one that shares its binaries; return once it is registered."""
        tree, entry = self._place_of(original)
        found = original.found
        if not tree.writable or found.linked:
            where = f"{tree.path} is only read by jand" if not tree.writable else "its folder is reached through a link"
            message = f'cannot copy "{original.id}": {where}'
            raise NotPossibleError(message, hint="copy its JSON into the models folder with an absolute download_url")
        draft = registering.compose_copy(found, body, self._fetching.needed(original))
        registering.validate(draft)
        self._refuse_existing(draft)
        if found.generated:
            await asyncio.to_thread(registering.make_a_persons, found.file)
        return await self._write(draft, tree, entry)

    async def receive(self, folder: str, name: str, pieces: AsyncIterator[bytes], **announced: Any) -> Received:
        """Take a file that somebody sends into *folder* of the root's own tree; return once it is there, and before a scan has seen it."""
        received = await self._downloader.receive(self._tree.path, folder, name, pieces, **announced)
        self._library.touch(self._tree.label, folder)
        return received

    async def _draft(self, body: Mapping[str, Any]) -> tuple[Draft, Spec]:
        endpoint = self._downloader.endpoint
        draft = await asyncio.to_thread(registering.compose, body, self._tree.path, self._catalog, endpoint)
        return draft, registering.validate(draft)

    def _refuse_existing(self, draft: Draft) -> None:
        """Two files that claim one id would both be registered, one of them under another."""
        if self._registry.find(draft.model_id) is not None:
            raise registering.exists(draft)

    async def _write(self, draft: Draft, tree: Tree, entry: str) -> Actor:
        if draft.path in self._awaited:
            raise registering.exists(draft)
        future: asyncio.Future[Actor] = asyncio.get_running_loop().create_future()
        self._awaited[draft.path] = future
        try:
            await asyncio.to_thread(registering.write, draft)
            self._library.touch(tree.label, entry)
            return await asyncio.wait_for(future, SEEN_TIMEOUT_S)
        except TimeoutError as error:
            message = f'cannot show "{draft.model_id}": {draft.path} is written, and no scan has seen it'
            raise RootOfflineError(message, hint="see what is wrong: jand problems") from error
        finally:
            del self._awaited[draft.path]
