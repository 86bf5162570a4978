"""Remote models: from what the disk holds to a session with the provider that serves them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog

from jand.engine.remote.endpoint import parse_endpoint
from jand.engine.remote.provider import Provider
from jand.lifecycle.running import Upstream
from jand.model import identity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from yarl import URL

    from jand.engine.remote.credentials import Credential, Credentials
    from jand.engine.remote.provider import Patience
    from jand.library.findings import Found
    from jand.lifecycle.running import Launch, Running
    from jand.model.spec import Spec


log = structlog.get_logger(__name__)


class RemoteModels:
    """Starts sessions with providers; *proxies* as `urllib.request.getproxies` gives them."""

    def __init__(
        self, credentials: Credentials, *, proxies: Mapping[str, str] | None = None, patience: Patience | None = None
    ) -> None:
        self._credentials = credentials
        self._proxies = proxies or {}
        self._patience = patience

    async def launch(
        self, model_id: str, found: Found, spec: Spec, on_progress: Callable[[float], None]
    ) -> RemoteRunning:
        """Find the key, check with the provider that all is right, and keep the session. Raises StartError."""
        began = time.monotonic()
        endpoint = parse_endpoint(spec, spec.id or identity.default_id(found.path))
        origin = endpoint.base.origin()
        credential = await asyncio.to_thread(self._credentials.find, spec.parameters.init.api_key, origin)
        provider = Provider(
            model_id,
            endpoint,
            credential,
            runtime=spec.parameters.runtime.given(),
            proxies=self._proxies,
            patience=self._patience,
        )
        try:
            await provider.check(self._credentials.names_for(origin))
        except BaseException:
            await provider.close()
            raise
        on_progress(1.0)
        log_destination(model_id, credential, origin)
        return RemoteRunning(model_id, spec, provider, credential, checked_in_s=time.monotonic() - began)


def log_destination(model_id: str, credential: Credential | None, origin: URL) -> None:
    """Say where a key goes; a warning where nothing but a dropped JSON decided that."""
    if credential is None:
        log.info("no key is sent", model=model_id, to=str(origin))
    elif credential.loose is None:
        log.info("key goes to the provider", model=model_id, key=credential.source, to=str(origin))
    else:
        log.warning(
            "key goes where its JSON says",
            model=model_id,
            key=credential.source,
            to=str(origin),
            hint=f'{credential.loose} = "{origin}" in [secrets] of jand.toml lets it go nowhere else',
        )


class RemoteRunning:
    """A session with a provider; satisfies `running.Running`."""

    pid = None

    def __init__(
        self, model_id: str, spec: Spec, provider: Provider, credential: Credential | None, *, checked_in_s: float
    ) -> None:
        self._spec = spec
        self._key_from = None if credential is None else credential.source
        self._provider = provider
        self._checked_in_s = checked_in_s
        self._since = time.time()
        self._upstream = Upstream(provider.ask, model_id)

    @property
    def upstream(self) -> Upstream:
        return self._upstream

    def init_changed(self, spec: Spec) -> bool:
        return _asked_as(spec) != _asked_as(self._spec)

    def init_in_force(self) -> dict[str, Any]:
        return {}

    def apply_runtime(self, spec: Spec) -> None:
        self._provider.runtime = spec.parameters.runtime.given()

    def details(self) -> dict[str, Any]:
        """Where its requests go, and where their key is from; never the key."""
        endpoint = self._provider.endpoint
        key = {} if self._key_from is None else {"key_from": self._key_from, "key_sent_to": str(endpoint.base.origin())}
        return {
            **key,
            "provider": endpoint.host,
            "dialect": endpoint.dialect.value,
            "provider_model": endpoint.name,
            "loaded_in": round(self._checked_in_s, 3),
            "since": round(self._since, 3),
        }

    def memory(self) -> int:
        """Nothing that counts: the model is elsewhere."""
        return 0

    def last_words(self) -> tuple[str, ...]:
        """Return nothing: a provider's log is its own."""
        return ()

    async def wait(self) -> str:
        await self._provider.wait()
        return "it was stopped"

    async def stop(self, *, grace_s: float, force: bool) -> None:
        await self._provider.stop(grace_s=grace_s, force=force)

    async def close(self) -> None:
        await self._provider.close()


def by_engine(local: Launch, remote: Launch) -> Launch:
    """Return what starts a model where its spec says that it runs."""

    def launch(model_id: str, found: Found, spec: Spec, on_progress: Callable[[float], None], /) -> Awaitable[Running]:
        return (remote if spec.is_remote else local)(model_id, found, spec, on_progress)

    return launch


def _asked_as(spec: Spec) -> tuple[object, ...]:
    """Return what of *spec* decides where and as whom a provider is asked."""
    return spec.parameters.init, spec.origin, spec.import_format, spec.metadata.engine, spec.id
