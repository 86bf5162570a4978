"""What ships for service managers can be read by them, and starts what exists."""

from __future__ import annotations

import configparser
import plistlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units(path: Path) -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())

    assert "jand serve" in unit["Service"]["ExecStart"]
    assert unit["Service"]["Type"] == "notify"
    assert "WantedBy" in unit["Install"]


@pytest.mark.parametrize("path", sorted((ROOT / "launchd").glob("*.plist")), ids=lambda path: path.name)
def test_property_lists(path: Path) -> None:
    job = plistlib.loads(path.read_bytes())

    assert job["Label"] == path.stem
    assert job["ProgramArguments"][-2:] == ["jand", "serve"]
    assert job["KeepAlive"] == {"SuccessfulExit": False}
