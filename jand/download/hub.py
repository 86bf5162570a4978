"""The hub's API: what a repository holds, what the header of one of its files says, and which repositories there are.

Answers are bounded in size and checked before they are believed; listings are remembered for a short while, so that many models of one repository ask once.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from jand.download.hub_errors import LATER, failure_of, hub_refusal, is_temporary
from jand.download.repository import HubFile, Listing, Repository, origin_of, parse_digest, resolve_url
from jand.download.retry import Patience, TemporaryFailureError
from jand.errors import GgufError, HubUnavailableError, IncompleteGgufError, NotAHubError
from jand.model.gguf import read_header

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from jand.download.settings import DownloadSettings
    from jand.download.web import Answer, Web
    from jand.model.gguf import Header

    T = TypeVar("T")

log = structlog.get_logger(__name__)

_LARGEST_ANSWER: Final = 32 << 20
_MOST_PAGES: Final = 200
_REMEMBERED_S: Final = 60.0
_REMEMBERED_HEADERS: Final = 64
_FIRST_RANGE: Final = 4 << 20
_LARGEST_HEADER: Final = 64 << 20
_ATTEMPTS: Final = 4
_PATIENCE_S: Final = 15.0
"""No further attempt is begun after so long: somebody waits for a plan, and it is made again later anyhow."""

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NEXT_PAGE = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class _Lfs(BaseModel):
    oid: str = ""
    size: int = 0


class _Entry(BaseModel):
    """One line of a tree."""

    type: str
    path: str
    size: int = 0
    lfs: _Lfs | None = None


class _Info(BaseModel):
    sha: str
    gated: bool | str = False


class Found(BaseModel):
    """One repository that a search found."""

    id: str
    downloads: int = 0
    likes: int = 0
    gated: bool | str = False


_ENTRIES: Final = TypeAdapter(list[_Entry])
_FOUND: Final = TypeAdapter(list[Found])


class Hub:
    """*web* is shared with the transfers, so that they share its pauses too."""

    def __init__(self, web: Web, settings: DownloadSettings) -> None:
        self._web = web
        self._settings = settings
        self._endpoint = settings.endpoint.rstrip("/")
        self._listings: dict[Repository, tuple[float, Listing]] = {}
        self._locks: dict[Repository, asyncio.Lock] = {}
        self._headers: dict[tuple[str, str, str], Header | None] = {}

    async def listing(self, repository: Repository) -> Listing:
        """Return all files of *repository*, pinned to the commit that its revision means now."""
        lock = self._locks.setdefault(repository, asyncio.Lock())
        async with lock:
            now = asyncio.get_running_loop().time()
            at, listing = self._listings.get(repository, (0.0, None))
            if listing is None or now - at > _REMEMBERED_S:
                listing = await self._patiently(lambda: self._read_listing(repository))
                self._forget_old(now)
                self._listings[repository] = now, listing
            return listing

    def _forget_old(self, now: float) -> None:
        for repository in [each for each, (at, _) in self._listings.items() if now - at > _REMEMBERED_S]:
            del self._listings[repository]
            if not self._locks[repository].locked():
                del self._locks[repository]

    async def _read_listing(self, repository: Repository) -> Listing:
        base = f"{self._endpoint}/api/models/{repository.name}"
        revision = quote(repository.revision, safe="")
        info = _Info.model_validate(await self._read_json(f"{base}/revision/{revision}", repository))
        if not _COMMIT.fullmatch(info.sha):
            raise self._unusable(repository, f"it names no commit ({info.sha[:60]!r})")
        files: list[HubFile] = []
        url = f"{base}/tree/{info.sha}?recursive=true"
        for _ in range(_MOST_PAGES):
            async with self._web.get(url) as answer:
                entries = _ENTRIES.validate_python(await self._json_of(answer, repository))
                following = self._next_page(answer)
            files += [_hub_file(entry) for entry in entries if entry.type == "file"]
            if following is not None:
                url = following
            else:
                return Listing(repository, info.sha, tuple(files), gated=bool(info.gated))
        raise self._unusable(repository, "its list of files does not end")

    def _next_page(self, answer: Answer) -> str | None:
        found = _NEXT_PAGE.search(answer.headers.get("Link", ""))
        if found is None:
            return None
        # A mirror may hand on links of the hub that it mirrors.
        url = found[1].replace("https://huggingface.co", self._endpoint, 1)
        return url if origin_of(url) == origin_of(self._endpoint) else None

    async def _read_json(self, url: str, repository: Repository) -> Any:
        async with self._web.get(url) as answer:
            return await self._json_of(answer, repository)

    async def _json_of(self, answer: Answer, repository: Repository) -> Any:
        self._raise_for_status(answer, repository.name, f"from {repository}")
        if answer.encoding is not None:
            raise self._unusable(repository, f"it comes compressed ({answer.encoding}), unasked")
        raw = await _read_body(answer, _LARGEST_ANSWER)
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._unusable(repository, "it is no JSON") from error

    def _unusable(self, repository: Repository, cause: str) -> TemporaryFailureError:
        message = f"cannot list {repository}: what {self._endpoint} answers is not a hub's: {cause}"
        return TemporaryFailureError(
            NotAHubError(message, hint="check HF_ENDPOINT, and whether a login page stands between; " + LATER)
        )

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do *work* again after temporary failures, a few times."""
        patience = Patience(self._settings.retry, random.random)
        loop = asyncio.get_running_loop()
        latest = loop.time() + _PATIENCE_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await work()
            except TemporaryFailureError as failure:
                delay = patience.delay_after(failure)
                if attempt == _ATTEMPTS or loop.time() + delay > latest:
                    failure.error.retry_after_s = max(self._settings.retry.longest_s, failure.after_s or 0.0)
                    raise failure.error from failure
                await asyncio.sleep(delay)
            except ValidationError as error:
                message = f"cannot understand what {self._endpoint} answers ({error.error_count()} unexpected values)"
                hint = "check HF_ENDPOINT"
                raise NotAHubError(message, hint=hint, retry_after_s=self._settings.retry.rest_s) from error
        raise AssertionError

    async def header(self, listing: Listing, file: HubFile) -> Header | None:
        """Read the header of a GGUF by ranges, a few MB in place of all; None where that cannot be had. What a commit holds never changes, so it is read once."""
        key = (listing.repository.name, listing.commit, file.path)
        if key not in self._headers:
            header = await self._read_header(listing, file)
            self._headers = dict([*self._headers.items(), (key, header)][-_REMEMBERED_HEADERS:])
            return header
        return self._headers[key]

    async def _read_header(self, listing: Listing, file: HubFile) -> Header | None:
        url = resolve_url(self._endpoint, listing.repository.name, listing.commit, file.path)
        count = min(_FIRST_RANGE, file.size)
        while True:
            try:
                raw = await self._patiently(partial(self._read_range, url, count, listing.repository.name, file.path))
                return await asyncio.to_thread(read_header, io.BytesIO(raw), file.size, name=file.path)
            except IncompleteGgufError as error:
                needed = error.facts.get("needed")
                wanted = max(count * 2, needed if isinstance(needed, int) else 0)
                if count >= file.size or wanted > _LARGEST_HEADER:
                    return None
                count = min(wanted, file.size)
            except GgufError as error:
                log.info("remote header cannot be read", file=file.path, reason=str(error))
                return None

    async def _read_range(self, url: str, count: int, repository: str, path: str) -> bytes:
        async with self._web.get(url, {"Range": f"bytes=0-{count - 1}"}, on_hub=True) as answer:
            self._raise_for_status(answer, repository, f"the header of {path}")
            # Where ranges are ignored the whole file begins to come: the beginning is taken and the connection closed.
            return await _read_body(answer, count, whole=False)

    def _raise_for_status(self, answer: Answer, repository: str, what: str) -> None:
        if is_temporary(answer):
            raise failure_of(answer, what)
        if answer.status not in {200, 206}:
            signed_in = self._settings.token is not None
            raise hub_refusal(answer.status, answer.headers, repository, what, has_token=signed_in)

    async def small_file(self, listing: Listing, path: str, limit: int) -> bytes | None:
        """Read a small file of a repository; None where it is not there or too large."""
        file = listing.find(path)
        if file is None or file.size > limit:
            return None
        url = resolve_url(self._endpoint, listing.repository.name, listing.commit, path)

        async def read() -> bytes:
            async with self._web.get(url, on_hub=True) as answer:
                self._raise_for_status(answer, listing.repository.name, path)
                return await _read_body(answer, limit)

        return await self._patiently(read)

    async def search(self, words: str, limit: int) -> list[Found]:
        """Return the repositories with GGUF files that a search for *words* finds, those downloaded most first."""
        query = urlencode({"search": words, "filter": "gguf", "sort": "downloads", "direction": -1, "limit": limit})
        url = f"{self._endpoint}/api/models?{query}"

        async def read() -> list[Found]:
            return _FOUND.validate_python(await self._read_json(url, Repository("search")))

        return (await self._patiently(read))[:limit]


def _hub_file(entry: _Entry) -> HubFile:
    digest = parse_digest(entry.lfs.oid) if entry.lfs else None
    return HubFile(entry.path, entry.lfs.size if entry.lfs and entry.lfs.size else entry.size, digest)


async def _read_body(answer: Answer, limit: int, *, whole: bool = True) -> bytes:
    """Read a body of at most *limit* bytes; a longer one is cut, or with *whole* not accepted."""
    body = bytearray()
    async for chunk in answer.response.content.iter_chunked(256 << 10):
        body += chunk
        if len(body) > limit and whole:
            raise TemporaryFailureError(HubUnavailableError("cannot read an answer: it is too long", hint=LATER))
        if len(body) >= limit and not whole:
            break
    return bytes(body[:limit])
