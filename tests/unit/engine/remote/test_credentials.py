"""Keys: where they are looked up, who else may read them, and that each goes where it is meant to and nowhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from jand import log
from jand.engine.remote.credentials import Credentials
from jand.errors import StartError
from jand.settings.schema import BUILT_IN_SECRETS

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = URL("https://api.openai.com")
AZURE = URL("https://docs-test-001.openai.azure.com")
ELSEWHERE = URL("https://evil.example")
LOCAL = URL("http://127.0.0.1:8000")
KEY = "sk-0123456789abcdef"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    return tmp_path / "secrets"


def write(directory: Path, name: str, content: str = f"{KEY}\n", mode: int = 0o600) -> None:
    (directory / name).write_text(content)
    (directory / name).chmod(mode)


def credentials(directory: Path, environ: dict[str, str] | None = None, **bindings: str) -> Credentials:
    return Credentials(directory, environ or {}, {**BUILT_IN_SECRETS, **bindings})


def find(found: Credentials, written: str | None, origin: URL) -> str | None:
    credential = found.find(written, origin)
    return None if credential is None else credential.key


def test_a_key_in_the_json_is_the_key(directory: Path) -> None:
    assert find(credentials(directory), f" {KEY} ", OPENAI) == KEY


def test_a_file_in_secrets_that_only_its_owner_reads(directory: Path) -> None:
    write(directory, "openai")

    assert find(credentials(directory), "file:openai", OPENAI) == KEY


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o640, 0o606, 0o601, 0o660])
def test_a_file_that_others_can_read_is_refused(directory: Path, mode: int) -> None:
    write(directory, "openai", mode=mode)
    with pytest.raises(StartError, match="can read it") as caught:
        credentials(directory).find("file:openai", OPENAI)

    assert "chmod 600" in caught.value.hint
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_the_group_of_somebody_elses_file_is_how_we_read_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package gives a service its key as root:jand 0640."""
    write(directory, "openai", mode=0o640)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert find(credentials(directory), "file:openai", OPENAI) == KEY


def test_a_link_to_a_file_is_followed_and_its_target_judged(directory: Path, tmp_path: Path) -> None:
    write(tmp_path, "kept")
    (directory / "openai").symlink_to(tmp_path / "kept")
    assert find(credentials(directory), "file:openai", OPENAI) == KEY
    (tmp_path / "kept").chmod(0o644)
    with pytest.raises(StartError, match="everybody can read it"):
        credentials(directory).find("file:openai", OPENAI)


@pytest.mark.parametrize(
    "name", ["../jand.toml", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\nb", "a\0b", "x" * 300]
)
@pytest.mark.parametrize("kind", ["file", "credential", "env"])
def test_a_name_is_never_a_path(directory: Path, tmp_path: Path, kind: str, name: str) -> None:
    write(tmp_path, "jand.toml")
    with pytest.raises(StartError, match="no plain name"):
        credentials(directory, {"CREDENTIALS_DIRECTORY": str(directory)}).find(f"{kind}:{name}", OPENAI)


@pytest.mark.parametrize("content", ["", " \n", "x" * 20_000])
def test_a_file_without_a_key_is_refused(directory: Path, content: str) -> None:
    write(directory, "openai", content)
    with pytest.raises(StartError, match=r"empty|too large"):
        credentials(directory).find("file:openai", OPENAI)


def test_what_is_no_file_is_refused_without_waiting(directory: Path) -> None:
    os.mkfifo(directory / "pipe", 0o600)
    (directory / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder", "absent"):
        with pytest.raises(StartError, match=f"file:{name}"):
            credentials(directory).find(f"file:{name}", OPENAI)


def test_a_credential_of_systemd(directory: Path, tmp_path: Path) -> None:
    given = tmp_path / "credentials"
    given.mkdir()
    write(given, "openai", mode=0o440)
    found = credentials(directory, {"CREDENTIALS_DIRECTORY": str(given)})

    assert find(found, "credential:openai", OPENAI) == KEY
    with pytest.raises(StartError, match="systemd gave the daemon no credentials") as caught:
        credentials(directory).find("credential:openai", OPENAI)
    assert "LoadCredential" in caught.value.hint


def test_a_variable_goes_to_the_origin_it_is_bound_to(directory: Path) -> None:
    found = credentials(directory, {"MY_KEY": KEY}, MY_KEY="https://api.example.com/v1")

    assert find(found, "env:MY_KEY", URL("https://api.example.com")) == KEY


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("OPENAI_API_KEY", "https://evil.example"),
        ("OPENAI_API_KEY", "https://api.openai.com.evil.example"),
        ("OPENAI_API_KEY", "https://evil-api.openai.com"),
        ("OPENAI_API_KEY", "https://api.openai.com:8443"),
        ("OPENAI_API_KEY", "http://api.openai.com"),
        ("OPENAI_API_KEY", "http://127.0.0.1:8000"),
        ("AZURE_OPENAI_API_KEY", "https://openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://evil-openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://a.b.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://.openai.azure.com"),
        ("AZURE_OPENAI_API_KEY", "https://x.openai.azure.com.evil.example"),
        ("AZURE_OPENAI_API_KEY", "https://api.openai.com"),
        ("HOME", "https://api.openai.com"),
        ("AWS_SECRET_ACCESS_KEY", "https://evil.example"),
    ],
)
def test_a_dropped_json_cannot_send_a_variable_elsewhere(directory: Path, name: str, origin: str) -> None:
    found = credentials(directory, {name: KEY})
    with pytest.raises(StartError, match=r"jand\.toml lets it go") as caught:
        found.find(f"env:{name}", URL(origin))

    assert KEY not in f"{caught.value} {caught.value.hint}"
    assert "[secrets]" in caught.value.hint


@pytest.mark.parametrize("reference", ["file:MY_KEY", "credential:MY_KEY"])
def test_a_name_that_is_bound_binds_files_and_credentials_too(directory: Path, reference: str) -> None:
    write(directory, "MY_KEY")
    found = credentials(directory, {"CREDENTIALS_DIRECTORY": str(directory)}, MY_KEY="api.example.com")

    assert find(found, reference, URL("https://api.example.com")) == KEY
    with pytest.raises(StartError, match=r"to api\.example\.com alone"):
        found.find(reference, ELSEWHERE)


def test_a_binding_that_is_no_origin_allows_nothing(directory: Path) -> None:
    found = credentials(directory, {"MY_KEY": KEY}, MY_KEY="https://[oops")
    with pytest.raises(StartError, match="lets it go"):
        found.find("env:MY_KEY", ELSEWHERE)


@pytest.mark.parametrize(("name", "origin"), [("OPENAI_API_KEY", OPENAI), ("AZURE_OPENAI_API_KEY", AZURE)])
def test_a_json_without_a_key_gets_the_variable_bound_to_its_origin(directory: Path, name: str, origin: URL) -> None:
    found = credentials(directory, {name: KEY})

    assert find(found, None, origin) == KEY
    assert find(found, None, ELSEWHERE) is None
    assert find(found, None, LOCAL) is None
    assert found.names_for(origin) == (name,)


def test_a_variable_for_one_origin_comes_before_one_for_many(directory: Path) -> None:
    found = credentials(directory, {"AZURE_OPENAI_API_KEY": "wide", "MINE": KEY}, MINE=str(AZURE))

    assert find(found, None, AZURE) == KEY


def test_a_variable_that_is_not_set_is_no_key(directory: Path) -> None:
    found = credentials(directory, {"OPENAI_API_KEY": " "})
    assert found.find(None, OPENAI) is None
    with pytest.raises(StartError, match="without that variable"):
        found.find("env:OPENAI_API_KEY", OPENAI)


@pytest.mark.parametrize("origin", ["http://api.example.com", "http://192.168.1.5:8000", "http://localhost.example"])
def test_no_key_travels_in_the_open(directory: Path, origin: str) -> None:
    with pytest.raises(StartError, match="in the open") as caught:
        credentials(directory).find(KEY, URL(origin))

    assert KEY not in str(caught.value)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8000"])
def test_within_this_machine_it_needs_no_tls(directory: Path, origin: str) -> None:
    assert find(credentials(directory), KEY, URL(origin)) == KEY


@pytest.mark.parametrize("key", ["sk-1\r\nX-Injected: 1", "sk 1", "schlüssel", "sk-\x00"])
def test_what_could_not_stand_in_a_header_is_refused_and_not_repeated(directory: Path, key: str) -> None:
    with pytest.raises(StartError, match="holds characters that no key has") as caught:
        credentials(directory).find(key, OPENAI)

    assert key not in str(caught.value)


def test_a_key_is_masked_in_the_log_from_the_moment_on_that_it_is_known(directory: Path) -> None:
    key = "sk-known-to-the-log-from-here"
    credentials(directory).find(key, OPENAI)

    assert log.SECRETS.masked(f"it is {key}.") == "it is ***."


def test_a_key_is_not_in_what_python_shows_of_it(directory: Path) -> None:
    assert KEY not in repr(credentials(directory).find(KEY, OPENAI))
