"""Whether a model can be asked at all, found out once at its start and at no cost: with the key, the deployment, the version and the address that its JSON gives.

OpenAI's dialect has a page for each model. Azure's has none for deployments, so the deployment is sent a request without messages, which it refuses before it does
anything; so is a compatible server that lists no models. What a provider says of itself in passing (too busy, a key that may not list) does not keep a model from starting.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import structlog

from jand.engine.remote.endpoint import Dialect
from jand.errors import BadRemoteError, RemoteUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jand.engine.remote.credentials import Credential
    from jand.engine.remote.endpoint import Endpoint

    Probe = Callable[[str, str, bytes | None], Awaitable["Probed"]]
    """Asks with a method for a path of our API, with a body, and returns what came."""

log = structlog.get_logger(__name__)

ABSENT: Final = frozenset({404, 405, 501})
"""What a server answers that has no such page."""

NO_SUCH_MODEL: Final = frozenset({"model_not_found", "model-not-found"})
INFERENCE: Final = ("/v1/chat/completions", "/v1/embeddings", "/v1/completions")
ASK_AGAIN: Final = "try again; its status page may know more"


@dataclass(frozen=True, slots=True)
class Probed:
    """What came back: *content* where it is a JSON object, *said* what it says for people, without our key."""

    status: int
    content: dict[str, Any] | None
    said: str

    @property
    def is_good(self) -> bool:
        return self.status < 300 and self.content is not None

    @property
    def code(self) -> str:
        error = self.content.get("error") if self.content is not None else None
        return str(error.get("code")) if isinstance(error, dict) else ""

    @property
    def in_brackets(self) -> str:
        return f"(status {self.status}: {self.said})" if self.said else f"(status {self.status})"


@dataclass(frozen=True, slots=True)
class Check:
    """*variables* are those of the environment that could give the key."""

    model_id: str
    endpoint: Endpoint
    credential: Credential | None
    variables: tuple[str, ...]

    def run_before_asking(self) -> None:
        """Raise BadRemoteError where it is plain that a key is needed and there is none."""
        if self.credential is None and self.endpoint.needs_key:
            raise self._no_key()

    async def run(self, probe: Probe) -> None:
        """Raise BadRemoteError that says what is wrong and what mends it, RemoteUnavailableError where that is nothing of ours."""
        if self.endpoint.dialect is Dialect.OPENAI:
            await self._check_compatible(probe)
        else:
            await self._check_azure(probe)

    async def _check_compatible(self, probe: Probe) -> None:
        probed = await probe("GET", f"/v1/models/{quote(self.endpoint.name, safe='')}", None)
        if probed.code in NO_SUCH_MODEL:
            raise self._error(
                f'{self.endpoint.host} has no model "{self.endpoint.name}"',
                f"give its name there as DEPLOYMENT-NAME; {self.endpoint.host} may also keep it from this key",
            )
        if probed.status in ABSENT:
            probed = await probe("GET", "/v1/models", None)
            self._note_whether_listed(probed)
        if probed.status in ABSENT:
            return await self._check_inference(probe)
        if not probed.is_good:
            self._judge(probed)
        return None

    async def _check_inference(self, probe: Probe) -> None:
        """Ask for what cannot be answered: a server that says so is one that we can use."""
        for path in INFERENCE:
            probed = await probe("POST", path, b"{}")
            if probed.status not in ABSENT:
                self._judge_refusal(probed)
                return
        raise self._no_api()

    async def _check_azure(self, probe: Probe) -> None:
        named = {"model": self.endpoint.name} if self.endpoint.dialect is Dialect.AZURE_V1 else {}
        probed = await probe("POST", INFERENCE[0], json.dumps(named).encode())
        if probed.code == "DeploymentNotFound" or probed.code in NO_SUCH_MODEL:
            raise self._error(
                f'{self.endpoint.host} has no deployment "{self.endpoint.name}"',
                "correct DEPLOYMENT-NAME (the name of the deployment, not of its model); one made just now takes 5 minutes",
            )
        wrong_version = probed.status == 400 and "api-version" in probed.said.lower().replace(" ", "-")
        if probed.status in ABSENT or wrong_version:
            raise self._wrong_path(probed)
        self._judge_refusal(probed)

    def _judge_refusal(self, probed: Probed) -> None:
        """Judge the answer to a request that was to be refused."""
        if probed.status not in {400, 409, 413, 415, 422} and not probed.is_good:
            self._judge(probed)

    def _judge(self, probed: Probed) -> None:
        """Raise what an answer that is no good means; return where it only means that more cannot be found out."""
        host = self.endpoint.host
        if probed.status < 300:
            raise self._no_api()
        if probed.status < 400:
            raise self._error(
                f"{host} sends us elsewhere (status {probed.status})", "give the address that it leads to as origin"
            )
        if probed.status == 429 or (probed.status in {401, 403} and _may_not_list(probed.said)):
            log.warning("provider not checked", model=self.model_id, provider=host, reason=probed.in_brackets)
            return
        if probed.status == 401:
            raise self._no_key() if self.credential is None else self._wrong_key(probed)
        if probed.status >= 500:
            raise RemoteUnavailableError(
                f'cannot start "{self.model_id}": {host} cannot answer now {probed.in_brackets}', hint=ASK_AGAIN
            )
        raise self._error(f"{host} refuses {probed.in_brackets}", "see what it says; the key may lack a permission")

    def _note_whether_listed(self, probed: Probed) -> None:
        listed = (probed.content or {}).get("data")
        names = [item.get("id") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        if names and self.endpoint.name not in names:
            # No reason to refuse: llama-server takes any name, and routers know more names than they list.
            log.info("model not in the list of its provider", model=self.model_id, name=self.endpoint.name)

    def _error(self, cause: str, hint: str) -> BadRemoteError:
        return BadRemoteError(f'cannot start "{self.model_id}": {cause}', hint=hint)

    def _no_key(self) -> BadRemoteError:
        ways = "give API-KEY in its JSON: the key, or file:NAME for a key in the root's secrets/NAME"
        if self.variables:
            ways += f"; or start the daemon with {' or '.join(self.variables)} set"
        return self._error(f"{self.endpoint.host} wants a key, and there is none", ways)

    def _wrong_key(self, probed: Probed) -> BadRemoteError:
        source = "its key" if self.credential is None else self.credential.source
        return self._error(f"{self.endpoint.host} does not accept its key {probed.in_brackets}", f"correct {source}")

    def _wrong_path(self, probed: Probed) -> BadRemoteError:
        version = self.endpoint.base.query.get("api-version")
        if self.endpoint.dialect is Dialect.AZURE:
            return self._error(
                f'{self.endpoint.host} has no API of version "{version}" {probed.in_brackets}',
                "correct api-version (2024-10-21 is one), or leave it out for the v1 API; and see that origin is the resource's address",
            )
        return self._error(
            f"{self.endpoint.host} has no v1 API there {probed.in_brackets}",
            "give the resource's address as origin, or an api-version where it has only the dated API",
        )

    def _no_api(self) -> BadRemoteError:
        return self._error(
            f"what answers at {self.endpoint.host}{self.endpoint.base.path} is no API of OpenAI's kind",
            "correct the origin: its path usually ends in /v1",
        )


def _may_not_list(said: str) -> bool:
    """Whether a key is good and lacks nothing but the right to read the list of models, as OpenAI's restricted keys may."""
    return "missing scopes" in said.lower() and "model.read" in said
