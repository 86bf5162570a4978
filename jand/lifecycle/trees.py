"""Where a model lies: from the path that is shown to people to the tree and the entry that scans know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.library.findings import LOOSE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jand.library.findings import Tree


class Trees:
    """All watched trees by label; the first is the root's own `models/`."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._by_label = {tree.label: tree for tree in trees}

    def __iter__(self) -> Iterator[Tree]:
        return iter(self._by_label.values())

    @property
    def own(self) -> Tree:
        return next(iter(self))

    def place_of(self, path: str) -> tuple[Tree, str]:
        """Return the tree and the entry in which the JSON shown as *path* was found; of trees within one another, the inner one."""
        label = max((label for label in self._by_label if path.startswith(f"{label}/")), key=len)
        entry, slash, _ = path.removeprefix(f"{label}/").partition("/")
        return self._by_label[label], entry if slash else LOOSE
