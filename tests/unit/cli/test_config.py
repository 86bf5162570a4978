"""`jand config`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jand.cli.program import run
from jand.settings import known_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_setting_is_shown_with_its_value_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "jand.toml").write_text("\nsettle = 5\n")
    monkeypatch.setenv("JAND_ADOPT", "no")
    monkeypatch.setenv("JAND_TOKEN", "hush-hush")

    assert run(["config", "--root", str(tmp_path), "--json"]) == 0

    out = capsys.readouterr().out
    rows = {row["key"]: row for row in json.loads(out)["data"]}
    assert {known.key for known in known_settings()} - rows.keys() == {"secrets"}
    assert (rows["settle"]["value"], rows["settle"]["source"]) == (5.0, f"{tmp_path}/jand.toml, line 2")
    assert (rows["settle"]["unit"], rows["adopt"]["value"]) == ("s", False)
    assert rows["adopt"]["source"] == "environment variable JAND_ADOPT"
    assert rows["root"]["source"] == "flag --root"
    assert rows["rescan"]["source"] == "default"
    assert rows["secrets.OPENAI_API_KEY"]["value"] == "https://api.openai.com"
    assert "hush" not in out


def test_for_people_it_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--root", str(tmp_path)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
    assert next(line.split() for line in lines if line.startswith("adopt")) == ["adopt", "true", "default"]
    assert next(line.split() for line in lines if line.startswith("listen")) == ["listen", "-", "default"]


def test_a_wrong_setting_is_told_instead(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jand.toml").write_text("settle = 'x'")

    assert run(["config", "--root", str(tmp_path)]) == 78
    assert "expected a number of seconds" in capsys.readouterr().err
