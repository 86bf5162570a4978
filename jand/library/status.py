"""How well each tree is being watched, as plain values that the API and the log can show."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.library.settle import Key
    from jand.model.problem import Problem


class Mode(StrEnum):
    """How changes come to be known.

    *events*: changes are told at once. *polling*: the file system does not tell them, so it is looked at every few seconds. *degraded*: it should tell them, but watching fails for the
    time being, and it is polled. *offline*: the tree is not there or cannot be read; nothing is concluded from that.
    """

    EVENTS = "events"
    POLLING = "polling"
    DEGRADED = "degraded"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class TreeStatus:
    """*reason* is a phrase for people, empty where all is as it should be; *rebuilds* counts how often the watch had to be opened anew."""

    mode: Mode
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    rebuilds: int = 0


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """All trees by label, and what was found earlier but lies on a disk that is away (`held`)."""

    trees: Mapping[str, TreeStatus] = field(default_factory=dict)
    held: frozenset[Key] = frozenset()
    problems: tuple[Problem, ...] = ()

    @property
    def modes(self) -> dict[str, Mode]:
        return {label: tree.mode for label, tree in self.trees.items()}

    def is_offline(self, label: str, entry: str) -> bool:
        """Whether what the last scan of *entry* said stands for something that cannot be reached now."""
        tree = self.trees.get(label)
        return (tree is not None and tree.mode is Mode.OFFLINE) or (label, entry) in self.held
