"""A client of chat streams that costs little itself: it notes when each piece of text came."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.peers import Place

TEXT: Final = re.compile(rb'"content": ?"[^"]')
TOPICS: Final = ("a lighthouse", "an old map", "two brothers", "the sea", "a lost dog", "winter", "a violin", "Mars")


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer: when it was asked for and when each piece of text came, in seconds of one clock."""

    asked: float
    times: list[float]

    @property
    def first_s(self) -> float:
        return self.times[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Sum:
    """Several streams at once. *rate* is pieces of text per second from the first request to the last piece; *first_s* the median time to a first one."""

    rate: float
    first_s: float


def summarise(streams: Sequence[Stream]) -> Sum:
    pieces = sum(len(stream.times) for stream in streams)
    took = max(stream.times[-1] for stream in streams) - min(stream.asked for stream in streams)
    return Sum(pieces / took, statistics.median(stream.first_s for stream in streams))


def story(number: int, tokens: int, **more: Any) -> dict[str, Any]:
    """Ask for a long answer; those of different numbers share nothing but the template."""
    question = f"{number}: tell me a very long story about {TOPICS[number % len(TOPICS)]}, with many details."
    wanted = {"max_tokens": tokens, "ignore_eos": True, "seed": number, "temperature": 0.8}
    return {"messages": [{"role": "user", "content": question}], **wanted, **more}


async def stream(place: Place, body: dict[str, Any], on_text: asyncio.Event | None = None) -> Stream:
    """Ask *place* for one chat stream; *on_text* is set at its first piece."""
    reader, writer = await place.connect()
    try:
        asked = time.perf_counter()
        _send(writer, place, {**body, "model": place.model, "stream": True})
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            raise RuntimeError(f"{place.name}: {head!r} {await reader.read(2000)!r}")
        times = []
        while (line := await reader.readline()) and not line.startswith(b"data: [DONE]"):
            if line.startswith(b"data: ") and TEXT.search(line):
                times.append(time.perf_counter())
                if on_text is not None:
                    on_text.set()
    finally:
        writer.close()
    if not times:
        raise RuntimeError(f"{place.name} sent no text")
    return Stream(asked, times)


async def ask(place: Place, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole answer."""
    reader, writer = await place.connect()
    try:
        _send(writer, place, {**body, "model": place.model}, path=path, close=True)
        head = await reader.readuntil(b"\r\n\r\n")
        content = await reader.read()
    finally:
        writer.close()
    if b"chunked" in head.lower():
        content = b"".join(re.split(rb"(?:^|\r\n)[0-9a-f]+\r\n", content))
    if b" 200 " not in head[:20]:
        raise RuntimeError(f"{place.name}: {head!r} {content[:2000]!r}")
    answer: dict[str, Any] = json.loads(content)
    return answer


def _send(
    writer: asyncio.StreamWriter,
    place: Place,
    body: dict[str, Any],
    path: str = "/v1/chat/completions",
    *,
    close: bool = False,
) -> None:
    content = json.dumps(body).encode()
    headers = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    writer.write(headers.encode() + (b"Connection: close\r\n" if close else b"") + b"\r\n" + content)


async def at_once(place: Place, bodies: Sequence[dict[str, Any]]) -> list[Stream]:
    return list(await asyncio.gather(*(stream(place, body) for body in bodies)))
