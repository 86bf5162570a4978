"""What follows from the variables that other programs of the hub read too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jand.download.settings import DownloadSettings, settings_from

if TYPE_CHECKING:
    from pathlib import Path


def test_without_any_variable_it_is_the_hub_itself(tmp_path: Path) -> None:
    found = settings_from({}, {}, tmp_path)
    assert (found.endpoint, found.token, found.offline) == ("https://huggingface.co", None, False)


def test_the_endpoint_loses_its_last_slash(tmp_path: Path) -> None:
    assert settings_from({"HF_ENDPOINT": "https://mirror.example/"}, {}, tmp_path).endpoint == "https://mirror.example"


@pytest.mark.parametrize(
    ("variables", "file", "expected"),
    [
        ({"HF_TOKEN": " hf_a\n", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "", "hf_a"),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_b"}, ".cache/huggingface/token", "hf_b"),
        ({}, ".cache/huggingface/token", "hf_file"),
        ({"HF_HOME": "{home}/hf"}, "hf/token", "hf_file"),
        ({"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/huggingface/token", "hf_file"),
        ({"HF_TOKEN_PATH": "{home}/my-token"}, "my-token", "hf_file"),
        ({"HF_TOKEN": ""}, "", None),
        ({"HF_TOKEN": "two words"}, "", None),
    ],
)
def test_the_token_is_found_where_other_programs_find_it(
    tmp_path: Path, variables: dict[str, str], file: str, expected: str | None
) -> None:
    if file:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("hf_file\n")
    environ = {name: value.format(home=tmp_path) for name, value in variables.items()}
    assert settings_from(environ, {}, tmp_path).token == expected


def test_a_token_file_that_is_no_text_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe\x00")
    assert settings_from({"HF_TOKEN_PATH": str(path)}, {}, tmp_path).token is None


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_is_obeyed(tmp_path: Path, value: str, *, offline: bool) -> None:
    assert settings_from({"HF_HUB_OFFLINE": value}, {}, tmp_path).offline is offline


def test_secrets_are_not_in_what_is_printed() -> None:
    printed = repr(DownloadSettings(token="hf_secret", proxies={"http": "http://me:pw@proxy"}))
    assert "hf_secret" not in printed
    assert "pw@" not in printed
