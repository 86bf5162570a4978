"""Asking a worker, or whatever speaks OpenAI's API on a Unix socket, in a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


class Asker:
    """Requests to the server on *socket*; close it by `async with`."""

    def __init__(self, socket: Path) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket), limit=0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        async with self._session.post(f"http://worker{path}", json=body) as response:
            return response.status, await response.json()

    async def ok(self, path: str, **body: Any) -> dict[str, Any]:
        status, answer = await self.post(path, **body)
        assert status == 200, answer
        return answer

    async def refused(self, path: str, **body: Any) -> dict[str, Any]:
        """Return the error of a request that must be refused with 400."""
        status, answer = await self.post(path, **body)
        assert status == 400, (status, answer)
        error: dict[str, Any] = answer["error"]
        return error

    async def raw(self, path: str, data: bytes) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(f"http://worker{path}", data=data, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> dict[str, Any]:
        async with self._session.get(f"http://worker{path}") as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def text(self, path: str) -> str:
        async with self._session.get(f"http://worker{path}") as response:
            return await response.text()

    async def events(self, path: str, **body: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a stream, without the [DONE] that must end it; leaving early closes the connection."""
        async with self._session.post(f"http://worker{path}", json={**body, "stream": True}) as response:
            assert response.status == 200, await response.text()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            done = False
            async for line in response.content:
                assert not done or not line.strip()
                if line.startswith(b"data: ") and not (done := line.strip() == b"data: [DONE]"):
                    yield json.loads(line[6:])
            assert done, "the stream did not end with [DONE]"

    async def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        return [event async for event in self.events(path, **body)]


def said(answer: dict[str, Any]) -> str:
    """Return the text of the first choice."""
    choice = answer["choices"][0]
    text: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


def streamed(events: list[dict[str, Any]], index: int = 0) -> str:
    """Join the text of one choice of a stream."""
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
