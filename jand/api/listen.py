"""Where the API is served: the private Unix socket, sockets handed over by a service manager, TCP; and how serving ends.

TCP beyond the loopback is refused without a token. To stop is: take no more connections, end endless streams, let answers run for their time, cut the rest with an error, close.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from jand.api.accepting import AT_ONCE, Shortage
from jand.api.app import SHARED
from jand.api.connection import Connection, with_expectations
from jand.api.private_socket import BACKLOG, BoundSocket, bind_private
from jand.api.socket_place import SocketPlace, placed
from jand.errors import SettingsError, SocketInUseError, SocketUnusableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jand.api.settings import ListenSettings

log = structlog.get_logger(__name__)

FIRST_INHERITED: Final = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

CUT_S: Final = 1.0
"""What requests that were cut get to say so."""

KEEP_ALIVE_S: Final = 75.0


class Listeners:
    """What is served now; made by `open_listeners`."""

    def __init__(
        self, runner: web.AppRunner, bound: BoundSocket | None, app: web.Application, settings: ListenSettings
    ) -> None:
        self._runner = runner
        self._place = SocketPlace(
            settings, bound, placed(settings.inherited), self._serve_again, app[SHARED].manager.report
        )
        self._drain = app[SHARED].drain
        self._servers: list[asyncio.Server] = []
        self._cleaning = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens: paths, and HOST:PORT with the port that was given for a 0."""
        return [write_address(listener.getsockname()) for server in self._servers for listener in server.sockets]

    async def add(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        connections = self._runner.server
        assert connections is not None

        def connect() -> Connection:
            silent: Any = None  # what aiohttp takes, and its own runners pass, for no access log
            return Connection(connections, loop=loop, access_log=silent, keepalive_timeout=KEEP_ALIVE_S)

        self._tls = tls or self._tls
        self._servers.append(await loop.create_server(connect, sock=listener, ssl=tls, backlog=AT_ONCE))
        listener.listen(BACKLOG)  # asyncio has one word for how many may wait and how many it takes at once

    async def look(self) -> None:
        """Make the socket's file again where somebody has removed it. To be called every few seconds."""
        await self._place.look()

    async def _serve_again(self, made: BoundSocket) -> None:
        """Serve on *made* in place of the socket that no client finds any more; connections stay."""
        before = self._place.bound
        await self.add(made.listener)
        for server in list(self._servers):
            if before is not None and server.sockets and server.sockets[0].fileno() == before.listener.fileno():
                self._servers.remove(server)
                server.close()

    def renew_certificate(self, cert: Path, key: Path) -> None:
        """Show *cert* to whoever connects from now on, where TLS is spoken. Raises SettingsError."""
        if self._tls is not None:
            load_certificate(self._tls, cert, key)

    async def close(self, *, grace_s: float = 3.0) -> None:
        """Stop serving; ends within *grace_s* + 2 s. Idempotent; a call with less grace overtakes one under way."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self._place.remove()
        self._drain.begin()
        if not await self._drain.wait_empty(grace_s):
            log.info("answers cut", after_s=grace_s)
            self._drain.cut()
            await self._drain.wait_empty(CUT_S)
        async with self._cleaning:
            await self._runner.cleanup()


async def open_listeners(app: web.Application, settings: ListenSettings) -> Listeners:
    """Serve *app* wherever *settings* say; where one place fails none is left open.

    Raises SocketInUseError, SocketUnusableError, and SettingsError for what may not be served so.
    """
    tls = load_tls(settings.tls_cert, settings.tls_key)
    has_token = app[SHARED].settings.token is not None
    bound = None
    if settings.socket is not None:
        bound = await asyncio.to_thread(
            bind_private,
            settings.socket,
            mode=settings.socket_mode,
            group=settings.socket_group,
            held=settings.held,
        )
    # A client that goes away cancels its handler, and so ends what was done for it.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=CUT_S)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_handler = with_expectations(runner.server.request_handler)
    listeners = Listeners(runner, bound, app, settings)
    Shortage(app[SHARED].manager.report, door_of(settings)).install(asyncio.get_running_loop())
    try:
        if bound is not None:
            await listeners.add(bound.listener)
        for inherited in settings.inherited:
            check_reach(inherited, has_token=has_token)
            await listeners.add(inherited, None if inherited.family == socket.AF_UNIX else tls)
        for address in settings.listen:
            for listener in await bind_tcp(address, has_token=has_token):
                await listeners.add(listener, tls)
    except BaseException:
        await listeners.close(grace_s=0)
        raise
    return listeners


def door_of(settings: ListenSettings) -> str:
    """Return the name of the door that most clients take."""
    if settings.socket is not None:
        return str(settings.socket)
    return write_address(settings.inherited[0].getsockname()) if settings.inherited else ", ".join(settings.listen)


def load_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, cert, key)
    return context


def load_certificate(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    check_readable(cert, "certificate")
    check_readable(key, "certificate's key")
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        cause = getattr(error, "reason", None) or error.strerror or "it cannot be read"
        raise SettingsError(
            f"cannot use the certificate {cert} with {key}: {cause}", hint="both must be PEM files"
        ) from error


def check_readable(path: Path, what: str) -> None:
    """Raise SettingsError that names *path* where it cannot be read: OpenSSL does not say which of its two files it means."""
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise SettingsError(
            f"cannot use the {what} {path}: it is not there",
            hint="correct tls_cert and tls_key, or make them: jand service certificate",
        ) from error
    except OSError as error:
        raise SettingsError(
            f"cannot use the {what} {path}: {(error.strerror or 'it cannot be read').lower()}",
            hint=f"the daemon runs as uid {os.geteuid()}: give it the file, or let its group read it (chown, chmod)",
        ) from error


async def bind_tcp(address: str, *, has_token: bool) -> list[socket.socket]:
    """Bind every address that the host of HOST:PORT has."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise SocketUnusableError(
            f'cannot listen on {address}: the host "{host}" is not known', hint="correct listen"
        ) from error
    reached = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    if not has_token and not all(is_loopback(str(where[0])) for _, where in reached):
        raise beyond_loopback(address)
    bound: list[socket.socket] = []
    try:
        for family, where in reached:
            # A name may have several addresses; where any port will do, the first one's is that of all.
            chosen = bound[0].getsockname()[1] if bound else where[1]
            bound.append(bind_one(family, (where[0], chosen, *where[2:]), address))
    except BaseException:
        for listener in bound:
            listener.close()
        raise
    return bound


def bind_one(family: int, where: tuple[object, ...], address: str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SocketInUseError(
                f"cannot listen on {address}: another program does", hint="choose another port with listen"
            ) from error
        raise SocketUnusableError(
            f"cannot listen on {address}: {os.strerror(error.errno or 0).lower()}", hint="correct listen"
        ) from error
    return listener


def check_reach(listener: socket.socket, *, has_token: bool) -> None:
    """Raise SettingsError where an inherited TCP socket can be reached from elsewhere and no token is set."""
    if listener.family == socket.AF_UNIX or has_token:
        return
    host = str(listener.getsockname()[0])
    if not is_loopback(host):
        raise beyond_loopback(write_address(listener.getsockname()))


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def beyond_loopback(address: str) -> SettingsError:
    return SettingsError(
        f"cannot listen on {address}: without a token everybody who reaches this machine could use it",
        hint="set token_file, or listen on 127.0.0.1",
    )


def write_address(address: object) -> str:
    if not isinstance(address, tuple):
        return os.fsdecode(address) if isinstance(address, str | bytes) else str(address)
    host = str(address[0])
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def inherited_sockets(
    environ: Mapping[str, str], *, pid: int, first: int = FIRST_INHERITED
) -> tuple[socket.socket, ...]:
    """Return the listening sockets that systemd handed to the process *pid*; none where LISTEN_PID names another.

    Children do not inherit them further. Raises SettingsError for what is no listening stream socket.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return ()
    count = environ.get("LISTEN_FDS", "")
    if not (count.isascii() and count.isdigit()):
        return ()
    return tuple(adopt_descriptor(first + number) for number in range(int(count)))


def adopt_descriptor(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        cause = os.strerror(error.errno or 0).lower()
        raise SettingsError(
            f"cannot use the inherited descriptor {descriptor}: {cause}", hint="LISTEN_FDS must count sockets"
        ) from error
    families = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
    listens = listener.type == socket.SOCK_STREAM and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in families or not listens:
        listener.detach()
        raise SettingsError(
            f"cannot use the inherited descriptor {descriptor}: it is no listening stream socket",
            hint="use ListenStream=",
        )
    listener.setblocking(False)
    return listener
