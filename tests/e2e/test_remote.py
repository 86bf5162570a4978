"""Remote models in a real daemon, against the stand-in provider: OpenAI's own client sees no difference, and no key is ever seen by anybody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

from tests.fakes import provider as fake
from tests.fakes.daemon import DaemonProcess
from tests.fakes.provider import API_VERSION, AZURE_KEY, DEPLOYMENT, KEY, FakeProvider, Style
from tests.fakes.provider_answers import BLOCKED_ANSWER, BLOCKED_PROMPT, TEXT, chat_events
from tests.fakes.remote import azure_json, openai_json
from tests.fakes.upstream import answer_json
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

pytestmark = pytest.mark.timeout(60)

Client = openai.AsyncOpenAI | openai.AsyncAzureOpenAI

VARIABLE_KEY = "sk-variable-0123456789abcdef-secret"
FILE_KEY = "sk-file-0123456789abcdef-secret"
WRONG_KEY = "sk-wrong-0123456789abcdef-secret"
EVENTS = chat_events({"model": "gpt-4o-mini"}, azure=False)[:3]
STREAM: dict[str, Any] = {"model": "mine", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as served:
        yield served


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    environ = {"OPENAI_API_KEY": VARIABLE_KEY, "AZURE_OPENAI_API_KEY": VARIABLE_KEY, "UNBOUND_KEY": VARIABLE_KEY}
    async with DaemonProcess(tmp_path, environ=environ) as process:
        yield process


async def drop(daemon: DaemonProcess, name: str, fields: dict[str, Any]) -> None:
    """Put a model JSON into the models folder, in place of one that may lie there, and wait until it is registered."""
    folder = daemon.models / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.new").write_text(json.dumps(fields))
    (folder / f"{name}.new").rename(folder / f"{name}.json")

    async def is_registered() -> bool:
        return await daemon.find(name) is not None

    await until(is_registered, what=f"{name} to be registered")


@contextlib.asynccontextmanager
async def clients(
    daemon: DaemonProcess, provider: FakeProvider
) -> AsyncIterator[tuple[dict[str, Client], dict[str, Client]]]:
    """Give OpenAI's clients: straight to the stand-in by dialect, and to jand by their class."""
    async with (
        httpx2.AsyncClient() as direct,
        httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(daemon.socket))) as through,
    ):
        straight: dict[str, Client] = {
            "openai": openai.AsyncOpenAI(
                base_url=f"{provider.origin}/v1", api_key=KEY, http_client=direct, max_retries=0
            ),
            "azure": openai.AsyncAzureOpenAI(
                azure_endpoint=provider.origin,
                api_key=AZURE_KEY,
                api_version=API_VERSION,
                http_client=direct,
                max_retries=0,
            ),
            "azure-v1": openai.AsyncOpenAI(
                base_url=f"{provider.origin}/openai/v1", api_key=AZURE_KEY, http_client=direct, max_retries=0
            ),
        }
        jand: dict[str, Client] = {
            "OpenAI": openai.AsyncOpenAI(
                base_url="http://jand/v1", api_key="unused", http_client=through, max_retries=0
            ),
            "AzureOpenAI": openai.AsyncAzureOpenAI(
                azure_endpoint="http://jand",
                api_key="unused",
                api_version=API_VERSION,
                http_client=through,
                max_retries=0,
            ),
        }
        yield straight, jand


async def chat(client: Client, model: str, text: str = "hi", **more: Any) -> Any:
    return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **more)


async def everything(client: Client, model: str) -> list[Any]:
    """Return the objects of one request of each kind, streams as lists of theirs."""
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    pieces = await chat(client, model, **options)
    texts = await client.completions.create(model=model, prompt="hi", stream=True)
    happenings = await client.responses.create(model=model, input="hi", stream=True)
    return [
        (await chat(client, model, temperature=0.5)).model_dump(),
        (await chat(client, model, BLOCKED_ANSWER)).model_dump(),
        [piece.model_dump() async for piece in pieces],
        (await client.completions.create(model=model, prompt="hi")).model_dump(),
        [piece.model_dump() async for piece in texts],
        (await client.embeddings.create(model=model, input="hi")).model_dump(),
        (await client.embeddings.create(model=model, input="hi", encoding_format="float")).model_dump(),
        (await client.responses.create(model=model, input="hi", temperature=0.5)).model_dump(),
        [happening.model_dump() async for happening in happenings],
    ]


async def failure(client: Client, model: str, text: str = "hi", **more: Any) -> tuple[Any, ...]:
    """Return what the client raises: class, status, the body that it read, and the headers that tell when to try again."""
    with pytest.raises(openai.APIStatusError) as caught:
        await chat(client, model, text, **more)
    error = caught.value
    headers = {name: error.response.headers.get(name) for name in ("retry-after", "retry-after-ms", "x-should-retry")}
    return type(error), error.status_code, error.code, error.param, error.body, headers, error.response.content


@pytest.mark.parametrize("dialect", ["openai", "azure", "azure-v1"])
async def test_openais_client_gets_the_same_objects_and_errors_as_without_jand(
    daemon: DaemonProcess, provider: FakeProvider, dialect: str
) -> None:
    name = "gpt-4o-mini" if dialect == "openai" else DEPLOYMENT
    version = API_VERSION if dialect == "azure" else ""
    await drop(daemon, "mine", openai_json(provider) if dialect == "openai" else azure_json(provider, version=version))
    async with clients(daemon, provider) as (straight, jand):
        expected = await everything(straight[dialect], name)
        for client in jand.values():
            for provider.style in (Style(), Style(cut=1), Style(cut=11, newline=b"\r\n", delay_s=0.05)):
                assert await everything(client, "mine") == expected

        limited = fake.too_many_requests(retry_after="900", x_should_retry="false")
        refused: list[tuple[str, dict[str, Any]]] = [
            (BLOCKED_PROMPT, {}),
            ("hi", {"extra_body": {"top_k": 3}}),
            ("hi", {"max_tokens": 1, "max_completion_tokens": 1}),
            ("hi", {"extra_body": {"messages": []}}),
        ]
        for text, more in refused:
            if dialect == "openai" and text == BLOCKED_PROMPT:
                continue
            wanted = await failure(straight[dialect], name, text, **more)
            assert wanted[1] == 400
            for client in jand.values():
                assert await failure(client, "mine", text, **more) == wanted
        provider.next(limited, limited, limited)
        wanted = await failure(straight[dialect], name)
        assert wanted[:2] == (openai.RateLimitError, 429)
        for client in jand.values():
            assert await failure(client, "mine") == wanted

    assert expected[0]["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("dialect", ["openai", "azure"])
async def test_openais_clients_that_block_get_the_same_objects_too(
    daemon: DaemonProcess, provider: FakeProvider, dialect: str
) -> None:
    azure = dialect == "azure"
    await drop(daemon, "mine", azure_json(provider) if azure else openai_json(provider))

    def look(client: openai.OpenAI, model: str) -> list[Any]:
        messages: Any = [{"role": "user", "content": "hi"}]
        with client.chat.completions.create(model=model, messages=messages, stream=True) as pieces:
            seen = [piece.model_dump() for piece in pieces]
        seen.append(client.chat.completions.create(model=model, messages=messages).model_dump())
        seen.append(client.embeddings.create(model=model, input=["hi"]).model_dump())
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=messages, extra_body={"top_k": 3})
        return [*seen, caught.value.body]

    def compare() -> tuple[list[Any], list[Any], list[Any]]:
        transport = httpx2.HTTPTransport(uds=str(daemon.socket))
        with httpx2.Client() as direct, httpx2.Client(transport=transport) as through:
            straight: openai.OpenAI = openai.OpenAI(base_url=f"{provider.origin}/v1", api_key=KEY, http_client=direct)
            if azure:
                straight = openai.AzureOpenAI(
                    azure_endpoint=provider.origin, api_key=AZURE_KEY, api_version=API_VERSION, http_client=direct
                )
            deployed = openai.AzureOpenAI(
                azure_endpoint="http://jand", api_key="unused", api_version=API_VERSION, http_client=through
            )
            return (
                look(straight, DEPLOYMENT if azure else "gpt-4o-mini"),
                look(openai.OpenAI(base_url="http://jand/v1", api_key="unused", http_client=through), "mine"),
                look(deployed, "mine"),
            )

    direct, plain, by_deployment = await asyncio.to_thread(compare)

    assert len(direct) > 6
    assert plain == direct
    assert by_deployment == direct


async def test_a_remote_model_is_listed_started_used_and_stopped_like_a_local_one(
    daemon: DaemonProcess, provider: FakeProvider
) -> None:
    await drop(daemon, "mine", openai_json(provider, runtime={"temperature": "0.7", "token_limit": "9", "top_p": ".."}))
    listed = (await daemon.models_by_id())["mine"]
    assert (listed["state"], listed["error"], listed["files"]) == ("downloaded", None, [])

    started = await daemon.call("PUT", "/v1/models/mine/start")
    assert (started["state"], started["engine"]) == ("running", "openai")
    assert started["model_parameters"]["init"]["API-KEY"] == "***"
    assert started == await daemon.call("PUT", "/v1/models/mine/start")
    running = (await daemon.models_by_id("?state=running"))["mine"]
    assert running["details"]["provider"] == f"127.0.0.1:{provider.port}"
    assert running["details"]["dialect"] == "openai"

    await daemon.call("POST", "/v1/chat/completions", STREAM | {"stream": False, "temperature": None})
    assert provider.requests[-1].json["model"] == "gpt-4o-mini"
    assert provider.requests[-1].json["temperature"] == 0.7
    assert provider.requests[-1].json["max_tokens"] == 9

    await daemon.call("PUT", "/v1/models/mine/stop")
    assert await daemon.state("mine") == "downloaded"
    await daemon.call("PUT", "/v1/models/mine/stop")
    await until(lambda: provider.connections == 0, what="the session to end")

    await daemon.call("POST", "/v1/chat/completions", STREAM | {"stream": False})
    assert await daemon.state("mine") == "running"
    assert daemon.workers() == []


async def test_edits_of_its_json_count_as_for_a_local_one(daemon: DaemonProcess, provider: FakeProvider) -> None:
    await drop(daemon, "mine", openai_json(provider))
    await daemon.call("PUT", "/v1/models/mine/start")
    await drop(daemon, "mine", openai_json(provider, runtime={"temperature": 0.25}))

    async def is_in_force() -> bool:
        await daemon.call("POST", "/v1/chat/completions", STREAM | {"stream": False})
        return bool(provider.requests[-1].json.get("temperature") == 0.25)

    await until(is_in_force, what="the new default")
    assert (await daemon.find("mine") or {})["restart_needed"] is False
    await drop(daemon, "mine", openai_json(provider, "org/model"))

    async def needs_restart() -> bool:
        return bool((await daemon.find("mine") or {})["restart_needed"])

    await until(needs_restart, what="restart_needed")


async def test_a_start_that_fails_says_why_and_works_once_that_is_mended(
    daemon: DaemonProcess, provider: FakeProvider
) -> None:
    await drop(daemon, "mine", openai_json(provider, key=WRONG_KEY))
    refused = await daemon.call("PUT", "/v1/models/mine/start", status=409)
    assert refused["error"]["code"] == "bad-remote"
    assert "does not accept its key (status 401" in refused["error"]["message"]
    assert "correct API-KEY of its JSON" in refused["error"]["message"]
    model = await daemon.find("mine")
    assert model is not None
    assert model["state"] == "downloaded"
    assert model["error"]["code"] == "bad-remote"

    await drop(daemon, "mine", openai_json(provider))

    async def starts() -> bool:
        return "error" not in await daemon.call("PUT", "/v1/models/mine/start", status=None)

    await until(starts, what="the start with the right key")
    assert (await daemon.find("mine") or {})["error"] is None


async def begin_stream(daemon: DaemonProcess, provider: FakeProvider, *orders: Any) -> aiohttp.ClientResponse:
    provider.next(*orders)
    response = await daemon.session.post("http://jand/v1/chat/completions", json=STREAM)
    assert response.status == 200, await response.text()
    assert await response.content.readline() == b"data: " + EVENTS[0] + b"\n"
    return response


async def test_a_provider_that_dies_in_the_middle_of_an_answer_ends_the_stream_with_an_error(
    daemon: DaemonProcess, provider: FakeProvider
) -> None:
    await drop(daemon, "mine", openai_json(provider))
    response = await begin_stream(daemon, provider, fake.die_mid_stream(EVENTS))
    *events, last, end = (await response.content.read()).removeprefix(b"\n").split(b"\n\n")

    assert end == b""
    assert events == [b"data: " + event for event in EVENTS[1:]]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "upstream-failed"
    assert await daemon.state("mine") == "running"
    async with clients(daemon, provider) as (_, jand):
        provider.next(fake.die_mid_stream(EVENTS), fake.fail_mid_stream(EVENTS))
        for _ in range(2):
            stream = await chat(jand["OpenAI"], "mine", stream=True)
            with pytest.raises(openai.APIError):
                _ = [piece async for piece in stream]


async def test_a_client_that_leaves_and_a_stop_by_force_end_the_generation(
    daemon: DaemonProcess, provider: FakeProvider
) -> None:
    await drop(daemon, "mine", openai_json(provider))
    leaving = await begin_stream(daemon, provider, fake.stream_until_left(EVENTS))
    leaving.close()
    await until(provider.exchanges[-1].left.is_set, what="the provider to see that the client left")

    cut = await begin_stream(daemon, provider, fake.stream_until_left(EVENTS))
    await daemon.call("PUT", "/v1/models/mine/stop?force=true")
    assert b'"code": "upstream-failed"' in await cut.content.read()
    await until(provider.exchanges[-1].left.is_set, what="the provider to see the stop")


async def test_a_redirect_is_refused_and_the_key_stays(daemon: DaemonProcess, provider: FakeProvider) -> None:
    await drop(daemon, "mine", openai_json(provider))
    async with FakeProvider() as other:
        provider.next(fake.redirect_to(f"{other.origin}/v1/chat/completions"))
        refused = await daemon.call("POST", "/v1/chat/completions", STREAM, status=502)
        assert "sends us elsewhere (status 307)" in refused["error"]["message"]
        assert other.requests == []


async def test_a_provider_that_went_away_is_an_error_of_the_request(
    daemon: DaemonProcess, provider: FakeProvider
) -> None:
    await drop(daemon, "mine", openai_json(provider))
    await daemon.call("PUT", "/v1/models/mine/start")
    await provider.vanish()
    refused = await daemon.call("POST", "/v1/chat/completions", STREAM, status=502)

    assert "cannot be reached: connection refused" in refused["error"]["message"]
    assert await daemon.state("mine") == "running"


async def test_a_provider_that_is_away_is_no_fault_of_the_json(daemon: DaemonProcess, provider: FakeProvider) -> None:
    await drop(daemon, "mine", openai_json(provider))
    await provider.vanish()
    refused = await daemon.call("PUT", "/v1/models/mine/start", status=503)
    assert refused["error"]["code"] == "remote-unavailable"
    assert "connection refused" in refused["error"]["message"]


async def test_a_dropped_json_cannot_send_keys_elsewhere(daemon: DaemonProcess, provider: FakeProvider) -> None:
    """Whatever a JSON says, a variable goes to nobody but whom jand.toml names, and nothing at all goes over plain http to another machine."""
    for number, key in enumerate(["env:OPENAI_API_KEY", "env:AZURE_OPENAI_API_KEY", "env:UNBOUND_KEY", "env:HOME", ""]):
        for form, fields in (("o", openai_json(provider, key=key)), ("a", azure_json(provider, key=key))):
            await drop(daemon, f"{form}{number}", fields)
            refused = await daemon.call("PUT", f"/v1/models/{form}{number}/start", status=409)
            assert refused["error"]["code"] == "bad-remote"
    await drop(daemon, "open", openai_json(provider, key=KEY) | {"origin": "http://192.0.2.1/v1"})
    refused = await daemon.call("PUT", "/v1/models/open/start", status=409)
    assert "would travel in the open" in refused["error"]["message"]

    assert [request for request in provider.requests if {"authorization", "api-key"} & request.headers.keys()] == []


async def test_a_variable_that_jand_toml_binds_is_sent_there(tmp_path: Path, provider: FakeProvider) -> None:
    (tmp_path / "jand.toml").write_text(f'[secrets]\nSTAND_IN_KEY = "{provider.origin}"\n')
    async with DaemonProcess(tmp_path, environ={"STAND_IN_KEY": KEY}) as daemon:
        await drop(daemon, "named", openai_json(provider, key="env:STAND_IN_KEY"))
        await drop(daemon, "unnamed", openai_json(provider, key=""))
        for model in ("named", "unnamed"):
            assert (await daemon.call("PUT", f"/v1/models/{model}/start"))["state"] == "running"
        shown = await daemon.find("named")
        told = await daemon.told("key goes to the provider", 2)

    assert [(line["model"], line["key"]) for line in told] == [
        (model, "the environment variable STAND_IN_KEY") for model in ("named", "unnamed")
    ]
    assert shown is not None
    assert shown["parameters"]["init"]["API-KEY"] == "env:STAND_IN_KEY"


async def test_a_key_of_systemd_and_one_in_the_secrets_folder(tmp_path: Path, provider: FakeProvider) -> None:
    provider.keys |= {FILE_KEY}
    for folder in ("secrets", "credentials"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "stand-in").write_text(f"{FILE_KEY}\n")
        (tmp_path / folder / "stand-in").chmod(0o600)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    async with DaemonProcess(tmp_path, environ=environ) as daemon:
        for kind, source in (("file", "secrets/stand-in"), ("credential", "the credential stand-in")):
            await drop(daemon, kind, openai_json(provider, key=f"{kind}:stand-in"))
            assert (await daemon.call("PUT", f"/v1/models/{kind}/start"))["state"] == "running"
            details = (await daemon.find(kind) or {})["details"]
            assert (details["key_from"], details["key_sent_to"]) == (source, provider.origin)
        # Nothing but a JSON that somebody may drop decides where these go, and the log says so.
        warned = await daemon.told("key goes where its JSON says", 2)
        assert [(line["model"], line["to"], line["level"]) for line in warned] == [
            (kind, provider.origin, "warning") for kind in ("file", "credential")
        ]
        assert all(f'stand-in = "{provider.origin}"' in line["hint"] for line in warned)
        (tmp_path / "secrets" / "stand-in").chmod(0o644)
        await daemon.call("PUT", "/v1/models/file/stop")
        refused = await daemon.call("PUT", "/v1/models/file/start", status=409)

    assert "everybody can read it" in refused["error"]["message"]


async def test_no_key_is_in_any_answer_event_log_line_or_file_of_ours(
    tmp_path: Path, daemon: DaemonProcess, provider: FakeProvider
) -> None:
    """Literal, from a file, wrong and repeated by the provider in errors and answers, in a JSON that is broken, and in a request that fails."""
    provider.keys |= {FILE_KEY}
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "mine").write_text(FILE_KEY)
    (tmp_path / "secrets" / "mine").chmod(0o600)
    seen: list[str] = []
    events = await daemon.session.get("http://jand/v1/events")
    assert events.status == 200

    async def call(method: str, path: str, body: Any = None) -> None:
        async with daemon.session.request(method, f"http://jand{path}", json=body) as response:
            seen.append(f"{response.status} {dict(response.headers)} {await response.text()}")

    noted = {"note": f"its key is {KEY}", "tags": [KEY]}
    await drop(daemon, "literal", openai_json(provider, metadata=noted, owned_by=f"{KEY} of mine"))
    await drop(daemon, "file", openai_json(provider, key="file:mine"))
    await drop(daemon, "wrong", openai_json(provider, key=WRONG_KEY))
    await drop(daemon, "azure", azure_json(provider))
    await drop(
        daemon, "address", openai_json(provider) | {"origin": f"http://me:{WRONG_KEY}@127.0.0.1:{provider.port}"}
    )
    (daemon.models / "broken.json").write_text(json.dumps(openai_json(provider, key=WRONG_KEY)).replace("]", "")[:-3])
    keys = {"literal": KEY, "file": FILE_KEY, "azure": AZURE_KEY}
    for model in (*keys, "wrong", "address"):
        await call("PUT", f"/v1/models/{model}/start")
        if own := keys.get(model):
            provider.next(
                answer_json({"error": {"message": f"wrong: {own}", "code": own}}, 401, {"x-echo": own}),
                answer_json({"said": own}, 200, {"x-echo": own}),
                fake.die_mid_stream([own.encode(), f'{{"said": "{own}"}}'.encode()]),
            )
            for _ in range(3):
                await call("POST", "/v1/chat/completions", STREAM | {"model": model})
        await call("GET", f"/v1/models/{model}")
        await call("PUT", f"/v1/models/{model}/start", {"parameters": {"init": {"API-KEY": WRONG_KEY}}})
        await call("PUT", f"/v1/models/{model}/stop")
    for path in ("/v1/models", "/v1/problems", "/health", "/openapi.json"):
        await call("GET", path)
    await provider.vanish()
    await call("POST", "/v1/chat/completions", STREAM | {"model": "literal"})
    told_events = b""
    while b"address" not in told_events or b"broken" not in told_events:
        told_events += await asyncio.wait_for(events.content.readany(), 5)
    events.close()
    seen += [told_events.decode(), daemon.log()]
    for folder, _, names in os.walk(tmp_path / ".jand"):
        seen += [(daemon.root / folder / name).read_bytes().decode(errors="replace") for name in names]

    assert len(seen) > 30
    for key in (KEY, AZURE_KEY, FILE_KEY, WRONG_KEY, VARIABLE_KEY):
        assert [text for text in seen if key in text] == []
