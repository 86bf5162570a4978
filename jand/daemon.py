"""The composition root: builds the parts, runs them, and stops them in reverse order, each stage in bounded time.

Order of the start: lock, socket, watcher, first scan, READY. Order of the stop: no new requests, running streams (up to `STREAMS_S`), workers, watcher,
socket, lock. A second SIGTERM or SIGINT cuts what is still being waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

import structlog

import jand
from jand.api.app import create_app
from jand.api.listen import open_listeners
from jand.library.probe import ignore_lease_signal
from jand.paths import Janroot
from jand.service.lock import RootLock
from jand.service.notify import Notifier

if TYPE_CHECKING:
    from pathlib import Path

    from jand.settings import Loaded, Settings

log = structlog.get_logger(__name__)

STREAMS_S: Final = 3.0
"""What running answers get when the daemon is told to stop; with what follows it ends within 5 s."""


async def run(loaded: Loaded) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status 0.

    Raises RootLockedError, SocketInUseError and SettingsError before anything was changed that another daemon uses.
    """
    settings = loaded.settings
    root = Janroot(settings.root)
    notifier = Notifier(os.environ)
    lock = RootLock(root.own)
    lock.acquire()
    try:
        root.models.mkdir(parents=True, exist_ok=True)
        ignore_lease_signal()
        with _worker_directory() as directory:
            await _serve(settings, root, directory, notifier)
    finally:
        lock.release()
    return 0


async def _serve(settings: Settings, root: Janroot, directory: Path, notifier: Notifier) -> None:
    manager = _build_manager(settings, root, directory)
    stop = _Signals(manager)
    listeners = await open_listeners(create_app(manager, settings), settings)
    log.info("listening", socket=str(settings.socket), root=str(root.path), version=jand.__version__, pid=os.getpid())
    watching = asyncio.create_task(manager.run(), name="manager")
    stopping = asyncio.create_task(stop.asked.wait(), name="signals")
    ready = asyncio.create_task(_say_ready(manager, notifier), name="ready")
    try:
        await asyncio.wait([watching, stopping], return_when=asyncio.FIRST_COMPLETED)
        notifier.send("STOPPING=1")
        log.info("stopping", reason=stop.reason)
        began = time.monotonic()
        await _wind_down(manager, listeners, stop)
        log.info("stopped", seconds=round(time.monotonic() - began, 2))
    finally:
        for task in (watching, stopping, ready):
            task.cancel()
        await asyncio.gather(stopping, ready, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await watching
