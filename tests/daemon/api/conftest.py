"""The API with an in-memory manager, on a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager
from tests.fakes.upstream import FakeUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
async def api(manager: FakeManager) -> AsyncIterator[ServedApi]:
    async with ServedApi(manager) as served:
        yield served


@pytest.fixture
async def upstream(manager: FakeManager) -> AsyncIterator[FakeUpstream]:
    """What serves the models of *manager*."""
    async with FakeUpstream() as served:
        manager.serve_with(served.socket)
        yield served
