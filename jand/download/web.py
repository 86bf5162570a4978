"""The door to the network for downloads: every request, each redirect followed by hand, and what goes wrong translated.

What holds for every hop: http and https only, never from https to http, no private address but those allowed, no credentials beyond the origin that they are meant for, and no
request while its quota is paused. Nothing here knows what a body is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from jand.download.pace import Pauses
from jand.download.private import PublicResolver, RefusedAddressError, is_private, public_socket
from jand.download.repository import bad_address, origin_of, shown_url
from jand.download.retry import TemporaryFailureError, exhausted_for, wait_asked
from jand.errors import (
    DownloadError,
    HubUnavailableError,
    NoNetworkError,
    NotAHubError,
    PrivateAddressError,
    RateLimitedError,
    UnsafeAddressError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from multidict import CIMultiDictProxy

    from jand.download.settings import DownloadSettings

MOST_HOPS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SMALL_BODY: Final = 64 << 10
_LONGEST_PAUSE_S: Final = 2.0
_LONGEST_HEADER: Final = 32 << 10
"""Signed addresses in Location are long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer of a chain of redirects. *stated* has the headers of the last one by who was asked: there a hub says what the file is. *origin* is who answered last."""

    response: aiohttp.ClientResponse
    stated: CIMultiDictProxy[str]
    asked: str
    origin: str

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self.response.headers

    @property
    def encoding(self) -> str | None:
        """The encoding of the body, where it has one although none was asked for."""
        stated = self.headers.get("Content-Encoding", "").strip().lower()
        return stated[:40] if stated not in {"", "identity"} else None

    @property
    def redirected(self) -> bool:
        """Whether somebody else answered than who was asked."""
        return origin_of(self.asked) != self.origin

    @property
    def wait_s(self) -> float | None:
        return wait_asked(self.headers, time.time())


class Web:
    """Sessions are opened by the first request; `close` ends them."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._home = origin_of(settings.endpoint)
        self._pauses = Pauses()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._opening = asyncio.Lock()
        private = settings.allow_private
        self._allow_all = private is True
        named = frozenset[str]() if isinstance(private, bool) else frozenset(host.lower() for host in private)
        self._allowed = named | {URL(settings.endpoint).host or ""}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def wait_turn(self, url: str) -> None:
        """Wait until *url* may be asked, for callers who hold nothing yet that others could use meanwhile."""
        await self._pauses.wait(url)

    @contextlib.asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str] | None = None, *, on_hub: bool = False
    ) -> AsyncIterator[Answer]:
        """Ask for *url* and yield the answer after all redirects, whatever its status; the body is to be read inside.

        *on_hub*: the content of a file is asked for at a hub, so whoever answers without naming a commit is none.
        Raises TemporaryFailureError for what another attempt may mend, also for what breaks inside, and DownloadError for the rest.
        """
        with _translated(url):
            answer = await self._follow(url, dict(headers or {}), on_hub=on_hub)
            try:
                yield answer
            finally:
                answer.response.close()

    async def _follow(self, url: str, headers: dict[str, str], *, on_hub: bool) -> Answer:
        # What a server gives is taken as it stands: quoting a signed address anew breaks its signature.
        target = URL(url, encoded=True)
        asked = origin_of(url)
        at_home = True
        token = self._settings.token if asked == self._home else None
        stated: CIMultiDictProxy[str] | None = None
        for _ in range(MOST_HOPS + 1):
            credentials = {"Authorization": f"Bearer {token}"} if token and at_home else {}
            response = await self._request(target, {**headers, **credentials})
            stated = response.headers if at_home or stated is None else stated
            following = await _following(response, target)
            leaves = following is None or origin_of(str(following)) != asked
            if on_hub and at_home and leaves and response.status < 400 and "X-Repo-Commit" not in response.headers:
                response.close()
                raise TemporaryFailureError(_not_a_hub(url))
            if following is None:
                return Answer(response, stated, url, origin_of(str(target)))
            # Once away, credentials stay away, also from where a redirect leads back.
            at_home = at_home and not leaves
            target = following
        raise bad_address(url, f"it redirects more than {MOST_HOPS} times")

    async def _request(self, target: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        url = str(target)
        if self._settings.offline:
            message = f"cannot reach {target.host}: downloads are set to be offline"
            raise NoNetworkError(message, hint="unset HF_HUB_OFFLINE", retry_after_s=self._settings.retry.permanent_s)
        host = (target.host or "").lower()
        if target.scheme not in {"http", "https"} or not host:
            raise bad_address(url, "only https and http are fetched")
        proxy = self._find_proxy(target, host)
        trusted = self._allow_all or host in self._allowed
        if proxy and not trusted:
            _refuse_by_name(host)
        await self._short_wait(url)
        session = await self._session(trusted=trusted or proxy is not None)
        response = await session.get(target, headers=headers, allow_redirects=False, proxy=proxy)
        if response.status in {429, 503}:
            self._pauses.set(url, wait_asked(response.headers, time.time()) or 0.0)
        elif exhausted := exhausted_for(response.headers):
            self._pauses.set(url, exhausted)
        return response

    async def _short_wait(self, url: str) -> None:
        """Wait for a short pause; fail for a long one, since whoever asks may hold what others could use meanwhile."""
        remaining = self._pauses.remaining(url)
        if remaining > _LONGEST_PAUSE_S:
            message = f"cannot download {shown_url(url)}: the server wants to be left alone for {remaining:.0f} s"
            raise TemporaryFailureError(RateLimitedError(message, hint="it is tried again by itself"), remaining)
        await self._pauses.wait(url)

    def _find_proxy(self, target: URL, host: str) -> str | None:
        proxies = self._settings.proxies
        proxy = proxies.get(target.scheme) or proxies.get("all")
        return None if not proxy or _goes_direct(host, target.port, proxies.get("no", "")) else proxy

    async def _session(self, *, trusted: bool) -> aiohttp.ClientSession:
        async with self._opening:
            if trusted not in self._sessions:
                context = await asyncio.to_thread(ssl.create_default_context)  # reads the system's certificates
                self._sessions[trusted] = self._open_session(context, trusted=trusted)
            return self._sessions[trusted]

    def _open_session(self, context: ssl.SSLContext, *, trusted: bool) -> aiohttp.ClientSession:
        if trusted:
            connector = aiohttp.TCPConnector(ssl=context, limit=0)
        else:
            connector = aiohttp.TCPConnector(
                ssl=context, limit=0, resolver=PublicResolver(), socket_factory=public_socket
            )
        return aiohttp.ClientSession(
            connector=connector,
            # No limit for the whole (aiohttp's own is 5 minutes): only silence ends a transfer.
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_s, sock_read=self._settings.stall_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"},
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )


def _goes_direct(host: str, port: int | None, exceptions: str) -> bool:
    """Whether the list in `no_proxy` names *host*, itself or by a domain that it lies in."""
    for entry in exceptions.lower().replace(",", " ").split():
        name = entry.removeprefix("*").lstrip(".")
        if entry == "*" or name in {host, f"{host}:{port}"} or (name and host.endswith(f".{name}")):
            return True
    return False


async def _following(response: aiohttp.ClientResponse, current: URL) -> URL | None:
    """Return where a redirect leads, and end it; None for any other answer, which stays open."""
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or not location:
        return None
    try:
        if response.content_length is not None and response.content_length <= _SMALL_BODY:
            await response.read()  # so that the connection can be used again
    finally:
        response.close()
    try:
        following = current.join(URL(location, encoded=True))
    except ValueError as error:
        raise bad_address(str(current), "it redirects to something that is no address") from error
    if current.scheme == "https" and following.scheme != "https":
        raise bad_address(str(current), f"it redirects from https to {shown_url(str(following))}")
    return following


def _not_a_hub(url: str) -> NotAHubError:
    hint = "a login page of the network may stand between: open any page in a browser; it is tried again by itself"
    return NotAHubError(f"cannot download {shown_url(url)}: what answers is no hub", hint=hint)


def _refuse_by_name(host: str) -> None:
    """Refuse what can be told without resolving, which a proxy does out of our sight."""
    literal = host.replace(".", "").isdigit() or ":" in host
    if host == "localhost" or host.endswith(".localhost") or (literal and is_private(host)):
        raise _private(host, f"{host} is a private address")


def _private(host: str | None, cause: str) -> PrivateAddressError:
    hint = f'if that is meant, add "{host}" to allow_private in the [download] part of jand.toml'
    return PrivateAddressError(f"cannot download from {host}: {cause}", hint=hint, param="download_url")


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except aiohttp.InvalidURL as error:
        raise bad_address(url, "it is malformed") from error
    except aiohttp.ClientError as error:
        raise _translate(error, url) from error


def _translate(
    error: aiohttp.ClientError, url: str
) -> TemporaryFailureError | UnsafeAddressError | PrivateAddressError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return TemporaryFailureError(
            _no_network(
                url,
                f"its certificate is not accepted ({_short(error)})",
                "check the clock, and whether a proxy or a login page stands between",
            )
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, RefusedAddressError):
            return _private(error.host, str(error.os_error))
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return TemporaryFailureError(
                _no_network(url, f"the name {error.host} cannot be resolved", "check the network")
            )
        return TemporaryFailureError(
            _no_network(url, _cause(error.os_error), "check the network and the proxy settings")
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return TemporaryFailureError(_no_network(url, "nobody answers", "check the network and the proxy settings"))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return TemporaryFailureError(_no_network(url, f"the proxy answers {error.status}", "check the proxy settings"))
    if isinstance(error, aiohttp.SocketTimeoutError):
        return TemporaryFailureError(
            HubUnavailableError(
                f"cannot download {shown_url(url)}: nothing came any more", hint="it is tried again by itself"
            )
        )
    if isinstance(error, aiohttp.ClientResponseError):
        # The parser draws below the line at fault what is wrong with it.
        cause = f"what answers is not HTTP as it must be ({error.message.partition(chr(10))[0].rstrip(':')[:200]})"
        hint = "check the address, and whether something else listens there; it is tried again by itself"
        return TemporaryFailureError(HubUnavailableError(f"cannot download {shown_url(url)}: {cause}", hint=hint))
    return TemporaryFailureError(
        HubUnavailableError(
            f"cannot download {shown_url(url)}: the connection broke ({_short(error)})",
            hint="it is tried again by itself",
        )
    )


def _no_network(url: str, cause: str, hint: str) -> DownloadError:
    return NoNetworkError(f"cannot reach {shown_url(url)}: {cause}", hint=hint)


def _cause(error: OSError) -> str:
    """Return what the system says of *error*, without the address that asyncio puts beside it."""
    number = error.errno or 0
    return os.strerror(number).lower() if number in errno.errorcode else _short(error)


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]
