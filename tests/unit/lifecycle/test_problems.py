"""The problem book: found once, cleared once, since when."""

from __future__ import annotations

from jand.lifecycle.problems import ProblemBook
from jand.model.problem import Problem

BAD = Problem("models/a.json", "bad-json", "cannot read it", line=3)
WORSE = Problem("models/b.json", "bad-json", "cannot read it")


def test_sources_replace_their_own_and_keep_the_time() -> None:
    told: list[tuple[str, Problem]] = []
    times = iter([1.0, 2.0, 3.0])
    book = ProblemBook(lambda kind, record: told.append((kind, record.problem)), lambda: next(times))
    book.replace("entry a", [BAD])
    book.replace("entry b", [WORSE])
    book.replace("entry a", [BAD])
    assert [(record.problem, record.since) for record in book.all()] == [(BAD, 1.0), (WORSE, 2.0)]
    book.replace("entry a", [])

    assert [record.problem for record in book.all()] == [WORSE]
    assert told == [("problem.found", BAD), ("problem.found", WORSE), ("problem.cleared", BAD)]
