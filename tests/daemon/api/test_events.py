"""`GET /v1/events`: order, resumption, filters, the comments in between, and readers that are slow or gone."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from jand.api.settings import ApiSettings
from jand.lifecycle.events import EventLog
from jand.model.record import PublicState
from tests.fakes.api import ServedApi
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from tests.fakes.manager import FakeManager


@dataclass
class Stream:
    """An open stream of events and what has come of it."""

    answer: aiohttp.ClientResponse
    comments: int = 0
    retry: int | None = None
    _pending: bytes = field(default=b"", repr=False)

    async def next(self) -> dict[str, Any]:
        """Return the next event, with its data read."""
        while True:
            block = await asyncio.wait_for(self.block(), 3)
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if block.startswith(":"):
                self.comments += 1
            elif "retry" in fields:
                self.retry = int(fields["retry"])
            else:
                return {"id": int(fields["id"]), "type": fields["event"], "data": json.loads(fields["data"])}

    async def block(self) -> str:
        while b"\n\n" not in self._pending:
            chunk = await self.answer.content.readany()
            assert chunk, "the stream ended"
            self._pending += chunk
        block, _, self._pending = self._pending.partition(b"\n\n")
        return block.decode()


async def listen(api: ServedApi, query: str = "", **headers: str) -> Stream:
    """Open a stream; it listens from this moment on."""
    answer = await api.session.get(f"http://jand/v1/events{query}", headers=headers)
    assert answer.status == 200, await answer.text()
    stream = Stream(answer)
    assert await stream.block() == "retry: 1000"
    return stream


@pytest.fixture
async def streams(api: ServedApi) -> AsyncIterator[list[Stream]]:
    """Streams to close at the end."""
    opened: list[Stream] = []
    yield opened
    for stream in opened:
        stream.answer.close()


async def test_each_event_carries_the_whole_object_and_a_growing_id(api: ServedApi, manager: FakeManager) -> None:
    stream = await listen(api)

    manager.add("a")
    manager.change("a", "model.state", state=PublicState.RUNNING)
    manager.complain("models/x.json", line=2)
    manager.remove("a")
    events = [await stream.next() for _ in range(4)]
    listed = (await api.ask("GET", "/v1/problems")).json["data"]
    stream.answer.close()

    assert stream.answer.headers["Content-Type"] == "text/event-stream"
    assert [event["type"] for event in events] == ["model.registered", "model.state", "problem.found", "model.removed"]
    assert [event["id"] for event in events] == [100, 101, 102, 103]
    assert [event["data"]["state"] for event in events if "state" in event["data"]] == [
        "downloaded",
        "running",
        "running",
    ]
    assert events[1]["data"]["origin"] == "tests/model"
    assert events[2]["data"] == listed[0]


async def test_whoever_has_seen_the_opening_misses_nothing_that_follows(api: ServedApi, manager: FakeManager) -> None:
    for number in range(50):
        stream = await listen(api)
        manager.add(f"m{number}")
        assert (await stream.next())["data"]["id"] == f"m{number}"
        stream.answer.close()


async def test_last_event_id_resumes_without_a_gap_or_a_double(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a")
    first = await listen(api)
    manager.change("a", paused=True)
    seen = await first.next()
    first.answer.close()
    manager.change("a", paused=False)
    manager.add("b")

    second = await listen(api, **{"Last-Event-ID": str(seen["id"])})
    manager.add("c")
    events = [await second.next() for _ in range(3)]
    second.answer.close()

    assert [event["id"] for event in events] == [seen["id"] + 1, seen["id"] + 2, seen["id"] + 3]
    assert [event["data"]["id"] for event in events] == ["a", "b", "c"]


@pytest.mark.parametrize("last", ["1", "999999999"])
async def test_an_id_that_the_log_no_longer_has_gets_the_present_picture(
    api: ServedApi, manager: FakeManager, last: str
) -> None:
    """One from long ago, or from another life of the daemon."""
    manager.add("a")
    manager.add("b")

    stream = await listen(api, **{"Last-Event-ID": last})
    picture = [await stream.next() for _ in range(2)]
    manager.add("c")
    following = await stream.next()
    stream.answer.close()

    assert [(event["type"], event["data"]["id"]) for event in picture] == [
        ("model.updated", "a"),
        ("model.updated", "b"),
    ]
    assert following["data"]["id"] == "c"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "\u0661", "9" * 19])
async def test_an_id_that_is_none_is_refused(api: ServedApi, last: str) -> None:
    answer = await api.ask("GET", "/v1/events", headers={"Last-Event-ID": last})

    assert answer.status == 400
    assert answer.error["param"] == "Last-Event-ID"


async def test_events_of_one_model_alone_by_id_or_alias_and_before_it_exists(
    api: ServedApi, manager: FakeManager, streams: list[Stream]
) -> None:
    manager.add("a", aliases=("other",))
    by_id, by_alias, awaited = (
        await listen(api, "?model=a"),
        await listen(api, "?model=other"),
        await listen(api, "?model=b%2Fc"),
    )
    streams += [by_id, by_alias, awaited]

    manager.complain("models/x.json")
    manager.change("a", paused=True)
    manager.add("b/c")

    assert (await by_id.next())["data"]["id"] == "a"
    assert (await by_alias.next())["data"]["id"] == "a"
    assert (await awaited.next())["data"]["id"] == "b/c"


async def test_a_comment_comes_at_every_beat_also_between_events(manager: FakeManager) -> None:
    async with ServedApi(manager, ApiSettings(heartbeat_s=0.02)) as api:
        stream = await listen(api)
        for _ in range(5):
            assert await asyncio.wait_for(stream.block(), 2) == ":"
        manager.add("a")
        assert (await stream.next())["data"]["id"] == "a"
        stream.answer.close()


def test_the_beat_is_the_contracts() -> None:
    assert ApiSettings().heartbeat_s == 15


async def test_a_reader_that_takes_nothing_costs_little_and_is_let_go(manager: FakeManager) -> None:
    """The others get their events meanwhile; the slow one loses its connection, and nothing of it is left."""
    async with ServedApi(manager, ApiSettings(slow_reader_s=0.3)) as api:
        reader, writer = await asyncio.open_unix_connection(str(api.socket), limit=1_000)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"retry: 1000")
        quick = await listen(api)
        manager.add("a", details={"padding": "x" * 20_000})
        await quick.next()

        for number in range(100):
            manager.change("a", paused=number % 2 == 0)
            assert (await quick.next())["id"] == 101 + number
        await until(lambda: is_reset(writer), what="the slow reader to be let go")
        quick.answer.close()
        writer.close()


def is_reset(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side is gone, without reading what it sent."""
    try:
        writer.write(b"x")
    except ConnectionError:
        return True
    return writer.transport.is_closing()


async def test_a_reader_that_goes_leaves_nothing_behind(api: ServedApi, manager: FakeManager) -> None:
    before = len(asyncio.all_tasks())
    streams = [await listen(api) for _ in range(20)]
    for stream in streams:
        stream.answer.close()
    manager.add("a")

    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_burst_reaches_every_reader_whole_and_in_order(
    api: ServedApi, manager: FakeManager, streams: list[Stream]
) -> None:
    streams += [await listen(api) for _ in range(5)]

    for number in range(1_000):
        manager.add(f"m{number}")

    for stream in streams:
        assert [(await stream.next())["id"] for _ in range(1_000)] == list(range(100, 1_100))


async def test_an_event_is_with_a_listener_in_milliseconds(api: ServedApi, manager: FakeManager) -> None:
    stream = await listen(api)
    took = []
    for number in range(30):
        began = time.perf_counter()
        manager.add(f"m{number}")
        await stream.next()
        took.append(time.perf_counter() - began)
    stream.answer.close()

    assert sorted(took)[15] < 0.01


async def test_the_stream_ends_when_the_log_does(api: ServedApi, manager: FakeManager) -> None:
    stream = await listen(api)
    manager.add("a")

    manager.events.close()

    assert (await stream.next())["data"]["id"] == "a"
    assert await stream.answer.content.readany() == b""


async def test_a_reader_that_falls_behind_the_ring_is_brought_up_to_date(manager: FakeManager) -> None:
    manager.events = EventLog(picture=manager.list, ring=8)
    async with ServedApi(manager) as api:
        stream = await listen(api)
        for number in range(100):
            manager.add(f"m{number}")
        events = [await stream.next() for _ in range(100)]
        stream.answer.close()

    assert {event["data"]["id"] for event in events} == {f"m{number}" for number in range(100)}
    assert all(event["type"] == "model.updated" for event in events)
