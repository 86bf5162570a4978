"""Where a provider is asked and how: from the fields of a spec to addresses and the header that carries the key. Pure.

A plain `http://` origin is taken, for what runs on this machine or in its network; that no key goes there unless it is this very machine is the matter of
`credentials`. The rule of downloads against private addresses does not hold here: people run vLLM, llama-server and other jands on loopback.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from yarl import URL

from jand.errors import BadRemoteError
from jand.model import secrets
from jand.model.spec import ImportFormat

if TYPE_CHECKING:
    from jand.model.spec import Spec

OPENAI_HOST: Final = "api.openai.com"
AZURE_HOSTS: Final = (
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
    ".openai.azure.us",
    ".openai.azure.cn",
)

DEPLOYED: Final = frozenset({"/chat/completions", "/completions", "/embeddings"})
"""What Azure's dated API answers below a deployment; the rest lies beside it, and the body names the deployment."""

UNDATED: Final = frozenset({"v1", "latest", "preview"})
"""Words in the place of a date that mean Azure's v1 API."""

_DEPLOYMENT = re.compile(r"(?P<before>.*?)/openai/deployments/(?P<name>[^/]+)(?:/.*)?")
_V1 = re.compile(r"(?P<before>.*?)/openai/v1(?:/.*)?")
_ROUTE = re.compile(r"/(?:chat/completions|completions|embeddings|responses|models)$")
_ENTRA_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")


class Dialect(StrEnum):
    """How a provider wants to be asked: OPENAI and all that are compatible, AZURE by deployment and dated version, AZURE_V1 without either."""

    OPENAI = "openai"
    AZURE = "azure"
    AZURE_V1 = "azure-v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """*base* stands for `/v1` (for AZURE for what lies above `/deployments`); *name* is what the provider calls the model."""

    dialect: Dialect
    base: URL
    name: str

    @property
    def host(self) -> str:
        """The provider as people see it, with its port where that is not the scheme's own."""
        host = self.base.raw_host or ""
        shown = f"[{host}]" if ":" in host else host
        return shown if self.base.is_default_port() else f"{shown}:{self.base.port}"

    @property
    def is_strict(self) -> bool:
        """Whether the provider is known to refuse fields that are not OpenAI's."""
        return self.dialect is not Dialect.OPENAI or self.base.host == OPENAI_HOST

    @property
    def needs_key(self) -> bool:
        return self.is_strict

    def url(self, path: str) -> URL:
        """Return where *path* of our API (`/v1/...`) is at the provider."""
        tail = path.removeprefix("/v1")
        if self.dialect is Dialect.AZURE and tail in DEPLOYED:
            tail = f"/deployments/{quote(self.name, safe='')}{tail}"
        return self.base.with_path(f"{self.base.raw_path.rstrip('/')}{tail}", encoded=True, keep_query=True)

    def headers(self, key: str) -> dict[str, str]:
        """Return what carries *key*. Azure takes keys as `api-key` and Entra tokens, which are JWTs, as any bearer."""
        if self.dialect is Dialect.OPENAI or _ENTRA_TOKEN.fullmatch(key):
            return {"Authorization": f"Bearer {key}"}
        return {"api-key": key}


def parse_endpoint(spec: Spec, name: str) -> Endpoint:
    """Return where the model of *spec* is; *name* is what it is called where no `DEPLOYMENT-NAME` says so. Raises BadRemoteError.

    The address of a deployment as Azure's portal shows it is taken whole: deployment and version in it count where the JSON has none.
    """
    url = _parse_origin(spec.origin)
    init = spec.parameters.init
    if _is_azure(spec, url):
        return _azure(url, init.deployment_name, init.api_version, name)
    path = _ROUTE.sub("", url.raw_path.rstrip("/"))
    return Endpoint(
        Dialect.OPENAI, url.with_path(path or "/v1", encoded=True, keep_query=True), init.deployment_name or name
    )


def _is_azure(spec: Spec, url: URL) -> bool:
    return spec.import_format is ImportFormat.AZURE_OPENAI or (url.host or "").endswith(AZURE_HOSTS)


def _azure(url: URL, deployment: str | None, version: str | None, name: str) -> Endpoint:
    path = url.raw_path.rstrip("/")
    version = version or url.query.get("api-version")
    if pasted := _DEPLOYMENT.fullmatch(path):
        path = pasted["before"]
        deployment = deployment or URL(pasted["name"], encoded=True).path
    # No deployment has a slash in its name, but an id may carry the resource before it (model-specs.md).
    deployment = deployment or name.rpartition("/")[2]
    if (v1 := _V1.fullmatch(path)) or version is None or version.lower() in UNDATED:
        before = v1["before"] if v1 else path.removesuffix("/openai")
        base = url.with_path(f"{before}/openai/v1", encoded=True)
        if version is not None and version.lower() == "preview":
            base = base.with_query({"api-version": "preview"})
        return Endpoint(Dialect.AZURE_V1, base, deployment)
    base = url.with_path(f"{path.removesuffix('/openai')}/openai", encoded=True)
    return Endpoint(Dialect.AZURE, base.with_query({"api-version": version}), deployment)


def _parse_origin(origin: str) -> URL:
    """Read an origin as people write it: with or without a scheme, a path, a slash at the end."""
    text = origin.strip()
    try:
        if "://" not in text:
            text = f"{'http' if is_loopback(URL(f'http://{text}').host) else 'https'}://{text}"
        url = URL(text).with_fragment(None)
        valid = url.scheme in {"http", "https"} and bool(url.raw_host) and url.port is not None
    except ValueError as error:
        raise _unusable(origin, "it is no address") from error
    if not valid:
        raise _unusable(origin, "it is no http or https address")
    if url.raw_user is not None or url.raw_password is not None:
        raise _unusable(origin, "it holds a user or a password", hint="give the key as API-KEY instead")
    return url


def _unusable(origin: str, cause: str, hint: str = "") -> BadRemoteError:
    hint = hint or "give the provider's address, for example https://api.openai.com/v1"
    return BadRemoteError(f'cannot use the origin "{secrets.mask(origin)}": {cause}', hint=hint, param="origin")


def is_loopback(host: str | None) -> bool:
    """Whether *host* is this machine by its very name."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
