"""JSON schemas as grammars: every sentence is valid, and what cannot be kept is refused. Sentences are drawn at random from the grammar itself."""

from __future__ import annotations

import json
import random
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from jand.engine.worker import gbnf
from jand.engine.worker.patterns import UnsupportedPatternError, pattern_rule
from jand.engine.worker.schema import schema_to_grammar
from jand.errors import BadRequestError
from tests.fakes import gbnf_random


def sentences(schema: object, count: int = 150) -> list[Any]:
    rules = gbnf_random.parse(schema_to_grammar(schema))
    dice = random.Random(7)
    return [json.loads(gbnf_random.sentence(rules, dice)) for _ in range(count)]


class Point(BaseModel):
    model_config = ConfigDict(extra="forbid")

    x: int = Field(ge=-20, le=300)
    y: float = Field(gt=0, le=10)


class Tree(BaseModel):
    name: str = Field(min_length=1, max_length=5)
    children: list[Tree] = Field(max_length=2)


class Order(BaseModel):
    """What an application asks for."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^[A-Z]{2}-\d{3,5}$")
    status: Literal["open", "closed", 'a "quoted" one']
    points: list[Point] = Field(min_length=1, max_length=3)
    note: str | None = None
    factor: float | None = Field(default=None, ge=-1.5, lt=4)
    tags: dict[str, int] = Field(default_factory=dict)
    pair: tuple[int, str] = (1, "x")
    either: Point | Literal[3] = 3


@pytest.mark.parametrize("kind", [Point, Tree, Order, list[Point], dict[str, Order], int | str | None, bool])
def test_every_sentence_validates(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in sentences(adapter.json_schema()):
        adapter.validate_json(json.dumps(value), strict=False)


def test_optional_properties_come_and_go_in_their_order() -> None:
    schema = {
        "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}},
        "required": ["b"],
        "additionalProperties": False,
    }
    assert {json.dumps(value) for value in sentences(schema)} == {
        '{"b": 2}',
        '{"a": 1, "b": 2}',
        '{"b": 2, "c": 3}',
        '{"a": 1, "b": 2, "c": 3}',
    }
    assert {json.dumps(value) for value in sentences({"properties": {"a": {"const": 1}, "b": {"const": 2}}})} == {
        "{}",
        '{"a": 1}',
        '{"b": 2}',
        '{"a": 1, "b": 2}',
    }


@pytest.mark.parametrize(
    ("schema", "values"),
    [
        ({"enum": [1, "x", None, {"a": [True]}]}, [1, "x", None, {"a": [True]}]),
        ({"enum": [1, "x"], "type": "string"}, ["x"]),
        ({"const": 'é"\n'}, ['é"\n']),
        ({"type": "boolean"}, [True, False]),
        ({"type": ["null", "boolean"]}, [None, True, False]),
        ({"type": "boolean", "nullable": True}, [True, False, None]),
        ({"anyOf": [{"const": 1}, {"const": 2}]}, [1, 2]),
        ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 4}]}, [3, 4]),
        ({"$defs": {"a/b": {"const": 5}}, "$ref": "#/$defs/a~1b"}, [5]),
        ({"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 2}, [[1], [1, 1]]),
        ({"type": "array", "items": False}, [[]]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, [[1, 2]]),
        ({"type": "object", "additionalProperties": False}, [{}]),
        ({"required": ["a"], "additionalProperties": {"const": 1}}, [{"a": 1}]),
        ({"properties": {"a": {"const": 1}, "b": {"const": 1}}, "maxProperties": 1}, [{}, {"a": 1}]),
        ({"properties": {"a": {"const": 1}, "b": {"const": 1}}, "minProperties": 2}, [{"a": 1, "b": 1}]),
        ({"type": "string", "pattern": "^(a|b)c?$"}, ["a", "b", "ac", "bc"]),
        ({"type": "number", "minimum": 2, "maximum": 2}, [2]),
    ],
)
def test_exactly_these_values(schema: object, values: list[Any]) -> None:
    found = {json.dumps(value, sort_keys=True) for value in sentences(schema)}
    assert found == {json.dumps(value, sort_keys=True) for value in values}


def test_no_type_means_any_value_and_objects_are_objects() -> None:
    kinds = {type(value) for value in sentences({}, 400)}
    assert kinds >= {dict, list, str, bool, type(None)}
    assert all(isinstance(value, dict) for value in sentences({"type": "object"}))


@given(st.integers(-3000, 3000), st.integers(0, 5000), st.integers(-4000, 9000))
def test_whole_numbers_between_bounds_and_no_others(low: int, span: int, probe: int) -> None:
    high = low + span
    assert bool(whole(low, high).fullmatch(str(probe))) == (low <= probe <= high)
    assert bool(whole(low, None).fullmatch(str(probe))) == (probe >= low)
    assert bool(whole(None, high).fullmatch(str(probe))) == (probe <= high)


def whole(low: int | None, high: int | None) -> re.Pattern[str]:
    return re.compile(re.sub(r'[" ]', "", gbnf.whole_numbers(low, high)))


@given(
    st.floats(-50, 50, allow_nan=False).map(lambda value: round(value, 1)),
    st.floats(1, 60).map(lambda value: round(value, 1)),
    st.booleans(),
    st.booleans(),
)
def test_numbers_stay_within_their_bounds(low: float, span: float, over: bool, under: bool) -> None:
    high = round(low + span, 1)
    schema = {
        "type": "number",
        "exclusiveMinimum" if over else "minimum": low,
        "exclusiveMaximum" if under else "maximum": high,
    }
    try:
        found = sentences(schema, 40)
    except BadRequestError:
        assert int(high) - int(low) <= 2 or (under and high < 0)
        return
    for value in found:
        assert low <= value <= high
        assert not (over and value == low)
        assert not (under and value == high)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^a+b*c{2,3}$",
        r"^[^a-z]{4}$",
        r"^\w+@\w+\.(com|org)$",
        r"^\S \D$",
        r"^(\d{3}-){2}x?$",
        "needle",
        "^begin",
        "end$",
        r'^["\\]$',
        r"^.{3}$",
        "^$",
        r"^\.\[\]$",
    ],
)
def test_strings_match_their_pattern(pattern: str) -> None:
    for value in sentences({"type": "string", "pattern": pattern}):
        assert re.search(pattern, value, re.ASCII), value


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "a^b", "(", "[\\n]{1,99999999999}", "(?<!x)y", "\\bword"])
def test_pattern_that_a_grammar_cannot_say_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPatternError):
        pattern_rule(pattern)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"not": {}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "strange"}, "strange"),
        ({"$ref": "http://elsewhere/schema"}, "elsewhere"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "itself"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "items"),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "whole number"),
        ({"type": "number", "multipleOf": 0.3}, "multipleOf"),
        ({"type": "string", "minLength": "x"}, "wrong type"),
        ({"properties": [1]}, "wrong type"),
        ({"enum": []}, "enum"),
        ({"anyOf": []}, "choice"),
        ([], "no schema"),
        (False, "no schema"),
        ({"type": "array", "items": {"type": "array", "minItems": 99999}}, "items"),
    ],
)
def test_schema_that_cannot_be_kept_is_refused(schema: object, word: str) -> None:
    with pytest.raises(BadRequestError, match=word) as caught:
        schema_to_grammar(schema)
    assert caught.value.param == "response_format"


def test_deep_and_large_schemas_are_refused_in_bounded_time() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(BadRequestError, match="deep"):
        schema_to_grammar(deep)
    with pytest.raises(BadRequestError, match=r"rules|large"):
        schema_to_grammar({"properties": {f"p{number}": {"type": "string"} for number in range(20000)}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "required",
                    "items",
                    "anyOf",
                    "allOf",
                    "enum",
                    "minimum",
                    "maxItems",
                    "$ref",
                    "pattern",
                    "prefixItems",
                    "minProperties",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_anything_is_a_grammar_or_a_refusal(schema: Any) -> None:
    try:
        text = schema_to_grammar(schema)
    except BadRequestError:
        return
    gbnf_random.parse(text)
