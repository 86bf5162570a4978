"""A real worker for the time of a test or a file of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from jand.engine.process import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.engine.protocol import WorkerConfig


@contextlib.asynccontextmanager
async def running(config: WorkerConfig) -> AsyncIterator[Worker]:
    """Run a worker, which must end in order."""
    started = await Worker.start(config)
    yield started
    note = await started.stop(grace_s=5)
    assert note.code == 0, note
