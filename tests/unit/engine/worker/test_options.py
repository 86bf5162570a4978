"""The `init` parameters, checked before C sees them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jand.engine.worker.options import BadParameterError, Options, parse_options


def test_defaults_follow_from_the_machine() -> None:
    options = parse_options({}, processors=6)
    assert options == Options(n_threads=6, n_threads_batch=6)


@pytest.mark.parametrize(
    ("init", "name", "value"),
    [
        ({"ctx_len": 2048}, "ctx_len", 2048),
        ({"n_threads": 3}, "n_threads_batch", 3),
        ({"n_threads": 3, "n_threads_batch": 5}, "n_threads_batch", 5),
        ({"flash_attn": True}, "flash_attn", "on"),
        ({"flash_attn": False}, "flash_attn", "off"),
        ({"flash_attn": "Auto"}, "flash_attn", "auto"),
        ({"cache_type_k": "Q8_0"}, "cache_type_k", "q8_0"),
        ({"tensor_split": "3, 1"}, "tensor_split", (3.0, 1.0)),
        ({"tensor_split": [1, 2]}, "tensor_split", (1.0, 2.0)),
        ({"lora": "/a.gguf"}, "lora", (("/a.gguf", 1.0),)),
        ({"lora": [{"path": "/a.gguf", "scale": 0.5}, "/b.gguf"]}, "lora", (("/a.gguf", 0.5), ("/b.gguf", 1.0))),
        ({"ngl": 0}, "ngl", 0),
    ],
)
def test_parameter_is_read(init: dict[str, Any], name: str, value: object) -> None:
    assert getattr(parse_options(init, processors=2), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ctx_len", 0),
        ("ctx_len", 1.5),
        ("ctx_len", True),
        ("n_parallel", 257),
        ("n_batch", 0),
        ("n_threads", -1),
        ("flash_attn", "maybe"),
        ("cache_type_v", "f8"),
        ("tensor_split", [math.inf]),
        ("tensor_split", 3),
        ("lora", [{"scale": 1}]),
    ],
)
def test_value_that_cannot_be_used_names_its_parameter(name: str, value: object) -> None:
    with pytest.raises(BadParameterError, match=rf"parameters\.init\.{name}") as caught:
        parse_options({name: value}, processors=2)
    assert caught.value.param == name
