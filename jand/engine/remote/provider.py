"""The session with one provider for one running model: asks, asks again where that is worth it, checks once at the start, and ends in bounded time.

The key lives here and in the headers of requests, nowhere else. No redirect is followed: it would carry the key, and what was said, to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from yarl import URL

import jand
from jand.engine.remote import retry
from jand.engine.remote.answer import (
    Blotter,
    StreamedAnswer,
    WholeAnswer,
    parse_object,
    read_bounded,
    read_error,
    readable,
)
from jand.engine.remote.body import rewrite
from jand.engine.remote.check import Check, Probed
from jand.engine.remote.endpoint import is_loopback
from jand.engine.remote.failures import FAILURES, explain, is_passing
from jand.errors import RemoteUnavailableError, StartError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jand.engine.remote.credentials import Credential
    from jand.engine.remote.endpoint import Endpoint

log = structlog.get_logger(__name__)

LARGE: Final = 256 * 1024
"""Bytes of a request above which it is rewritten in a thread: some milliseconds of the event loop otherwise."""

MAX_PROBED: Final = 4 << 20
"""Bytes of an answer that the check reads; the longest lists of models have half a megabyte."""

LONGEST_HEADER: Final = 32 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to reach a provider, without a byte from it (as long as OpenAI's own client waits), for the check at the start, and for a wait that the check may be asked for."""

    connect_s: float = 15.0
    silence_s: float = 600.0
    check_s: float = 30.0
    check_wait_s: float = 8.0


class Provider:
    """Made within the event loop that uses it; `close` must be called. *runtime* holds the defaults for requests and may be replaced at any time."""

    def __init__(
        self,
        model_id: str,
        endpoint: Endpoint,
        credential: Credential | None,
        *,
        runtime: Mapping[str, Any],
        proxies: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.endpoint = endpoint
        self.runtime = runtime
        self._model_id = model_id
        self._credential = credential
        self._key = None if credential is None else credential.key
        self._patience = patience or Patience()
        self._chance = chance
        self._proxy = find_proxy(endpoint.base, proxies or {})
        self._asking = 0
        self._answers: set[StreamedAnswer] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=self._patience.connect_s, sock_read=self._patience.silence_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"jand/{jand.__version__}", "Accept-Encoding": "identity"},
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    # Asking.

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> StreamedAnswer | WholeAnswer:
        """Put the request for *path* of our API to the provider and return its answer, whatever its status. Raises UpstreamError where there is none."""
        with self._counted():
            content = await self._rewritten(path, body)
            response = await self._ask(path, content, headers)
            if 300 <= response.status < 400:
                response.close()
                raise self._failed(f"sends us elsewhere (status {response.status})", "correct the origin in its JSON")
            if response.status >= 400:
                return await read_error(response, self._key, host=self.endpoint.host)
            answer = StreamedAnswer(response, self._key, self._let_go)
            self._answers.add(answer)
            return answer

    async def _rewritten(self, path: str, body: bytes) -> bytes:
        def work() -> bytes:
            name, strict = self.endpoint.name, self.endpoint.is_strict
            return rewrite(path, body, name=name, runtime=self.runtime, strict=strict)

        return await asyncio.to_thread(work) if len(body) > LARGE else work()

    async def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._persist("POST", path, body, headers, most_asked_s=retry.MOST_ASKED_S)
        except FAILURES as error:
            if self._ended.is_set():
                raise self._stopped() from None
            cause, hint = explain(error)
            log.warning(
                "provider failed",
                model=self._model_id,
                provider=self.endpoint.host,
                reason=cause,
                error=type(error).__name__,
            )
            raise self._failed(cause, hint) from error

    async def _persist(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, most_asked_s: float
    ) -> aiohttp.ClientResponse:
        """Ask until the answer is final or patience ends; a stop ends it at once. Foreign errors come through."""
        failures = 0
        while True:
            if self._ended.is_set():
                raise self._stopped()
            failures += 1
            try:
                response = await self._request(method, path, body, headers)
            except FAILURES as error:
                if failures > retry.RETRIES or not is_passing(error):
                    raise
                delay = retry.backoff(failures, self._chance())
                if not await self._wait(delay, explain(error)[0]):
                    raise
            else:
                wanted = retry.find_delay(
                    response.status,
                    response.headers,
                    failures=failures,
                    now=time.time(),
                    chance=self._chance(),
                    most_asked_s=most_asked_s,
                )
                if wanted is None or not await self._kept_for(wanted, response):
                    return response
                response.close()

    async def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        return await self.session.request(
            method,
            self.endpoint.url(path),
            data=body,
            headers={**headers, **(self.endpoint.headers(self._key) if self._key is not None else {})},
            allow_redirects=False,
            proxy=self._proxy,
        )

    async def _kept_for(self, delay_s: float, response: aiohttp.ClientResponse) -> bool:
        """Wait as `_wait` does; the answer is kept meanwhile, because a stop makes it the final one."""
        try:
            return await self._wait(delay_s, f"answers with status {response.status}")
        except BaseException:
            response.close()
            raise

    async def _wait(self, delay_s: float, reason: str) -> bool:
        """Wait before another attempt; False where the model is being stopped, so that there is none."""
        if self._ending.is_set():
            return False
        log.info(
            "asking the provider again",
            model=self._model_id,
            provider=self.endpoint.host,
            reason=reason,
            in_s=round(delay_s, 3),
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), delay_s)
        return not self._ending.is_set()

    def _failed(self, cause: str, hint: str) -> UpstreamError:
        return UpstreamError(f'cannot use "{self._model_id}": {self.endpoint.host} {cause}', hint=hint)

    def _stopped(self) -> UpstreamError:
        return UpstreamError(f'cannot use "{self._model_id}": it was stopped', hint="ask again to start it")

    # The check.

    async def check(self, variables: tuple[str, ...]) -> None:
        """Raise StartError where the provider cannot be used as it is set up; *variables* could give the key."""
        check = Check(self._model_id, self.endpoint, self._credential, variables)
        check.run_before_asking()
        try:
            async with asyncio.timeout(self._patience.check_s):
                await check.run(self._probe)
        except FAILURES as error:
            cause, hint = explain(error)
            raise RemoteUnavailableError(
                f'cannot start "{self._model_id}": {self.endpoint.host} {cause}', hint=hint
            ) from error

    async def _probe(self, method: str, path: str, body: bytes | None) -> Probed:
        headers = {"Accept": "application/json"} | ({} if body is None else {"Content-Type": "application/json"})
        response = await self._persist(method, path, body, headers, most_asked_s=self._patience.check_wait_s)
        content, _ = await read_bounded(response, MAX_PROBED)
        parsed = parse_object(content)
        said = Blotter(self._key).text(_find_message(parsed) if parsed is not None else readable(content))
        return Probed(response.status, parsed, " ".join(said.split())[:300])

    # Its end.

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._asking += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._asking -= 1
            self._note_idle()

    def _let_go(self, answer: StreamedAnswer) -> None:
        self._answers.discard(answer)
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._asking and not self._answers:
            self._idle.set()

    async def wait(self) -> None:
        """Return when `stop` has ended it: a session does not end by itself."""
        await self._ended.wait()

    async def stop(self, *, grace_s: float, force: bool) -> None:
        """Let answers end for *grace_s* seconds, with *force* none, then cut what is left. A forced stop overtakes a patient one."""
        self._ending.set()
        if not force and not self._ended.is_set():
            ends = (asyncio.ensure_future(self._idle.wait()), asyncio.ensure_future(self._ended.wait()))
            try:
                await asyncio.wait(ends, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
        self._ended.set()
        for answer in list(self._answers):
            answer.cut()
        await self.close()

    async def close(self) -> None:
        await self.session.close()


def find_proxy(url: URL, proxies: Mapping[str, str]) -> URL | None:
    """Return the proxy for *url*, of *proxies* as `urllib.request.getproxies` gives them; none for this machine. Raises StartError for one of another kind."""
    written = proxies.get(url.scheme) or proxies.get("all")
    if not written or is_loopback(url.host):
        return None
    if _goes_direct(url, proxies.get("no", "")):
        return None
    proxy = URL(written if "://" in written else f"http://{written}")
    if proxy.scheme not in {"http", "https"}:
        raise StartError(
            f"cannot reach {url.host} through a proxy of kind {proxy.scheme}: only http proxies are supported",
            hint="name an http proxy in HTTPS_PROXY, or the provider in NO_PROXY, where the daemon is started",
        )
    return proxy


def _goes_direct(url: URL, exceptions: str) -> bool:
    """Whether `no_proxy` names the host of *url*, with its port or without, or a domain that it lies in."""
    host = url.host or ""
    for entry in exceptions.lower().replace(",", " ").split():
        name = entry.removeprefix("*").lstrip(".")
        if entry == "*" or (name and (name in {host, f"{host}:{url.port}"} or host.endswith(f".{name}"))):
            return True
    return False


def _find_message(content: Mapping[str, Any]) -> str:
    """Return what an error says, as OpenAI, Azure, FastAPI and plain gateways write it; empty where it says nothing."""
    error = content.get("error", content)
    said = error.get("message") or error.get("detail") or "" if isinstance(error, dict) else error
    return said if isinstance(said, str) else str(said)
