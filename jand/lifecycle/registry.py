"""Every model that the disk holds, by path and by id: derived from scans alone, so that a scan can rebuild it.

Scans of many entries may come in one go (at the start, after an overflow); they are gathered and turned into actors once, because ids are a matter between all models.
"""

from __future__ import annotations

import asyncio
import difflib
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from jand.errors import ModelNotFoundError
from jand.lifecycle.actor import Actor
from jand.model import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jand.library.findings import EntryScan, Found
    from jand.lifecycle.surroundings import Surroundings
    from jand.model.problem import Problem

Key = tuple[str, str]
"""An entry: the label of its tree and its name there."""


AT_ONCE: Final = 8
"""Models that are registered in one turn of the event loop: about a millisecond."""

_NOTHING: Final[dict[str, Found]] = {}


class Listener(Protocol):
    """Who is told what a scan changed."""

    def registered(self, actor: Actor) -> None: ...

    def found_again(self, actor: Actor) -> None: ...

    def removed(self, actor: Actor) -> None: ...


class Registry:
    """Actors by path and id. `flush` or `flush_soon` must be called after `absorb`; all methods belong to the event loop's thread."""

    def __init__(
        self, around: Surroundings, listener: Listener, id_problems: Callable[[Sequence[Problem]], None]
    ) -> None:
        self._around = around
        self._listener = listener
        self._id_problems = id_problems
        self._entries: dict[Key, dict[str, Found]] = {}
        self._found: dict[str, Found] = {}
        self._actors: dict[str, Actor] = {}
        self._by_name: dict[str, Actor] = {}
        self._dirty: set[str] = set()
        self._due: dict[str, None] = {}
        self._flushing = False
        self._claims_changed = False
        self._newcomers: dict[str, None] = {}
        self._wanted: dict[str, str | None] = {}
        self._assignment = identity.assign_ids([])

    def __len__(self) -> int:
        return len(self._actors)

    def __iter__(self) -> Iterator[Actor]:
        return iter(list(self._actors.values()))

    def absorb(self, scan: EntryScan) -> None:
        """Take in what one entry holds now; it counts after the next `flush`."""
        key = (scan.tree.label, scan.entry)
        before = self._entries.get(key, _NOTHING)
        after = {found.path: found for found in scan.models}
        if after:
            self._entries[key] = after
        else:
            self._entries.pop(key, None)
        for path in before.keys() - after.keys() if before else ():
            self._found.pop(path, None)
            self._wanted.pop(path, None)
            self._dirty.add(path)
            self._claims_changed = True
        for path, found in after.items():
            if path not in self._wanted:
                self._newcomers[path] = None
            elif self._wanted[path] != found.spec.id:
                self._claims_changed = True
            self._wanted[path] = found.spec.id
            if self._found.get(path) != found:
                self._found[path] = found
                self._dirty.add(path)

    def flush(self) -> None:
        """Make actors agree with what was absorbed: gone ones leave, ids are settled, new ones are registered."""
        self._flush(None)

    def flush_soon(self) -> None:
        """Do as `flush` does, a few models in each turn of the event loop, so that requests are answered meanwhile."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_some)

    def _flush_some(self) -> None:
        self._flushing = False
        if not self._flush(AT_ONCE):
            self.flush_soon()

    def _flush(self, limit: int | None) -> bool:
        if self._dirty and self._settle():
            # Who got another id is to be found under it at once.
            limit = None
        for path in list(islice(self._due, limit)):
            del self._due[path]
            if path in self._found:
                self._refresh(path)
        return not self._due

    def _settle(self) -> bool:
        """Let gone ones leave, and note who is to be looked at; return whether somebody's id is another one by now."""
        dirty, self._dirty = self._dirty, set()
        for path in dirty:
            if path not in self._found and (actor := self._actors.pop(path, None)) is not None:
                self._unname(actor)
                self._listener.removed(actor)
        moved = self._settle_ids()
        changed = dirty | moved
        # In the order of the paths, so that a start registers in the same order every time.
        self._due.update(dict.fromkeys(sorted(changed & self._found.keys())))
        return bool(moved)

    def _settle_ids(self) -> set[str]:
        """Decide who has which id; return the paths whose id or aliases are others than before, newcomers aside."""
        newcomers, self._newcomers = self._newcomers, {}
        if not self._claims_changed and all(self._assignment.admit(path, self._wanted[path]) for path in newcomers):
            return set()
        self._claims_changed = False
        before = self._assignment
        after = identity.assign_ids(self._wanted.items())
        self._assignment = after
        self._id_problems(after.problems)
        moved = {
            path
            for path, model_id in after.ids.items()
            if before.ids.get(path) != model_id or before.aliases.get(path) != after.aliases.get(path)
        }
        for path in moved:
            if (actor := self._actors.get(path)) is not None:
                self._unname(actor)
        return moved

    def _refresh(self, path: str) -> None:
        found = self._found[path]
        model_id, aliases = self._assignment.ids[path], self._assignment.aliases.get(path, ())
        actor = self._actors.get(path)
        if actor is None:
            actor = self._actors[path] = Actor(model_id, found, aliases, self._around)
            self._name(actor)
            self._listener.registered(actor)
        else:
            actor.found_again(found, model_id, aliases)
            self._name(actor)
            self._listener.found_again(actor)

    def _name(self, actor: Actor) -> None:
        self._by_name[actor.id] = actor
        for alias in actor.aliases:
            self._by_name.setdefault(alias, actor)

    def _unname(self, actor: Actor) -> None:
        for name in (actor.id, *actor.aliases):
            if self._by_name.get(name) is actor:
                del self._by_name[name]

    def find(self, name: str) -> Actor | None:
        """Return the actor whose id or alias is *name*, or None."""
        return self._by_name.get(name)

    def find_path(self, path: str) -> Actor | None:
        """Return the actor of the JSON at *path*, or None."""
        return self._actors.get(path)

    def get(self, name: str) -> Actor:
        """Return the actor whose id or alias is *name*; ModelNotFoundError with similar ids otherwise."""
        if (actor := self._by_name.get(name)) is not None:
            return actor
        near = difflib.get_close_matches(name, list(self._by_name)[:20_000], n=3, cutoff=0.5) if len(name) < 256 else []
        hint = f"did you mean {' or '.join(near)}?" if near else "`jand list` shows what there is"
        raise ModelNotFoundError(f'cannot find model "{name[:256]}"', hint=hint, param="model", near=near)

    def found(self) -> list[Found]:
        """Return what lies on the disk for every model."""
        return list(self._found.values())
