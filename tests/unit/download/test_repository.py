"""How people write repositories and addresses, and what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.download.repository import (
    Repository,
    find_hub_address,
    origin_of,
    parse_digest,
    parse_reference,
    parse_repository,
    resolve_url,
    shown_url,
)
from jand.errors import BadOriginError, UnsafeAddressError

MIRROR = "https://mirror.example/hub"


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [
        ("TheBloke/zephyr-7B-beta-GGUF", "TheBloke/zephyr-7B-beta-GGUF", "main"),
        (" user/repo ", "user/repo", "main"),
        ("user/repo@v1.0", "user/repo", "v1.0"),
        ("user/repo@refs/pr/3", "user/repo", "refs/pr/3"),
        ("user/repo@0123456789abcdef0123456789abcdef01234567", "user/repo", "0123456789abcdef0123456789abcdef01234567"),
        ("https://huggingface.co/user/repo", "user/repo", "main"),
        ("https://huggingface.co/user/repo/tree/dev", "user/repo", "dev"),
        ("hf.co/user/repo", "user/repo", "main"),
        ("hf.co/user/repo@v2", "user/repo", "v2"),
        ("https://mirror.example/hub/user/repo", "user/repo", "main"),
    ],
)
def test_repositories_as_people_write_them(text: str, name: str, revision: str) -> None:
    assert parse_repository(text, MIRROR) == Repository(name, revision)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "user/",
        "/repo",
        "a/b/c",
        "../etc",
        "user/..",
        "user/re..po",
        "us er/repo",
        "user/repo@a b",
        "user/repo@../x",
        "https://example.com/user/repo",
        "https://huggingface.co/",
        "-user/repo",
        "user/repo\n/x",
    ],
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(BadOriginError):
        parse_repository(text)


@given(st.text())
def test_no_origin_does_more_than_be_refused(text: str) -> None:
    """Whatever a JSON says, the name that goes into an address has two plain parts."""
    try:
        found = parse_repository(text)
    except (BadOriginError, UnsafeAddressError):
        return
    assert found.name.count("/") == 1
    assert ".." not in found.name + found.revision


@pytest.mark.parametrize(
    ("text", "quantization"),
    [
        ("user/repo", None),
        ("user/repo:Q5_K_M", "Q5_K_M"),
        ("hf.co/user/repo:q4_k_m", "q4_k_m"),
        ("https://huggingface.co/user/repo:Q8_0", "Q8_0"),
        ("https://huggingface.co/user/repo", None),
    ],
)
def test_what_pull_takes(text: str, quantization: str | None) -> None:
    found = parse_reference(text)
    assert found.repository.name == "user/repo"
    assert found.quantization == quantization


@pytest.mark.parametrize(
    ("url", "name", "revision", "path"),
    [
        ("https://huggingface.co/u/r/resolve/main/a.gguf?download=true", "u/r", "main", "a.gguf"),
        ("https://huggingface.co/u/r/blob/main/sub/a.gguf", "u/r", "main", "sub/a.gguf"),
        ("https://hf.co/u/r/resolve/refs%2Fpr%2F1/a.gguf", "u/r", "refs/pr/1", "a.gguf"),
        ("https://mirror.example/hub/u/r/resolve/main/a%20b.gguf", "u/r", "main", "a b.gguf"),
        ("https://huggingface.co/u/r", "u/r", "main", ""),
    ],
)
def test_addresses_of_the_hub_are_recognised(url: str, name: str, revision: str, path: str) -> None:
    assert find_hub_address(url, MIRROR) == (Repository(name, revision), path)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/u/r/resolve/main/a.gguf",
        "https://huggingface.co/u",
        "ftp://huggingface.co/u/r",
        "https://huggingface.co/u/r/x/main/a",
        "https://huggingface.co.evil.example/u/r/resolve/main/a.gguf",
        "https://huggingface.co/u/r/resolve",
    ],
)
def test_other_addresses_are_not_the_hubs(url: str) -> None:
    assert find_hub_address(url, MIRROR) is None


def test_the_address_of_a_file_is_quoted() -> None:
    assert resolve_url("https://h.example/", "u/r", "refs/pr/1", "a b/c#d.gguf") == (
        "https://h.example/u/r/resolve/refs%2Fpr%2F1/a%20b/c%23d.gguf"
    )


def test_an_origin_has_its_port_spelled_out() -> None:
    assert origin_of("https://Example.com/a") == origin_of("https://example.com:443/b") == "https://example.com:443"
    assert origin_of("http://example.com") == "http://example.com:80"
    with pytest.raises(UnsafeAddressError):
        origin_of("https://example.com:port/")


def test_an_address_is_shown_without_secrets() -> None:
    assert shown_url("https://me:pw@example.com:8443/a/b.gguf?Signature=x#y") == "https://example.com:8443/a/b.gguf"


def test_digests_in_all_their_dresses() -> None:
    digest = "ab" * 32
    for text in (digest, f'"{digest}"', f'W/"{digest}"', f"sha256:{digest}", digest.upper(), f" {digest} "):
        assert parse_digest(text) == digest
    for text in ("", "ab" * 20, "xyz", '"' + "ab" * 31 + '"'):
        assert parse_digest(text) is None
