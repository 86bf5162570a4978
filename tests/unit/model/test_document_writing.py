"""However people write a valid model JSON down, it is the same model; and a wrong value in it is found where it stands."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from hypothesis import assume, given
from hypothesis import strategies as st

from jand.model.document import Document, parse, to_json
from jand.model.places import line_and_column
from tests.fakes.spec_writing import MODELS, Hand

PATH: Final = "models/a/a.json"
DICE: Final = st.integers(0, 2**32).map(random.Random)


@given(MODELS, DICE)
def test_a_valid_model_survives_every_manner_of_writing(data: dict[str, Any], dice: random.Random) -> None:
    plain = parse(json.dumps(data).encode(), PATH)
    text = Hand(dice).write(data)

    assert plain.spec is not None, plain.problems
    assert parse(text.encode(), PATH) == plain
    assert plain.problems == ()


@given(MODELS, DICE, st.data())
def test_a_wrong_value_is_pointed_to_in_every_manner_of_writing(
    data: dict[str, Any], dice: random.Random, draw: st.DataObject
) -> None:
    data.setdefault("parameters", {"init": {}})
    path = draw.draw(
        st.sampled_from(
            [("created",), ("origin",), ("parameters", "init", "ctx_len"), ("parameters", "init"), ("metadata",)]
        )
    )
    target = data
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = draw.draw(st.sampled_from([[], [True]]))
    hand = Hand(dice)
    text = hand.write(data)
    document = parse(text.encode(), PATH)

    assert document.spec is None
    (problem,) = document.problems
    bom = text.startswith("\ufeff")  # it has no column
    assert (problem.line, problem.column) == line_and_column(text[bom:], hand.at[path] - bom)
    assert ".".join(path) in problem.message


@given(MODELS, DICE, st.data())
def test_a_missing_comma_is_pointed_to_in_every_manner_of_writing(
    data: dict[str, Any], dice: random.Random, draw: st.DataObject
) -> None:
    """The place is the end of the value that the comma should follow."""
    hand = Hand(dice)
    hand.write(data)
    assume(hand.commas)
    comma, end = draw.draw(st.sampled_from(hand.commas))
    text = hand.text[:comma] + " " + hand.text[comma + 1 :]
    document = parse(text.encode(), PATH)

    assert document.spec is None
    (problem,) = document.problems
    bom = text.startswith("\ufeff")
    assert (problem.line, problem.column) == line_and_column(text[bom:], end - bom)
    assert "expected a comma after the value" in problem.message


@given(MODELS)
def test_what_a_spec_gives_for_a_file_reads_back_as_the_same_spec(data: dict[str, Any]) -> None:
    spec = parse(json.dumps(data).encode(), PATH).spec

    assert spec is not None
    assert parse(to_json(spec.plain()).encode(), PATH) == Document(spec, ())
