"""The composition root: builds the parts, runs them, and stops them in reverse order, each stage in bounded time.

Order of the start: lock, socket, watcher, first scan, READY. Order of the stop: no new requests, running streams (up to `STREAMS_S`), workers, watcher,
socket, lock. A second SIGTERM or SIGINT cuts what is still being waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import importlib.metadata
import os
import platform
import shutil
import signal
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

import jand
from jand.api.app import create_app
from jand.api.listen import Listeners, inherited_sockets, open_listeners
from jand.api.settings import ApiSettings, ListenSettings
from jand.download import hardware
from jand.download.downloader import Downloader
from jand.download.neighbours import places_from
from jand.download.reuse import Reuse
from jand.download.settings import DownloadSettings, settings_from
from jand.engine.remote.credentials import Credentials
from jand.library.findings import Tree
from jand.library.headers import HeaderCache
from jand.library.library import LibrarySettings
from jand.library.probe import has_writer, ignore_lease_signal
from jand.lifecycle.admission import Admission
from jand.lifecycle.catalog import Catalog
from jand.lifecycle.manager import Manager, ManagerSettings
from jand.lifecycle.notes import Notes
from jand.lifecycle.remotes import RemoteModels, by_engine
from jand.lifecycle.tally import Tally
from jand.lifecycle.workers import LocalWorkers
from jand.paths import Janroot, shipped_example
from jand.service.lock import PidFile, RootLock
from jand.service.notify import Both, Notifier
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jand.log import Logs
    from jand.service.notify import Listener
    from jand.settings import Loaded, Settings

log = structlog.get_logger(__name__)

STREAMS_S: Final = 3.0
"""What running answers get when the daemon is told to stop; with what follows it ends within 5 s."""

SPARING_S: Final = 60.0
"""For how long the first scan goes without the garbage collector: a disk that hangs must not keep it off for ever."""


async def run(loaded: Loaded, logs: Logs, *listeners: Listener) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status 0; tell *listeners*, as systemd, how it goes.

    Raises RootLockedError, SocketInUseError and SettingsError before anything was changed that another daemon uses.
    """
    settings = loaded.settings
    root = Janroot(settings.root)
    notifier = Both(Notifier(os.environ), *listeners)
    lock = RootLock(root.own)
    lock.acquire()
    pid_file = PidFile(settings.pid_file) if settings.pid_file is not None else None
    try:
        if pid_file is not None:
            pid_file.acquire()
        root.models.mkdir(parents=True, exist_ok=True)
        ignore_lease_signal()
        with _worker_directory() as directory:
            await _serve(settings, root, directory, notifier)
    finally:
        if pid_file is not None:
            pid_file.release()
        lock.release()
    return 0


async def _serve(settings: Settings, root: Janroot, directory: Path, notifier: Listener) -> None:
    budget = settings.memory_budget or (await asyncio.to_thread(hardware.measure)).memory_budget
    manager = _build_manager(settings, root, directory, budget)
    signals = _Signals()
    app = create_app(manager, ApiSettings.of(settings), version_facts=_version_facts())
    inherited = inherited_sockets(os.environ, pid=os.getpid())
    listeners = await open_listeners(app, ListenSettings.of(settings, inherited=inherited))
    signals.install(manager)
    log.info("listening", on=listeners.addresses, root=str(root.path), version=jand.__version__, pid=os.getpid())
    watching = asyncio.create_task(manager.run(), name="manager")
    asked = asyncio.create_task(signals.asked.wait(), name="signals")
    ready = asyncio.create_task(_say_ready(manager, notifier), name="ready")
    sparing = asyncio.create_task(_spare_collector(manager), name="first scan without collector")
    try:
        await asyncio.wait([watching, asked], return_when=asyncio.FIRST_COMPLETED)
        notifier.send("STOPPING=1")
        log.info("stopping", reason=signals.reason or "watching failed")
        began = time.monotonic()
        await _wind_down(manager, listeners, signals)
        log.info("stopped", seconds=round(time.monotonic() - began, 2))
    finally:
        signals.remove()
        for task in (watching, asked, ready, sparing):
            task.cancel()
        await asyncio.gather(asked, ready, sparing, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _wind_down(manager: Manager, listeners: Listeners, signals: _Signals) -> None:
    """Let streams and workers end together, within `STREAMS_S`; a second signal ends the patience."""
    async with asyncio.TaskGroup() as group:
        patient = [
            group.create_task(listeners.close(grace_s=STREAMS_S), name="close listeners"),
            group.create_task(manager.close(grace_s=STREAMS_S), name="close manager"),
        ]
        impatient = group.create_task(signals.cut_short(manager, listeners), name="second signal")
        await asyncio.wait(patient)
        impatient.cancel()


def _version_facts() -> dict[str, str]:
    """Return the versions that a report of a fault needs; llama.cpp's is read from its package, never by importing it."""
    packages = ("llama-cpp-python", "aiohttp", "watchdog", "pydantic")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


async def _say_ready(manager: Manager, notifier: Listener) -> None:
    await manager.ready.wait()
    notifier.send("READY=1", f"STATUS={len(manager.list())} models")


async def _spare_collector(manager: Manager) -> None:
    """Keep the garbage collector from the first scan, of which everything stays: it would look at all of it again and again, for a third of the time that a start takes."""
    gc.disable()
    try:
        async with asyncio.timeout(SPARING_S):
            await manager.ready.wait()
    except TimeoutError:
        log.info("first scan takes long", seconds=SPARING_S)
    finally:
        # What is there now is hardly ever garbage, and need not be looked at for the rest of the daemon's life.
        gc.freeze()
        gc.enable()


class _Signals:
    """SIGTERM and SIGINT ask for the end, and a second one for a quick end; SIGHUP asks for a scan of everything."""

    NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.again = asyncio.Event()
        self.reason = ""
        self._tasks = TaskSet()

    def install(self, manager: Manager) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end, "SIGTERM")
        loop.add_signal_handler(signal.SIGINT, self._end, "SIGINT")
        loop.add_signal_handler(signal.SIGHUP, self._scan, manager)

    def remove(self) -> None:
        for number in self.NUMBERS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _end(self, name: str) -> None:
        (self.again if self.asked.is_set() else self.asked).set()
        self.reason = name

    async def cut_short(self, manager: Manager, listeners: Listeners) -> None:
        """Wait for a second signal and end what is being waited for."""
        await self.again.wait()
        log.warning("stopping at once", reason=f"a second signal, {self.reason}")
        await asyncio.gather(listeners.close(grace_s=0.0), manager.close(grace_s=0.0, force=True))

    def _scan(self, manager: Manager) -> None:
        self._tasks.spawn(self._rescan(manager), name="scan on SIGHUP")

    async def _rescan(self, manager: Manager) -> None:
        log.info("scanned", reason="SIGHUP", **await manager.rescan())


@contextlib.contextmanager
def _worker_directory() -> Iterator[Path]:
    """Make a directory for the workers' sockets that this user alone can enter.

    In the system's temporary directory and not beside the control socket, because a socket's path may have only about 100 bytes. What a killed daemon leaves there is empty sockets.
    """
    directory = Path(tempfile.mkdtemp(prefix="jand-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _build_manager(settings: Settings, root: Janroot, directory: Path, budget: int) -> Manager:
    notes = Notes(root.own / "state.json")
    tally = Tally()
    workers = LocalWorkers(
        directory, notes, tally, start_timeout_s=settings.start_timeout, hang_timeout_s=settings.hang_timeout
    )
    credentials = Credentials(root.secrets, os.environ, settings.secrets)
    remotes = RemoteModels(credentials, proxies=urllib.request.getproxies())
    trees = [Tree(root.models, "models"), *(Tree(path, str(path), writable=False) for path in settings.extra_models)]
    download = _download_settings(settings)
    return Manager(
        trees,
        ManagerSettings(
            start_on_request=settings.start_on_request,
            stop_timeout_s=settings.stop_timeout,
            adopt=settings.adopt,
            keep_alive_s=settings.keep_alive,
            restore=settings.restore,
            library=LibrarySettings(settle_s=settings.settle, rescan_s=settings.rescan),
        ),
        headers=HeaderCache(root.own / "headers"),
        notes=notes,
        launch=by_engine(workers.launch, remotes.launch),
        downloader=Downloader(download),
        admission=Admission(budget, notes),
        tally=tally,
        catalog=Catalog(root.catalog, shipped_example() / "catalog"),
        reuse=Reuse(places_from(os.environ, Path.home()), download.endpoint, has_writer) if settings.reuse else None,
    )


def _download_settings(settings: Settings) -> DownloadSettings:
    """Return what downloads are told; the hub's own variables are read here as its other clients read them."""
    download = settings.download
    allowed = download.allow_private
    return dataclasses.replace(
        settings_from(os.environ, urllib.request.getproxies(), Path.home()),
        allow_private=allowed if isinstance(allowed, bool) else frozenset(allowed),
        concurrency=download.concurrency,
        bandwidth_limit=download.bandwidth_limit,
        min_free=download.min_free,
    )
