"""A packed spec comes back as it was, by every way of looking at it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.model import packed
from jand.model.document import parse
from jand.model.parameters import Init, Runtime
from jand.model.spec import Metadata, Spec, known_names

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 5000)
    | st.floats(0, 2, allow_nan=False)
    | st.sampled_from(["", "..", "q8_0", "on", "auto", "3,1", "2048", "lora.gguf", "a" * 64, "false"])
    | st.lists(st.sampled_from(["a", "b.gguf", "7"]), max_size=3)
    | st.dictionaries(st.sampled_from(["a", "b"]), st.integers() | st.lists(st.floats(0, 1)), max_size=2)
)


def fields(names: frozenset[str], *, beside: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*sorted(names), beside]), VALUES, max_size=4)


SPECS = st.fixed_dictionaries(
    {"origin": st.sampled_from(["a/b", "https://hub/a/b", "https://api.openai.com/v1"])},
    optional={
        "id": st.sampled_from(["a", "b/c"]),
        "import_format": st.sampled_from(["default", "thebloke", "janhq", "openai"]),
        "download_url": st.sampled_from(["a.gguf", "", ["a.gguf", "b.gguf"]]),
        "created": st.integers(0, 10**10),
        "note": VALUES,
        "parameters": st.fixed_dictionaries(
            {"init": fields(known_names(Init), beside="other")},
            optional={"runtime": fields(known_names(Runtime), beside="other"), "other": VALUES},
        ),
        "metadata": fields(known_names(Metadata), beside="other"),
    },
)


def there_and_back(spec: Spec) -> Spec:
    return packed.unpack(json.loads(json.dumps(packed.pack(spec))))


@given(SPECS)
def test_every_spec_comes_back_as_it_was(data: dict[str, Any]) -> None:
    spec = parse(json.dumps(data).encode(), "models/a/a.json").spec
    if spec is None:
        return

    back = there_and_back(spec)

    assert back == spec
    assert back.plain() == spec.plain()
    assert repr(back) == repr(spec)
    assert back.model_dump() == spec.model_dump()


@pytest.mark.parametrize("name", sorted(known_names(Init) | known_names(Runtime) | known_names(Metadata)))
def test_no_kind_of_value_is_another_one_afterwards(name: str) -> None:
    """The property above would seldom hit a valid value of just this field."""
    seen = 0
    for section in ("init", "runtime", "metadata"):
        for value in (True, 1, 0.5, "a", "q8_0", "api", ["a"], ["1", "2"], {"a": [1]}, "f" * 64):
            data: dict[str, Any] = {"origin": "a/b", "parameters": {"init": {}, "runtime": {}}, "metadata": {}}
            (data if section == "metadata" else data["parameters"])[section][name] = value
            spec = parse(json.dumps(data).encode(), "models/a/a.json").spec
            if spec is not None:
                seen += 1
                assert there_and_back(spec) == spec
                assert repr(there_and_back(spec)) == repr(spec)
    assert seen, "some value fits"


def test_what_comes_back_can_be_started_with_other_parameters() -> None:
    spec = parse(b'{"origin": "a/b", "parameters": {"init": {"ctx_len": 5}}}', "models/a/a.json").spec
    assert spec is not None

    other = there_and_back(spec).with_init({"n_parallel": 2})

    assert (other.parameters.init.ctx_len, other.parameters.init.n_parallel) == (5, 2)
    assert there_and_back(spec) == spec, "specs share nothing that can change"
