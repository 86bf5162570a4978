"""A provider's answer on its way to the relay: byte for byte, except that our key in it is blotted out. Providers and gateways do repeat a key in an error.

An error is held until it is whole (errors are small), so that one that is no JSON, such as a gateway's page, can be put into the one shape of our API.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from multidict import CIMultiDict

from jand import outflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.outflow import Taker

MAX_ERROR: Final = 1 << 20
"""Bytes of an error that are read; what is larger is none that a client could use."""

SHORTEST_KEY: Final = 12
"""Characters from which on a key is blotted out: shorter ones, such as "EMPTY" and "not-needed", are words that an answer may hold, and protect nothing."""

ERROR_S: Final = 30.0
MAX_SHOWN: Final = 300

UNPACKED: Final = ("Content-Encoding", "Content-Length")
"""What no longer holds once aiohttp has unpacked a body."""

_PAGE_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


class Blotter:
    """Replaces a key in a stream of pieces by as many asterisks, also where a piece ends within it. Holds back only what may be the beginning of the key."""

    def __init__(self, key: str | None) -> None:
        self._key = key.encode() if key is not None and len(key) >= SHORTEST_KEY else b""
        self._held = b""

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def blot(self, data: bytes) -> bytes:
        """Return what can be passed on."""
        if not self._key:
            return data
        if self._held:
            data, self._held = self._held + data, b""
        if self._key in data:
            data = data.replace(self._key, b"*" * len(self._key))
        held = self._beginning_in(data)
        if held:
            data, self._held = data[:-held], data[-held:]
        return data

    def rest(self) -> bytes:
        """Return what was held back, at the end."""
        data, self._held = self._held, b""
        return data

    def text(self, text: str) -> str:
        """Return *text*, whole by itself, without the key."""
        return text.replace(self._key.decode(), "***") if self._key else text

    def _beginning_in(self, data: bytes) -> int:
        """Return how many bytes at the end of *data* are the beginning of the key; what ends an event or a JSON is in none."""
        if data[-1:] not in self._key:
            return 0
        first = self._key[:1]
        at = data.find(first, max(0, len(data) - len(self._key) + 1))
        while at >= 0:
            if self._key.startswith(data[at:]):
                return len(data) - at
            at = data.find(first, at + 1)
        return 0


class StreamedAnswer:
    """An answer that is passed on as it comes; satisfies `lifecycle.running.Answer` and its `Body` at once. *on_end* is called once, when whoever has it lets go."""

    def __init__(
        self, response: aiohttp.ClientResponse, key: str | None, on_end: Callable[[StreamedAnswer], None]
    ) -> None:
        self._response = response
        self._blotter = Blotter(key)
        self._on_end: Callable[[StreamedAnswer], None] | None = on_end
        self.headers = passable(response, self._blotter)

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def reason(self) -> str | None:
        return self._response.reason

    @property
    def content_type(self) -> str:
        return self._response.content_type

    @property
    def content(self) -> StreamedAnswer:
        return self

    async def readany(self) -> bytes:
        while data := await self._response.content.readany():
            if passed := self._blotter.blot(data):
                return passed
        return self._blotter.rest()

    async def pour(self, taker: Taker) -> None:
        await outflow.pour(self.readany, taker)

    def at_eof(self) -> bool:
        return self._response.content.at_eof() and not self._blotter.holds

    def cut(self) -> None:
        """Let it break off for whoever reads it: a connection that we close ourselves may else look like the end of the answer."""
        self._response.content.set_exception(aiohttp.ClientConnectionError("the model was stopped"))
        self._response.close()

    def release(self) -> None:
        self._response.release()
        self._end()

    def close(self) -> None:
        self._response.close()
        self._end()

    def _end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)


class WholeAnswer:
    """An answer that is all here; satisfies `lifecycle.running.Answer` and its `Body` at once."""

    def __init__(self, response: aiohttp.ClientResponse, headers: CIMultiDict[str], body: bytes) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = headers
        self.content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._body = body

    @property
    def content(self) -> WholeAnswer:
        return self

    async def readany(self) -> bytes:
        body, self._body = self._body, b""
        return body

    async def pour(self, taker: Taker) -> None:
        await outflow.pour(self.readany, taker)

    def at_eof(self) -> bool:
        return not self._body

    def release(self) -> None:
        """There is no connection any more."""

    def close(self) -> None:
        """There is no connection any more."""


async def read_error(response: aiohttp.ClientResponse, key: str | None, *, host: str) -> WholeAnswer:
    """Read an answer with an error status to its end, and end it. What cannot be passed on as it is keeps its status and its headers."""
    blotter = Blotter(key)
    body, whole = await read_bounded(response, MAX_ERROR)
    body = blotter.blot(body) + blotter.rest()
    headers = passable(response, blotter)
    headers.popall("Content-Length", None)
    if whole and parse_object(body) is not None:
        return WholeAnswer(response, headers, body)
    headers["Content-Type"] = "application/json"
    said = readable(body)
    message = f"cannot answer: {host} answers with status {response.status}{': ' + said if said else ''}"
    error = {"message": message, "type": "upstream_error", "param": None, "code": "upstream-failed"}
    return WholeAnswer(response, headers, json.dumps({"error": error}).encode())


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Return up to *limit* bytes of the body, and whether that is all of it; what breaks off or stalls is not. Ends the response."""
    body = b""
    try:
        async with asyncio.timeout(ERROR_S):
            while len(body) <= limit and (piece := await response.content.readany()):
                body += piece
    except (aiohttp.ClientError, OSError, TimeoutError):
        return body[:limit], False
    finally:
        response.release()
    return body[:limit], len(body) <= limit


def passable(response: aiohttp.ClientResponse, blotter: Blotter) -> CIMultiDict[str]:
    """Return the headers without those that hold the key, and those of a packing that is undone. Which are for a client at all the relay decides."""
    unpacked = UNPACKED if "Content-Encoding" in response.headers else ()
    return CIMultiDict(
        (name, value)
        for name, value in response.headers.items()
        if name.title() not in unpacked and blotter.text(value) == value
    )


def parse_object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def readable(body: bytes) -> str:
    """Return what a page or a text says, as one short line."""
    text = body[: 64 * 1024].decode("utf-8", "replace")
    title = _PAGE_TITLE.search(text)
    plain = html.unescape(title[1] if title else _TAG.sub(" ", text))
    return " ".join("".join(char if char.isprintable() else " " for char in plain).split())[:MAX_SHOWN]
