"""Names of repositories and what a hub lists in them, as plain values; how people write both, and the addresses that follow.

Pure. `hub` fills these in; everything that decides reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from typing_extensions import override

from jand.errors import BadOriginError, UnsafeAddressError

HUGGING_FACE: Final = "https://huggingface.co"
DEFAULT_REVISION: Final = "main"

# What people copy out of a browser or another program, whatever HF_ENDPOINT says.
_HUB_HOSTS: Final = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,200}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Repository(NamedTuple):
    """*name* is `user/repo`."""

    name: str
    revision: str = DEFAULT_REVISION

    @override
    def __str__(self) -> str:
        return self.name if self.revision == DEFAULT_REVISION else f"{self.name}@{self.revision}"

    @property
    def owner(self) -> str:
        return self.name.partition("/")[0]


class PullReference(NamedTuple):
    """What `jand pull` is given: a repository and, after a colon, a quantisation."""

    repository: Repository
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository; *sha256* is None for small files, which a hub names by git's digest alone."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a repository at one commit."""

    repository: Repository
    commit: str
    files: tuple[HubFile, ...]
    gated: bool = False

    def find(self, path: str) -> HubFile | None:
        return next((file for file in self.files if file.path == path), None)


class HubAddress(NamedTuple):
    """A file of a repository, taken from a URL; *path* is empty where the URL means the repository itself."""

    repository: Repository
    path: str


def parse_repository(text: str, endpoint: str = HUGGING_FACE) -> Repository:
    """Parse `user/repo`, `user/repo@revision`, or the address of a repository's page; raise BadOriginError for anything else."""
    plain = text.strip()
    if "://" in plain or plain.partition("/")[0].lower() in _HUB_HOSTS:
        address = find_hub_address(plain if "://" in plain else f"https://{plain}", endpoint)
        if address is not None:
            return address.repository
        if "://" in plain:
            raise _bad_origin(text)
        plain = plain.partition("/")[2]
    name, _, revision = plain.partition("@")
    owner, slash, repo = name.partition("/")
    revision = revision or DEFAULT_REVISION
    named = slash and _PART.fullmatch(owner) and _PART.fullmatch(repo)
    if named and _REVISION.fullmatch(revision) and ".." not in plain:
        return Repository(name, revision)
    raise _bad_origin(text)


def parse_reference(text: str, endpoint: str = HUGGING_FACE) -> PullReference:
    """Parse what `jand pull` takes: `[hf.co/]user/repo[@revision][:QUANTISATION]`."""
    head, colon, tail = text.strip().rpartition(":")
    if colon and tail and "/" not in tail:
        return PullReference(parse_repository(head, endpoint), tail)
    return PullReference(parse_repository(text, endpoint))


def _bad_origin(text: str) -> BadOriginError:
    message = f"cannot download from {text[:200]!r}: it names no repository"
    hint = 'write "origin" as "user/repo" or "user/repo@revision", or give a full address in "download_url"'
    return BadOriginError(message, hint=hint, param="origin")


def find_hub_address(url: str, endpoint: str = HUGGING_FACE) -> HubAddress | None:
    """Find the repository, and the file, that a URL of the hub means (its page, `tree`, `blob` or `resolve`); None for any other URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return None
    path = parts.path
    if origin_of(url) == origin_of(endpoint):
        path = path.removeprefix(urlsplit(endpoint).path.rstrip("/"))
    elif parts.netloc.lower() not in _HUB_HOSTS:
        return None
    segments = [unquote(segment) for segment in path.split("/") if segment]
    if len(segments) < 2 or not all(_PART.fullmatch(segment) for segment in segments[:2]):
        return None
    name = "/".join(segments[:2])
    if len(segments) == 2:
        return HubAddress(Repository(name), "")
    if len(segments) == 3 or segments[2] not in {"tree", "blob", "resolve"} or not _REVISION.fullmatch(segments[3]):
        return None
    return HubAddress(Repository(name, segments[3]), "" if segments[2] == "tree" else "/".join(segments[4:]))


def resolve_url(endpoint: str, repository: str, revision: str, path: str) -> str:
    """Return the address of a file's content at *revision*, a branch, tag or commit."""
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{quote(revision, safe='')}/{quote(path)}"


def origin_of(url: str) -> str:
    """Return scheme, host and port, with the port spelled out: what credentials belong to."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return ""
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    except ValueError as error:
        raise bad_address(url, str(error)) from error
    return f"{parts.scheme}://{parts.hostname.lower()}:{port}"


def bad_address(url: str, cause: str) -> UnsafeAddressError:
    message = f"cannot download from {shown_url(url)}: {cause}"
    return UnsafeAddressError(message, hint="give the https:// address of the file itself", param="download_url")


def shown_url(url: str) -> str:
    """Return *url* as it may appear in a message or a log: without its query, which may be a signature, and without a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "a malformed address"
    return f"{parts.scheme}://{host}{port}{parts.path}"[:500]


def parse_digest(text: str) -> str | None:
    """Return the sha256 in an ETag, a listing or a JSON, lower case and without decoration; None where it is another kind of tag."""
    plain = text.strip().removeprefix("W/").strip('"').removeprefix("sha256:").lower()
    return plain if _DIGEST.fullmatch(plain) else None
