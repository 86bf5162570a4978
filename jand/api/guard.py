"""Who may ask: over TCP the Host, the Origin, the token and the media type decide; on the Unix socket its mode has decided already.

Over TCP any web page can make a browser send requests here, by a foreign Origin or, after DNS rebinding, under a foreign Host. So a Host must be exactly one
of our addresses, and a body must be application/json, which no form can send. Widening the listener widens none of this.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs, web

from jand.errors import ForbiddenHostError, ForbiddenOriginError, UnauthorizedError, UnsupportedMediaTypeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aiohttp.typedefs import Handler, Middleware

    from jand.api.settings import ApiSettings

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
TOKENLESS: Final = frozenset({"/", "/health", "/ready"})
"""Probes ask the latter two, which tell nothing that matters; the page asks people for the token and sends it."""

PAGE_FILES: Final = "/page/"
"""What the page is made of, and nothing else, lies below this path."""

UPLOADS: Final = "/v1/uploads/"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
"""What the body of an upload must call itself; no form can send it either."""

PREFLIGHT: Final = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PUT, DELETE",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, Last-Event-ID",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}


def make_guard(settings: ApiSettings) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_local(request):
            return await handler(request)
        check_host(request, settings.hosts)
        listed = check_origin(request, settings.origins)
        if listed and request.method == hdrs.METH_OPTIONS:
            return web.Response(status=204, headers=PREFLIGHT)
        if needs_token(request.path) and not has_token(request, settings.token):
            raise UnauthorizedError(
                "cannot let this request in: its token is missing or wrong",
                hint='send "Authorization: Bearer TOKEN"; the command line does with --token-file FILE',
            )
        media = OCTETS if request.path.startswith(UPLOADS) else JSON
        if request.body_exists and request.content_type != media:
            raise UnsupportedMediaTypeError(
                f"cannot take a body of type {request.content_type[:80]}", hint=f'send "Content-Type: {media}"'
            )
        return await handler(request)

    return guard


def needs_token(path: str) -> bool:
    """Whether a token that is set must come with a request for *path*."""
    return path not in TOKENLESS and not path.startswith(PAGE_FILES)


def is_local(request: web.Request) -> bool:
    """Whether the request came over a Unix socket."""
    found = find_socket(request)
    return found is not None and found.family == socket.AF_UNIX


def is_trusted(request: web.Request, settings: ApiSettings) -> bool:
    """Whether whoever asks may see more than that we live."""
    return is_local(request) or has_token(request, settings.token)


def has_token(request: web.Request, token: str | None) -> bool:
    if token is None:
        return True
    kind, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(errors="surrogateescape"), token.encode(errors="surrogateescape")
    )


def check_host(request: web.Request, names: Iterable[str]) -> None:
    """Raise ForbiddenHostError unless Host is exactly the address that the connection came to, one of its names, or one of *names*, with the port."""
    host = request.headers.get(hdrs.HOST, "").lower()
    if host not in own_hosts(request, names):
        raise ForbiddenHostError(
            f"cannot answer under the host {host[:200]!r}: it is none of this server's addresses",
            hint="use the address that it listens on",
        )


def own_hosts(request: web.Request, names: Iterable[str]) -> frozenset[str]:
    address, port = local_address(request)
    ours = {f"[{address}]" if ":" in address else address, *(name.lower() for name in names)}
    if address and ipaddress.ip_address(address).is_loopback:
        ours |= LOOPBACK_NAMES
    usual = port == (443 if request.secure else 80)
    return frozenset(f"{host}:{port}" for host in ours) | (frozenset(ours) if usual else frozenset())


def local_address(request: web.Request) -> tuple[str, int]:
    """Return the address and port on this machine that the connection came to; an IPv4 address that IPv6 wraps is unwrapped."""
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if not isinstance(name, tuple):
        return "", 0
    address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(name[1])


def check_origin(request: web.Request, listed: frozenset[str]) -> bool:
    """Raise ForbiddenOriginError for an origin that is neither ours nor *listed*; return whether it is listed."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return False
    if origin in listed:
        return True
    scheme = "https" if request.secure else "http"
    if origin.lower() != f"{scheme}://{request.headers.get(hdrs.HOST, '').lower()}":
        raise ForbiddenOriginError(
            f"cannot answer a page of the origin {origin[:200]!r}", hint="only listed web origins may use this API"
        )
    return False


def make_cors(settings: ApiSettings) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return what adds the CORS headers to answers to listed origins, streams included."""

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin in settings.origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)

    return allow


def find_socket(request: web.Request) -> socket.socket | None:
    found: socket.socket | None = request.transport.get_extra_info("socket") if request.transport is not None else None
    return found


def find_peer(request: web.Request) -> dict[str, int | str]:
    """Say who is at the other end, for the log: uid, gid and pid on the Unix socket (the pid may have been passed on), the address over TCP."""
    connection = find_socket(request)
    if connection is None:
        return {}
    if connection.family != socket.AF_UNIX:
        return {"peer": str(request.remote)}
    try:
        return read_credentials(connection)
    except OSError:
        return {}


def read_credentials(connection: socket.socket) -> dict[str, int | str]:
    if sys.platform == "darwin":
        # struct xucred of sys/un.h: version, uid, number of groups, groups; LOCAL_PEERCRED is 1 at level 0.
        _, uid, _, gid = struct.unpack_from("IIhxxI", connection.getsockopt(0, 1, 76))
        return {"uid": uid, "gid": gid}
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return {"pid": pid, "uid": uid, "gid": gid}
