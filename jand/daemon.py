"""The composition root: builds the parts, runs them, and stops them in reverse order, each stage in bounded time.

Order of the start: lock, socket, watcher, first scan, READY. Order of the stop: no new requests, running streams (up to `STREAMS_S`), workers, watcher,
socket, lock. A second SIGTERM or SIGINT cuts what is still being waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import jand
from jand.api.app import create_app
from jand.api.listen import Listeners, adopt_descriptor, inherited_sockets, load_tls, open_listeners
from jand.api.remote_images import RemoteImages
from jand.api.settings import ApiSettings, ListenSettings
from jand.download import hardware
from jand.download.downloader import Downloader
from jand.download.neighbours import places_from
from jand.download.repository import HUGGING_FACE
from jand.download.reuse import Reuse
from jand.download.settings import DownloadSettings, settings_from
from jand.engine import sandbox
from jand.engine.remote.credentials import Credentials
from jand.errors import SettingsError
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
from jand.log import SECRETS
from jand.paths import Janroot, shipped_example
from jand.service.dump import dump
from jand.service.launchd import activated_descriptors
from jand.service.limits import check_address_space
from jand.service.live import Live
from jand.service.lock import PidFile, RootLock
from jand.service.notify import Both, Notifier, reloading, watchdog_period
from jand.service.reload import Reloaded, Reloader, log_outcome
from jand.service.reporting import Reporter
from jand.service.signals import Signals
from jand.service.upkeep import keep_up

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from jand.log import Logs
    from jand.service.notify import Listener
    from jand.settings import Loaded, Settings

log = structlog.get_logger(__name__)

STREAMS_S: Final = 3.0
"""What running answers get when the daemon is told to stop; with what follows it ends within 5 s."""

SWITCH_S: Final = 0.001
"""How long a thread that scans may compute before a request gets its turn; by itself the interpreter lets it wait five times as long, at every step of its answer."""

SPARING_S: Final = 60.0
"""For how long the first scan goes without the garbage collector: a disk that hangs must not keep it off for ever."""


async def run(loaded: Loaded, logs: Logs, *listeners: Listener) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status 0; tell *listeners*, as systemd, how it goes.

    Raises RootLockedError, SocketInUseError and SettingsError before anything was changed that another daemon uses.
    """
    settings = loaded.settings
    root = Janroot(settings.root)
    notifier = Both(Notifier(os.environ), *listeners)
    check_address_space()
    lock = RootLock(root.own)
    lock.acquire()
    pid_file = PidFile(settings.pid_file) if settings.pid_file is not None else None
    try:
        if pid_file is not None:
            pid_file.acquire()
        root.models.mkdir(parents=True, exist_ok=True)
        ignore_lease_signal()
        sys.setswitchinterval(SWITCH_S)
        with _worker_directory() as directory:
            await _serve(loaded, logs, directory, notifier, [each for each in (lock, pid_file) if each is not None])
    finally:
        if pid_file is not None:
            pid_file.release()
        lock.release()
    return 0


async def _serve(loaded: Loaded, logs: Logs, directory: Path, listener: Listener, pid_files: Sequence[PidFile]) -> None:
    settings = loaded.settings
    measured = (await asyncio.to_thread(hardware.measure)).memory_budget
    live = _build(settings, directory, settings.memory_budget or measured, measured, logs)
    manager = live.manager
    period_s = watchdog_period(os.environ, os.getpid())
    reporter = Reporter(manager, listener, beats=bool(os.environ.get("NOTIFY_SOCKET")), watchdog_s=period_s)
    signals = Signals()
    api = ApiSettings.of(settings)
    SECRETS.add(filter(None, [api.token]))
    reloads = _Reloads(loaded, live, api, listener, reporter)
    app = create_app(
        manager,
        api,
        version_facts=_version_facts(),
        words=live.workers.words,
        images=_remote_images(settings),
        reload=reloads.on_request,
    )
    signals.install(reload=reloads.on_hangup, dump=functools.partial(dump, manager))
    listen = ListenSettings.of(
        settings, inherited=_handed_over(), insists=loaded.is_given("socket"), held=settings.root
    )
    listeners = await open_listeners(app, listen)
    reloads.listeners = listeners
    log.info("listening", on=listeners.addresses, root=str(settings.root), version=jand.__version__, pid=os.getpid())
    watching = asyncio.create_task(manager.run(), name="manager")
    asked = asyncio.create_task(signals.asked.wait(), name="signals")
    reporting = asyncio.create_task(reporter.run(), name="reports")
    sparing = asyncio.create_task(_spare_collector(manager), name="first scan without collector")
    upkeep = asyncio.create_task(keep_up(listeners.look, pid_files), name="upkeep")
    try:
        await asyncio.wait([watching, asked], return_when=asyncio.FIRST_COMPLETED)
        upkeep.cancel()
        reporter.stopping()
        log.info("stopping", reason=signals.reason or "watching failed")
        began = time.monotonic()
        await _wind_down(manager, listeners, signals)
        log.info("stopped", seconds=round(time.monotonic() - began, 2))
    finally:
        await signals.remove()
        for task in (watching, asked, reporting, sparing, upkeep):
            task.cancel()
        await asyncio.gather(asked, reporting, sparing, upkeep, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await watching


class _Reloads:
    """Reads the settings again when somebody asks, and tells the service manager. *listeners* are those that serve, as soon as they do."""

    def __init__(self, loaded: Loaded, live: Live, api: ApiSettings, listener: Listener, reporter: Reporter) -> None:
        self.listeners: Listeners | None = None
        self._settings = loaded.settings
        self._live = live
        self._api = api
        self._listener = listener
        self._reporter = reporter
        self._reloader = Reloader(loaded, live.table(), self._refresh)

    async def on_request(self) -> dict[str, Any]:
        return dataclasses.asdict(await self._reload("request"))

    async def on_hangup(self) -> None:
        try:
            await self._reload("SIGHUP")
        except SettingsError as error:
            log.error("settings not read again", reason=error.message, hint=error.hint)  # noqa: TRY400 - a person's file, no fault of ours
        log.info("scanned", reason="SIGHUP", **await self._live.manager.rescan())

    async def _reload(self, reason: str) -> Reloaded:
        self._listener.send(*reloading())
        try:
            outcome = await self._reloader.reload()
        finally:
            self._reporter.ready_again()
        log_outcome(outcome, reason)
        return outcome

    def _refresh(self, settings: Settings) -> Callable[[], None]:
        """Read the token and the certificate, whose files may hold others by now, and return what lets them count."""
        api = ApiSettings.of(settings)
        if api.token is None and self._api.token is not None:
            raise SettingsError("cannot let go of the token", hint="a restart can", param="token_file")
        cert, key = self._settings.tls_cert, self._settings.tls_key
        load_tls(cert, key)

        def put_in_force() -> None:
            self._api.let_in(api)
            SECRETS.add(filter(None, [api.token]))
            if self.listeners is not None and cert is not None and key is not None:
                self.listeners.renew_certificate(cert, key)
            self._live.logs.reopen()

        return put_in_force


def _handed_over() -> tuple[socket.socket, ...]:
    """Return the sockets that systemd or launchd has bound for us."""
    return (*inherited_sockets(os.environ, pid=os.getpid()), *map(adopt_descriptor, activated_descriptors()))


async def _wind_down(manager: Manager, listeners: Listeners, signals: Signals) -> None:
    """Let streams and workers end together, within `STREAMS_S`; a second signal ends the patience."""
    async with asyncio.TaskGroup() as group:
        patient = [
            group.create_task(listeners.close(grace_s=STREAMS_S), name="close listeners"),
            group.create_task(manager.close(grace_s=STREAMS_S), name="close manager"),
        ]
        impatient = group.create_task(_cut_short(manager, listeners, signals), name="second signal")
        await asyncio.wait(patient)
        impatient.cancel()


async def _cut_short(manager: Manager, listeners: Listeners, signals: Signals) -> None:
    """Wait for a second signal and end what is being waited for."""
    await signals.again.wait()
    log.warning("stopping at once", reason=f"a second signal, {signals.reason}")
    await asyncio.gather(listeners.close(grace_s=0.0), manager.close(grace_s=0.0, force=True))


def _version_facts() -> dict[str, str]:
    """Return the versions that a report of a fault needs; llama.cpp's is read from its package, never by importing it."""
    packages = ("llama-cpp-python", "aiohttp", "watchdog", "pydantic")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


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


def _build(settings: Settings, directory: Path, budget: int, measured: int, logs: Logs) -> Live:
    root = Janroot(settings.root)
    notes = Notes(root.own / "state.json")
    tally = Tally()
    workers = LocalWorkers(
        directory,
        notes,
        tally,
        start_timeout_s=settings.start_timeout,
        hang_timeout_s=settings.hang_timeout,
        sandbox=settings.sandbox,
    )
    credentials = Credentials(root.secrets, os.environ, settings.secrets)
    remotes = RemoteModels(credentials, proxies=urllib.request.getproxies())
    trees = [Tree(root.models, "models"), *(Tree(path, str(path), writable=False) for path in settings.extra_models)]
    download = _download_settings(settings)
    downloader = Downloader(download)
    manager = Manager(
        trees,
        ManagerSettings(
            start_on_request=settings.start_on_request,
            stop_timeout_s=settings.stop_timeout,
            adopt=settings.adopt,
            keep_alive_s=settings.keep_alive,
            restore=settings.restore,
            sandbox=sandbox.available() if settings.sandbox else sandbox.switched_off(),
            library=LibrarySettings(settle_s=settings.settle, rescan_s=settings.rescan),
        ),
        headers=HeaderCache(root.own / "headers"),
        notes=notes,
        launch=by_engine(workers.launch, remotes.launch),
        downloader=downloader,
        admission=Admission(budget, notes),
        tally=tally,
        catalog=Catalog(root.catalog, shipped_example() / "catalog"),
        reuse=Reuse(places_from(os.environ, Path.home()), download.endpoint, has_writer) if settings.reuse else None,
    )
    return Live(manager, workers, credentials, downloader, logs, measured)


def _remote_images(settings: Settings) -> RemoteImages | None:
    """Return what fetches images for requests, which is no business of the hub: neither its token nor its offline switch count."""
    if not settings.remote_images:
        return None
    download = _download_settings(settings)
    return RemoteImages(dataclasses.replace(download, endpoint=HUGGING_FACE, token=None, offline=False, stall_s=10.0))


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
