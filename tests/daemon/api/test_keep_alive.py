"""`keep_alive` in an inference body: read once, refused where it is no duration, and nothing else of the body touched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes.upstream import answer_json

if TYPE_CHECKING:
    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager
    from tests.fakes.upstream import FakeUpstream

PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/openai/deployments/a/chat/completions",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("written", "seconds"), [(7, 7.0), ("5m", 300.0), (0, 0.0), (-1, -1.0), (None, None)])
async def test_it_is_handed_to_whoever_keeps_the_model(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, path: str, written: object, seconds: float | None
) -> None:
    manager.add("a")
    upstream.behave = answer_json({"choices": []})
    sent = json.dumps({"model": "a", "keep_alive": written}).encode()

    answer = await api.ask("POST", path, sent)

    assert answer.status == 200
    (used,) = [asked for asked in manager.asked if asked.verb == "use"]
    assert used.arguments == {"keep_alive_s": seconds}
    assert upstream.requests[0].body == sent


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("written", ["soon", True, [5], {}])
async def test_what_is_no_duration_is_refused_before_anything_is_started(
    api: ServedApi, manager: FakeManager, path: str, written: object
) -> None:
    manager.add("a")

    answer = await api.ask("POST", path, {"model": "a", "keep_alive": written})

    assert answer.status == 400
    assert answer.json["error"]["param"] == "keep_alive"
    assert answer.json["error"]["code"] == "bad-request"
    assert not [asked for asked in manager.asked if asked.verb == "use"]


@pytest.mark.parametrize("written", [b"NaN", b"Infinity", b"1e999", b"1" * 4000])
async def test_a_number_that_is_none_is_refused(api: ServedApi, manager: FakeManager, written: bytes) -> None:
    manager.add("a")

    answer = await api.ask("POST", "/v1/completions", b'{"model": "a", "keep_alive": ' + written + b"}")

    assert (answer.status, answer.json["error"]["param"]) == (400, "keep_alive")
