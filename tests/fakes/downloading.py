"""What tests of downloads share: settings that point to a stand-in hub and lose no time, specs, and a fetch that tells what came."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from jand.download.downloader import Downloader, DownloadSettings
from jand.download.recommend import GB, Machine
from jand.download.retry import RetryPolicy
from jand.model.spec import Spec
from tests.fakes.hub_files import MIB, gguf_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from jand.download.plan import Plan
    from jand.model.record import Progress
    from tests.fakes.hub import FakeHub

QUICK = RetryPolicy(first_s=0.01, longest_s=0.05, attempts=8, rest_s=900.0, permanent_s=3600.0, disk_full_s=60.0)

REPO = "somebody/noise-GGUF"
NAME = "noise.Q4_K_M.gguf"
OWNER = "models/noise/noise.json"


def machine(memory_gb: float, gpu_gb: float = 0) -> Machine:
    from jand.download.recommend import Gpu

    return Machine(int(memory_gb * GB), (Gpu("test", int(gpu_gb * GB)),) if gpu_gb else ())


def settings_for(hub: FakeHub, **changes: Any) -> DownloadSettings:
    return replace(DownloadSettings(endpoint=hub.endpoint, retry=QUICK, min_free=0, stall_s=0.3), **changes)


def spec_of(**fields: Any) -> Spec:
    return Spec.model_validate({"origin": REPO, **fields})


@asynccontextmanager
async def downloader_for(hub: FakeHub, memory_gb: float = 64, **changes: Any) -> AsyncIterator[Downloader]:
    downloader = Downloader(settings_for(hub, **changes), measure=lambda: machine(memory_gb))
    try:
        yield downloader
    finally:
        await downloader.close()


async def fetch(hub: FakeHub, directory: Path, spec: Spec | None = None, **changes: Any) -> list[Progress]:
    """Plan and fetch *spec* into *directory* with a downloader of its own; return the progress that was told."""
    told: list[Progress] = []
    async with downloader_for(hub, **changes) as downloader:
        plan = await downloader.plan(spec or spec_of(download_url=NAME), directory, {})
        await downloader.fetch(plan, directory, owner=OWNER, on_progress=told.append)
    return told


@cache
def noise(size: int = 8 * MIB, seed: int = 0) -> bytes:
    return gguf_bytes(size, seed)


def contents(directory: Path) -> Mapping[str, str]:
    """Map every file below *directory* to the sha256 of its content."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): digest_of(path.read_bytes()) for path in files}


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def interrupted_fetch(hub: FakeHub, directory: Path, after: int, spec: Spec | None = None, **changes: Any) -> int:
    """Fetch until *after* bytes are there, then cancel; return how many bytes the partial has."""
    async with downloader_for(hub, **changes) as downloader:
        plan = await downloader.plan(spec or spec_of(download_url=NAME), directory, {})
        enough = asyncio.Event()

        def watch(progress: Progress) -> None:
            if progress.bytes_done >= after:
                enough.set()

        async def run(plan: Plan) -> None:
            await downloader.fetch(plan, directory, owner=OWNER, on_progress=watch)

        task = asyncio.ensure_future(run(plan))
        await asyncio.wait([task, asyncio.ensure_future(enough.wait())], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        await asyncio.wait([task])
    return sum(path.stat().st_size for path in (directory / ".jand-part").glob("*.part"))
