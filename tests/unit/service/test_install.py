"""Placing a service: as often as one likes, never over what a person wrote, and every command said."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jand.errors import NotPossibleError
from jand.service import install as installing
from jand.service import placing
from jand.service.install import Ran, install, status, uninstall

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def site_of(home: Path, **changes: object) -> placing.Site:
    site = placing.Site(("/opt/jand/bin/jand",), home, home / ".config", 1000, user=True, launchd=False)
    return dataclasses.replace(site, **changes)  # type: ignore[arg-type]


class Manager:
    """Stands for systemctl or launchctl: keeps what it is told, and fails where told to."""

    def __init__(self, failing: str = "") -> None:
        self.told: list[str] = []
        self.failing = failing

    def __call__(self, words: Sequence[str]) -> Ran:
        self.told.append(" ".join(words))
        return Ran(1, "Failed to do it") if self.failing and self.failing in self.told[-1] else Ran(0, "active")


def what(done: Sequence[installing.Did]) -> list[str]:
    return [did.what for did in done]


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    site = site_of(tmp_path, below=tmp_path / "into")
    site = dataclasses.replace(site, user=False)
    first, second = install(site), install(site)

    assert what(first) == ["written"] * 4
    assert what(second) == ["unchanged"] * 4
    assert what(status(site)) == ["installed"] * 4
    assert what(uninstall(site)) == ["removed"] * 4 + ["kept"]
    assert what(uninstall(site)) == ["unchanged"]
    assert [path for path in (tmp_path / "into").rglob("*") if path.is_file()] == []


def test_what_a_person_edited_is_kept_and_said(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    where = dataclasses.replace(site, below=tmp_path / "into", user=False)
    install(where)
    unit = tmp_path / "into" / "etc/systemd/system/jand.service"
    edited = unit.read_text().replace("WatchdogSec=60", "WatchdogSec=5")
    unit.write_text(edited)
    again = {did.subject: did for did in install(where)}
    assert again[str(unit)].what == "kept"
    assert "--force" in again[str(unit)].why
    assert what(status(where)).count("edited") == 1
    removed = {did.subject: did.what for did in uninstall(where)}
    assert removed[str(unit)] == "kept"

    assert unit.read_text() == edited
    assert what(install(where, force=True)).count("replaced") == 1
    assert what(uninstall(where, force=True)).count("removed") == 4


def test_an_older_version_s_file_is_replaced(tmp_path: Path) -> None:
    old = site_of(tmp_path, below=tmp_path / "into", user=False, program=("/opt/old/bin/jand",))
    install(old)
    new = dataclasses.replace(old, program=("/opt/new/bin/jand",))

    assert what(status(new)).count("differs") == 1
    assert what(install(new)).count("replaced") == 1
    assert "/opt/new/bin/jand serve" in (tmp_path / "into/etc/systemd/system/jand.service").read_text()


def test_where_no_systemd_runs_it_says_what_to_do_there(tmp_path: Path) -> None:
    manager = Manager()
    done = install(site_of(tmp_path), run=manager, booted=tmp_path / "none")

    assert manager.told == []
    assert "systemctl --user enable --now jand.socket jand.service" in done[-1].why


def test_systemd_is_told_of_a_user_s_service_to_the_end(tmp_path: Path) -> None:
    manager, site = Manager(), site_of(tmp_path)
    install(site, run=manager, booted=tmp_path)
    install(site, run=manager, booted=tmp_path, start=False)
    uninstall(site, run=manager, booted=tmp_path)

    reload, enable = "systemctl --user daemon-reload", "systemctl --user enable --now jand.socket jand.service"
    disable = "systemctl --user disable --now jand.socket jand.service"
    assert manager.told == [reload, enable, reload, disable, reload]


def test_launchd_is_told_to_start_and_to_forget(tmp_path: Path) -> None:
    site = site_of(tmp_path, launchd=True)
    manager = Manager()
    install(site, run=manager)
    plist = tmp_path / "Library/LaunchAgents/ai.jan.jand.plist"
    assert manager.told == [f"launchctl bootstrap gui/1000 {plist}"]
    status(site, run=manager)
    uninstall(site, run=manager)

    assert manager.told[1:] == ["launchctl print gui/1000/ai.jan.jand", "launchctl bootout gui/1000/ai.jan.jand"]
    assert not plist.exists()


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(NotPossibleError) as caught:
        install(site_of(tmp_path, launchd=True), run=Manager("bootstrap"))

    assert "launchctl bootstrap" in caught.value.message
    assert "Failed to do it" in caught.value.message
    assert "files are in place" in caught.value.hint


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("")
    with pytest.raises(NotPossibleError, match="cannot write"):
        install(site_of(tmp_path))


def test_the_commands_of_the_system_s_service_are_in_the_order_in_which_they_need_one_another(tmp_path: Path) -> None:
    words = [" ".join(command) for command in placing.commands(site_of(tmp_path, user=False))]

    assert words == [
        "systemd-sysusers /etc/sysusers.d/jand.conf",
        "systemd-tmpfiles --create /etc/tmpfiles.d/jand.conf",
        "systemctl daemon-reload",
        "systemctl enable --now jand.socket jand.service",
    ]


def test_the_program_is_the_one_that_runs() -> None:
    (program,) = placing.find_program()
    ended = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10)

    assert ended.stdout.startswith("jand ")


def jand(*words: str, home: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HOME": str(home)}
    environ.pop("XDG_CONFIG_HOME", None)
    command = [*before, sys.executable, "-m", "jand", "service", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, env=environ)


def test_print_shows_files_and_commands_and_does_nothing(tmp_path: Path) -> None:
    shown = jand("install", "--user", "--print", home=tmp_path)

    assert shown.returncode == 0
    assert f"==> {tmp_path}/.config/systemd/user/jand.service" in shown.stdout or sys.platform == "darwin"
    assert f"{placing.find_program()[0]} serve" in shown.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("unshare")
def test_the_system_s_service_takes_root(tmp_path: Path) -> None:
    """Below unshare root is nobody, and can still read the interpreter wherever that lies."""
    before = ["unshare", "--user"] if os.geteuid() == 0 else []
    refused = jand("install", home=tmp_path, before=before)

    assert refused.returncode == 77, refused.stderr
    assert "that takes root" in refused.stderr
    assert "--user" in refused.stderr
