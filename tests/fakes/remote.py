"""Sessions with the stand-in provider, made as the lifecycle makes them: from a model JSON."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from jand.engine.remote.credentials import Credential
from jand.engine.remote.endpoint import parse_endpoint
from jand.engine.remote.provider import Patience, Provider
from tests.fakes.provider import API_VERSION, AZURE_KEY, DEPLOYMENT, KEY
from tests.fakes.records import make_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jand.engine.remote.answer import StreamedAnswer, WholeAnswer
    from tests.fakes.provider import FakeProvider

CHAT = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity"}
HELLO: dict[str, Any] = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
QUICK = Patience(connect_s=2.0, silence_s=5.0, check_s=3.0, check_wait_s=0.5)


def openai_json(provider: FakeProvider, name: str = "gpt-4o-mini", key: str = KEY, **fields: Any) -> dict[str, Any]:
    """Return the JSON of a model at the stand-in, by OpenAI's dialect; an empty *key* is none."""
    init = {"API-KEY": key, "DEPLOYMENT-NAME": name}
    parameters = {"init": init, "runtime": fields.pop("runtime", {})}
    return {"origin": f"{provider.origin}/v1", "import_format": "openai", "parameters": parameters, **fields}


def azure_json(
    provider: FakeProvider,
    deployment: str = DEPLOYMENT,
    key: str = AZURE_KEY,
    version: str = API_VERSION,
    **fields: Any,
) -> dict[str, Any]:
    """Return the same by Azure's, without *version* by its v1 API."""
    init = {"API-KEY": key, "DEPLOYMENT-NAME": deployment, "api-version": version}
    parameters = {"init": init, "runtime": fields.pop("runtime", {})}
    return {"origin": provider.origin, "import_format": "azure_openai", "parameters": parameters, **fields}


@contextlib.asynccontextmanager
async def session_for(
    fields: Mapping[str, Any],
    *,
    patience: Patience = QUICK,
    chance: float = 1.0,
    proxies: Mapping[str, str] | None = None,
) -> AsyncIterator[Provider]:
    """Open a session for the model JSON *fields*, named "mine"; nothing is checked. The shortest waits by default."""
    spec = make_spec(**fields)
    key = spec.parameters.init.api_key
    session = Provider(
        "mine",
        parse_endpoint(spec, spec.id or "mine"),
        None if key is None else Credential(key, "API-KEY of its JSON"),
        runtime=spec.parameters.runtime.given(),
        proxies=proxies,
        patience=patience,
        chance=lambda: chance,
    )
    try:
        yield session
    finally:
        await session.close()


async def ask(session: Provider, path: str = CHAT, **fields: Any) -> tuple[StreamedAnswer | WholeAnswer, bytes]:
    """Ask, and return the answer with its whole body."""
    answer = await session.ask(path, json.dumps(HELLO | fields).encode(), HEADERS)
    return answer, await read_all(answer)


async def read_all(answer: StreamedAnswer | WholeAnswer) -> bytes:
    body = b""
    try:
        while piece := await answer.content.readany():
            body += piece
    finally:
        answer.close()
    return body
