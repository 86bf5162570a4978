"""Origins as people write them, and the addresses and headers that providers want."""

from __future__ import annotations

from typing import Any

import pytest

from jand.engine.remote.endpoint import Dialect, Endpoint, is_loopback, parse_endpoint
from jand.errors import StartError
from tests.fakes.records import make_spec

CHAT = "/v1/chat/completions"


def endpoint(origin: str, import_format: str = "openai", name: str = "some-id", **init: Any) -> Endpoint:
    fields: dict[str, Any] = {"import_format": import_format, "metadata": {"engine": "api"}}
    return parse_endpoint(make_spec(origin=origin, parameters={"init": init}, **fields), name)


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("api.openai.com", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/", "https://api.openai.com/v1/chat/completions"),
        ("https://API.OpenAI.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1/chat/completions"),
        ("https://gateway.example/base/v1beta/openai/", "https://gateway.example/base/v1beta/openai/chat/completions"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions"),
        ("http://192.168.1.5:8000", "http://192.168.1.5:8000/v1/chat/completions"),
        ("localhost:1337", "http://localhost:1337/v1/chat/completions"),
        ("127.0.0.1:1337/v1", "http://127.0.0.1:1337/v1/chat/completions"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1/chat/completions"),
        ("https://gw.example/v1?tenant=7", "https://gw.example/v1/chat/completions?tenant=7"),
    ],
)
def test_an_openai_origin_in_any_spelling(origin: str, url: str) -> None:
    found = endpoint(origin)

    assert found.dialect is Dialect.OPENAI
    assert str(found.url(CHAT)) == url


@pytest.mark.parametrize(
    ("origin", "version", "url"),
    [
        (
            "https://docs-test-001.openai.azure.com/",
            "2023-05-15",
            "https://docs-test-001.openai.azure.com/openai/deployments/d/chat/completions?api-version=2023-05-15",
        ),
        (
            "docs-test-001.openai.azure.com",
            "2024-10-21",
            "https://docs-test-001.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://gateway.example/azure/openai/",
            "2024-10-21",
            "https://gateway.example/azure/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        ("https://r.openai.azure.com", None, "https://r.openai.azure.com/openai/v1/chat/completions"),
        (
            "https://r.openai.azure.com/openai/v1/",
            "2024-10-21",
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            "https://r.openai.azure.com/openai/v1/chat/completions",
            None,
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
        ("https://r.services.ai.azure.com", "latest", "https://r.services.ai.azure.com/openai/v1/chat/completions"),
        (
            "https://r.openai.azure.com",
            "preview",
            "https://r.openai.azure.com/openai/v1/chat/completions?api-version=preview",
        ),
    ],
)
def test_an_azure_origin_with_and_without_a_dated_version(origin: str, version: str | None, url: str) -> None:
    init = {"DEPLOYMENT-NAME": "d"} | ({"api-version": version} if version else {})
    found = endpoint(origin, "azure_openai", **init)

    assert found.dialect is (Dialect.AZURE if "deployments" in url else Dialect.AZURE_V1)
    assert str(found.url(CHAT)) == url


def test_the_address_that_azures_portal_shows_is_taken_whole() -> None:
    pasted = "https://r.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21"
    found = endpoint(pasted, "azure_openai")

    assert found.name == "gpt 4"
    assert str(found.url(CHAT)) == pasted


def test_what_azure_answers_beside_its_deployments() -> None:
    found = endpoint(
        "https://r.openai.azure.com", "azure_openai", **{"DEPLOYMENT-NAME": "d", "api-version": "2025-04-01"}
    )

    assert str(found.url("/v1/responses")) == "https://r.openai.azure.com/openai/responses?api-version=2025-04-01"
    assert str(found.url("/v1/embeddings")).startswith("https://r.openai.azure.com/openai/deployments/d/embeddings?")


def test_a_host_of_azure_is_asked_in_its_dialect_whatever_the_format_says() -> None:
    found = endpoint("https://r.openai.azure.com/openai/v1", "openai")

    assert found.dialect is Dialect.AZURE_V1


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    found = endpoint(
        "https://r.openai.azure.com", "azure_openai", **{"DEPLOYMENT-NAME": "../x?y#z", "api-version": "1"}
    )

    assert found.url(CHAT).raw_path == "/openai/deployments/..%2Fx%3Fy%23z/chat/completions"


@pytest.mark.parametrize(
    ("import_format", "init", "name", "expected"),
    [
        ("openai", {"DEPLOYMENT-NAME": "gpt-4o"}, "mine", "gpt-4o"),
        ("openai", {}, "gpt-4o", "gpt-4o"),
        ("openai", {}, "meta-llama/Llama-3-8B", "meta-llama/Llama-3-8B"),
        ("azure_openai", {}, "/openai.azure.com/docs-test-001/gpt4-turbo", "gpt4-turbo"),
        ("azure_openai", {"DEPLOYMENT-NAME": "mine"}, "gpt4-turbo", "mine"),
    ],
)
def test_what_the_provider_calls_the_model(import_format: str, init: dict[str, str], name: str, expected: str) -> None:
    assert endpoint("https://provider.example", import_format, name, **init).name == expected


@pytest.mark.parametrize(
    ("origin", "import_format", "key", "headers"),
    [
        ("api.openai.com", "openai", "sk-1", {"Authorization": "Bearer sk-1"}),
        ("https://r.openai.azure.com", "azure_openai", "0fed", {"api-key": "0fed"}),
        ("https://r.openai.azure.com", "azure_openai", "eyJ0.eyJ1.c2ln", {"Authorization": "Bearer eyJ0.eyJ1.c2ln"}),
    ],
)
def test_the_header_that_carries_the_key(origin: str, import_format: str, key: str, headers: dict[str, str]) -> None:
    assert endpoint(origin, import_format).headers(key) == headers


@pytest.mark.parametrize(
    ("origin", "cause"),
    [
        ("https://user:hunter2-secret@api.example.com/v1", "a user or a password"),
        ("https://sk-0123456789@api.example.com/v1", "a user or a password"),
        ("https://host:99999999/v1", "no address"),
        ("https:///v1", "no http"),
        ("https://[::1/v1", "no address"),
    ],
)
def test_an_origin_that_is_of_no_use_is_refused_and_its_secrets_are_not_repeated(origin: str, cause: str) -> None:
    with pytest.raises(StartError, match=cause) as caught:
        endpoint(origin)

    assert "hunter2" not in str(caught.value)
    assert "0123456789" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("api.openai.com", "api.openai.com"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://[::1]:80/v1", "[::1]"),
        ("https://gw.example:8443?key=abc", "gw.example:8443"),
    ],
)
def test_a_provider_is_shown_by_its_host_alone(origin: str, host: str) -> None:
    assert endpoint(origin).host == host


def test_only_providers_that_are_known_to_be_are_strict() -> None:
    assert endpoint("api.openai.com").is_strict
    assert endpoint("https://r.openai.azure.com", "azure_openai").is_strict
    assert not endpoint("http://127.0.0.1:8000/v1").is_strict
    assert not endpoint("https://api.openai.com.evil.example/v1").is_strict


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("0.0.0.0", False),
        ("192.168.1.1", False),
        (None, False),
    ],
)
def test_which_hosts_are_this_machine(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected
