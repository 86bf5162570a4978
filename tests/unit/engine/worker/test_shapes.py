"""The quick way to write an event says byte for byte what the thorough one says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker import wire
from jand.engine.worker.reading import Reader
from jand.engine.worker.shapes import ChatShape, Shape, TextShape
from jand.engine.worker.tools import Family


@pytest.mark.parametrize("kind", ["chat", "text"])
@given(st.lists(st.text(min_size=1), min_size=1), st.integers(0, 3))
def test_quick_event_is_the_thorough_one(kind: str, texts: list[str], index: int) -> None:
    shape: Shape = ChatShape('a "model"', Reader) if kind == "chat" else TextShape('a "model"')
    shape.delta(index, "Hello", None)
    for text in texts:
        quick = shape.text_event(index, text)
        assert quick == b"".join(wire.event(chunk) for chunk in shape.delta(index, text, None))
        choice = json.loads(quick.removeprefix(b"data: "))["choices"][0]
        assert (choice.get("text") or choice["delta"]["content"]) == text.encode("utf-8", "replace").decode()


def test_what_may_be_a_thought_or_a_call_is_looked_at() -> None:
    shape = ChatShape("m", Reader)
    assert shape.text_event(0, "<thi") is None
    shape.delta(0, "<think>", None)
    assert shape.text_event(0, "so") is None
    shape.delta(0, "</think>yes", None)
    assert shape.text_event(0, " it is") is not None
    assert ChatShape("m", lambda: Reader(family=Family.HERMES)).text_event(0, "x") is None
