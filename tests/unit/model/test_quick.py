"""What is made without a validator is what the validator makes, to the last field that is set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jand.model import quick
from jand.model.spec import Spec
from tests.fakes.spec_writing import METADATA, MODELS

if TYPE_CHECKING:
    from pydantic import BaseModel

ODD = st.sampled_from(
    [
        "",
        "..",
        None,
        " x",
        "x\n",
        "x\x00",
        "\xa0",
        0,
        1,
        -1,
        1.5,
        True,
        [],
        ["a", "a"],
        ["", "a"],
        [1],
        {},
        {"a": 1},
        "a" * 5000,
        "default",
        "Default",
        "openai",
        "llamacpp",
        "LLAMACPP",
        "api",
        "https://api.openai.com/v1",
        "x.openai.azure.com",
    ]
)
NAMES = [
    "origin",
    "import_format",
    "id",
    "owned_by",
    "parameters",
    "metadata",
    "object",
    "created",
    "download_url",
    "x",
]
METADATA_NAMES = ["engine", "quantization", "autostart", "pinned", "tags", "description", "mmproj", "keep_alive", "x"]


def as_told(part: BaseModel) -> Any:
    """Return everything that two equal parts have in common, and what tells them apart for later code."""
    fields = {name: as_told(value) if hasattr(value, "model_fields_set") else value for name, value in part}
    return type(part), fields, sorted(part.model_fields_set), part.model_extra


def agrees(data: dict[str, Any]) -> bool:
    """Hold `accept` to the validator; return whether it made something."""
    made = quick.accept(json.loads(json.dumps(data)))
    if made is None:
        return False
    validated = Spec.model_validate(data)
    assert as_told(made) == as_told(validated)
    assert made == validated
    assert made.model_dump_json() == validated.model_dump_json()
    return True


@given(MODELS)
def test_valid_specs(data: dict[str, Any]) -> None:
    agrees(data)


@given(
    st.fixed_dictionaries(
        {"origin": st.just("user/repo") | ODD},
        optional={
            **dict.fromkeys(NAMES[1:], ODD),
            "metadata": ODD | METADATA | st.fixed_dictionaries({}, optional=dict.fromkeys(METADATA_NAMES, ODD)),
        },
    )
)
def test_odd_values_of_every_field(data: dict[str, Any]) -> None:
    agrees(data)


@pytest.mark.parametrize(
    "data",
    [
        {"origin": "user/repo"},
        {"origin": "user/repo", "metadata": {"tags": ["x", "x"], "engine": "llamacpp", "pinned": True}},
        {"origin": "user/repo", "id": "x", "owned_by": "me", "import_format": "thebloke"},
        {"origin": "user/repo", "parameters": {"init": {"ctx_len": "2048"}, "runtime": {"temperature": "0.7"}}},
    ],
)
def test_plain_ones_are_made(data: dict[str, Any]) -> None:
    assert agrees(data)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"origin": ""},
        {"origin": "https://api.openai.com/v1"},
        {"origin": "user/repo", "import_format": "openai"},
        {"origin": "user/repo", "parameters": {"init": {"ctx_len": "many"}}},
        {"origin": "user/repo", "note": 1},
    ],
)
def test_others_are_left_to_the_validator(data: dict[str, Any]) -> None:
    assert quick.accept(data) is None


def test_no_wrong_value_passes() -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate({"origin": 1})
    assert quick.accept({"origin": 1}) is None
