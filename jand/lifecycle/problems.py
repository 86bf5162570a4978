"""All problems that are known now, each with when it was first seen, by where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.lifecycle.events import ProblemRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

    from jand.model.problem import Problem


class ProblemBook:
    """Problems by *source* (an entry of a tree, the ids, the watcher): a source replaces its own and leaves the others alone.

    *publish* is told of each `problem.found` and `problem.cleared`; *clock* gives Unix seconds.
    """

    def __init__(self, publish: Callable[[str, ProblemRecord], None], clock: Callable[[], float]) -> None:
        self._publish = publish
        self._clock = clock
        self._sources: dict[Hashable, dict[Problem, ProblemRecord]] = {}

    def replace(self, source: Hashable, problems: Collection[Problem]) -> None:
        before = self._sources.get(source, {})
        if not before and not problems:
            return
        after = {problem: before.get(problem) or ProblemRecord(problem, self._clock()) for problem in problems}
        if after:
            self._sources[source] = after
        else:
            self._sources.pop(source, None)
        for problem, record in before.items():
            if problem not in after:
                self._publish("problem.cleared", record)
        for problem, record in after.items():
            if problem not in before:
                self._publish("problem.found", record)

    def all(self) -> list[ProblemRecord]:
        """Every problem once, by path and place."""
        unique = {record.problem: record for known in self._sources.values() for record in known.values()}
        return sorted(
            unique.values(), key=lambda record: (record.problem.path, record.problem.line or 0, record.problem.code)
        )
