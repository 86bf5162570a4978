"""Completions of tiny models by a real daemon: short ones, and long ones that a test reads as it likes."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from tests.fakes.daemon import DaemonProcess

LONG = {"ctx_len": 4096}
LONG_ANSWER = 2500
"""More than sockets and buffers hold, so that an answer that nobody reads on cannot end."""


async def complete(daemon: DaemonProcess, model: str, **fields: Any) -> Any:
    body = {"model": model, "prompt": "a b c", "temperature": 0, "ignore_eos": True, "max_tokens": 5, **fields}
    return await daemon.call(
        "POST", "/v1/completions", {name: value for name, value in body.items() if value is not None}
    )


@contextlib.asynccontextmanager
async def long_answer(daemon: DaemonProcess, model: str, **fields: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """Begin a stream of `LONG_ANSWER` tokens; inside, its first event has come and the others have not been read."""
    body = {"model": model, "prompt": "a b c", "ignore_eos": True, "max_tokens": LONG_ANSWER, "stream": True, **fields}
    async with daemon.session.post("http://jand/v1/completions", json=body) as response:
        assert response.status == 200, await response.text()
        assert (await response.content.readline()).startswith(b"data:")
        yield response


async def read_to_its_end(response: aiohttp.ClientResponse) -> None:
    """Read the rest of a stream, which must be whole."""
    text = (await response.content.read()).decode()
    events = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    assert events[-1] == "[DONE]", text[-500:]
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
