"""What tests of a daemon that downloads share: one whose hub is a stand-in, a JSON dropped alone, and waiting for what becomes of it."""

from __future__ import annotations

import fcntl
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from tests.fakes.daemon import DaemonProcess
from tests.fakes.downloading import REPO
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.hub import FakeHub

SLOW: Final = 4 * MIB
"""Bytes per second, so that a download can be caught in the middle; it ends soon once the rate is None."""


@asynccontextmanager
async def daemon_at(hub: FakeHub, root: Path, *flags: str, **environ: str) -> AsyncIterator[DaemonProcess]:
    """Run a daemon whose hub is *hub*, which waits hardly for folders to settle and takes the whole disk."""
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "JAND_DOWNLOAD__MIN_FREE": "0", **environ}
    async with DaemonProcess(root, "--settle", "0.1", "--no-reuse", *flags, environ=variables) as daemon:
        yield daemon


def drop(daemon: DaemonProcess, name: str = "noise", **fields: Any) -> Path:
    """Drop a JSON alone, into a folder of its own."""
    folder = daemon.models / name
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"origin": REPO, **fields}))
    return folder


async def model_of(daemon: DaemonProcess, name: str = "noise") -> dict[str, Any]:
    found = await daemon.find(name)
    assert found is not None
    return found


async def until_bytes(daemon: DaemonProcess, count: int, name: str = "noise") -> dict[str, Any]:
    """Wait until *count* bytes of the model have come and not all."""

    async def reached() -> dict[str, Any] | None:
        model: dict[str, Any] | None = await daemon.find(name)
        assert model is None or model["state"] == "downloading", "it is over already"
        progress = model["progress"] if model else None
        return model if progress and progress["bytes_done"] >= count else None

    found: dict[str, Any] | None = await until(reached, 10, what=f"{count} bytes of {name}")
    assert found is not None
    return found


async def until_error(daemon: DaemonProcess, name: str = "noise", code: str | None = None) -> dict[str, Any]:
    async def told() -> dict[str, Any] | None:
        model: dict[str, Any] | None = await daemon.find(name)
        error = model["error"] if model else None
        return model if error and code in {None, error["code"]} else None

    model = await until(told, 20, what=f"an error of {name}")
    assert model is not None
    error: dict[str, Any] = model["error"]
    assert model["state"] == "downloading"
    return error


def fetched(hub: FakeHub) -> int:
    """Return the bytes that went out, those of headers that were read to plan with left out."""
    return sum(
        request.served for request in hub.seen("cdn") if not request.headers.get("range", "").startswith("bytes=0-")
    )


def is_released(path: Path) -> bool:
    """Whether nobody holds a lock on the file, as a transfer has one on its partial and a daemon on its pid file."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
