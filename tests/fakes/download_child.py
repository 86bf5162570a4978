"""A process that downloads one file and can be killed: `python -m tests.fakes.download_child ENDPOINT DIRECTORY ORIGIN FILE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from jand.download.downloader import Downloader, DownloadSettings
from jand.model.spec import Spec


async def run(endpoint: str, directory: Path, origin: str, name: str) -> None:
    downloader = Downloader(DownloadSettings(endpoint=endpoint, min_free=0))
    try:
        plan = await downloader.plan(Spec.model_validate({"origin": origin, "download_url": name}), directory, {})
        await downloader.fetch(plan, directory, owner="child", on_progress=lambda _: None)
    finally:
        await downloader.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
