"""What a request's tools become: a family by its template, words for a model that knows none, a grammar that holds it to the form."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from jand.engine.worker.reading import Called, Reader, Said
from jand.engine.worker.tools import Family, NamedChoice, Tool, find_family, make_offer, tell_generic, with_objects
from jand.errors import BadRequestError
from tests.fakes import gbnf_random

WEATHER = Tool.model_validate(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "What it is like",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"$ref": "#/$defs/unit"}},
                "required": ["city"],
                "$defs": {"unit": {"enum": ["c", "f"]}},
            },
        },
    }
)
STOP = Tool.model_validate({"type": "function", "function": {"name": "stop"}})
ODD = Tool.model_validate({"type": "function", "function": {"name": "odd", "parameters": {"not": {"type": "string"}}}})
TEMPLATES = {
    Family.HERMES: "{% if tools %}<tool_call>{% endif %}",
    Family.MISTRAL: "{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}",
    Family.LLAMA: "{% if tools %}Environment: ipython<|python_tag|>{% endif %}",
    Family.GENERIC: "{{ messages }}",
}


@pytest.mark.parametrize(("family", "template"), TEMPLATES.items())
def test_family_shows_in_the_template(family: Family, template: str) -> None:
    assert find_family(template) is family


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("parallel", [True, False])
def test_every_sentence_of_a_required_call_is_read_as_calls(family: Family, parallel: bool) -> None:
    offer = make_offer([WEATHER, STOP, ODD], "required", parallel=parallel, template=TEMPLATES[family])
    assert offer is not None
    grammar = offer.grammar()
    assert grammar is not None
    rules, dice = gbnf_random.parse(grammar), random.Random(3)
    counts = set()
    for _ in range(120):
        reader = Reader(family=family)
        pieces = [*reader.feed(gbnf_random.sentence(rules, dice)), *reader.end()]
        calls = [piece for piece in pieces if isinstance(piece, Called)]
        assert len(calls) == len(pieces) >= 1
        counts.add(len(calls))
        for call in calls:
            arguments = json.loads(call.arguments)
            assert call.name in {"get_weather", "stop", "odd"}
            if call.name == "get_weather":
                assert isinstance(arguments["city"], str)
                assert arguments.get("unit", "c") in {"c", "f"}
    assert (counts == {1}) == (not parallel or family is Family.LLAMA)


def test_generic_model_may_call_or_talk() -> None:
    offer = make_offer([STOP], "auto", parallel=None, template="")
    assert offer is not None
    grammar = offer.grammar()
    assert grammar is not None
    rules, dice = gbnf_random.parse(grammar.replace(".*", '"x"*')), random.Random(3)
    kinds = set()
    for _ in range(60):
        reader = Reader(family=Family.GENERIC)
        text = gbnf_random.sentence(rules, dice)
        kinds |= {type(piece) for piece in [*reader.feed(text), *reader.end()]}
    assert kinds == {Said, Called}


def test_model_of_a_family_is_free_unless_it_must() -> None:
    offer = make_offer([STOP], None, parallel=None, template=TEMPLATES[Family.HERMES])
    assert offer is not None
    assert offer.grammar() is None


def test_named_choice_leaves_one_tool() -> None:
    choice = NamedChoice.model_validate({"function": {"name": "stop"}})
    offer = make_offer([WEATHER, STOP], choice, parallel=True, template="")
    assert offer is not None
    assert [tool.function.name for tool in offer.tools] == ["stop"]
    assert offer.must
    assert not offer.parallel


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        (None, NamedChoice.model_validate({"function": {"name": "x"}})),
        ([STOP], NamedChoice.model_validate({"function": {"name": "x"}})),
    ],
)
def test_choice_of_a_tool_that_is_not_there_is_refused(tools: Any, choice: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        make_offer(tools, choice, parallel=None, template="")
    assert caught.value.param == "tool_choice"


def test_no_tools_no_offer() -> None:
    assert make_offer(None, None, parallel=None, template="") is None
    assert make_offer([STOP], "none", parallel=None, template="") is None


HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
        ],
    },
    {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    {"role": "user", "content": "Thanks"},
]


def test_template_gets_arguments_as_objects() -> None:
    told = with_objects(HISTORY)
    assert told[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Bern"}
    assert isinstance(HISTORY[2]["tool_calls"][0]["function"]["arguments"], str)


def test_model_without_tools_is_told_in_words_and_roles_still_alternate() -> None:
    told = tell_generic(HISTORY, make_offer([WEATHER], None, parallel=None, template=""))
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert "get_weather" in told[0]["content"]
    assert told[0]["content"].endswith("Be brief.")
    assert told[2]["content"] == '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bern"}}\n</tool_call>'
    assert told[3]["content"] == "<tool_response>\nsunny\n</tool_response>\n\nThanks"
