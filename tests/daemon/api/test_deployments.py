"""The paths that clients made for Azure use: a deployment is a model, and a body need not name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.upstream import answer_json

if TYPE_CHECKING:
    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager
    from tests.fakes.upstream import FakeUpstream


@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
@pytest.mark.parametrize(("written", "model"), [("a", "a"), ("org%2Fb", "org/b"), ("org/b", "org/b")])
async def test_the_path_names_the_model(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, path: str, written: str, model: str
) -> None:
    manager.add(model)
    upstream.behave = answer_json({"ok": True})
    for body in ({"user": "x"}, {"user": "x", "model": "whatever"}):
        answer = await api.ask("POST", f"/openai/deployments/{written}/{path}?api-version=2024-10-21", body)
        assert (answer.status, answer.json) == (200, {"ok": True})
        assert upstream.requests[-1].path == f"/v1/{path}"
        assert upstream.requests[-1].json == {"user": "x", "model": model}


async def test_a_deployment_that_is_no_model(api: ServedApi) -> None:
    answer = await api.ask("POST", "/openai/deployments/a/chat/completions", {"messages": []})

    assert answer.status == 404
    assert answer.error["code"] == "model-not-found"
