"""The API with an in-memory manager, on a real socket."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager
from tests.fakes.upstream import DONE, FakeUpstream, answer_events, chat_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
async def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def api(manager: FakeManager) -> AsyncIterator[ServedApi]:
    async with ServedApi(manager) as served:
        yield served


@pytest.fixture
async def upstream(manager: FakeManager) -> AsyncIterator[FakeUpstream]:
    """Serve the models of *manager*."""
    async with FakeUpstream() as served:
        manager.serve_with(served.socket)
        yield served
        await manager.close()


@pytest.fixture
def api_in_a_thread() -> Iterator[ServedApi]:
    """Serve the API with one model, `a`, that answers `Paris`, from another thread, for clients that block."""
    served: list[ServedApi] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    up = threading.Event()

    async def serve() -> None:
        manager = FakeManager()
        manager.add("a")
        async with FakeUpstream() as upstream, ServedApi(manager) as api:
            upstream.behave = answer_events([chat_chunk("Paris"), DONE])
            manager.serve_with(upstream.socket)
            done = asyncio.Event()
            loops.append((asyncio.get_running_loop(), done))
            served.append(api)
            up.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert up.wait(5)
    yield served[0]
    loop, done = loops[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(5)
    assert not thread.is_alive()
