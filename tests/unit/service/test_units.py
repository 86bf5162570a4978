"""What ships for service managers: accepted by their own tools without a word, as it stands and with odd paths in it."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jand.service import placing
from jand.service.install import install, sealed

ROOT = Path(__file__).parents[3]
MOST_EXPOSED = "20"
"""Tenths of a point of systemd-analyze: 2.0, "OK"."""


def site(scratch: Path, *, user: bool = False, root: Path | None = None, launchd: bool = False) -> placing.Site:
    program = scratch / "bin" / "jand"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return placing.Site(
        program=(str(program),),
        home=scratch / "home",
        config=scratch / "home" / ".config",
        uid=1000,
        user=user,
        root=root,
        below=scratch / "into",
        launchd=launchd,
    )


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=30, env={**os.environ, **environ}
    )


def units_below(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("jand.*") if path.suffix in {".service", ".socket"})


@pytest.mark.needs("systemd-analyze")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
@pytest.mark.parametrize("odd", [False, True], ids=["usual paths", "odd paths"])
def test_systemd_accepts_the_units_without_a_word(tmp_path: Path, user: bool, odd: bool) -> None:
    root = tmp_path / 'a "root" of 100% $HOME' if odd else None
    install(site(tmp_path, user=user, root=root))
    runtime = tmp_path / "run"
    (runtime / "systemd").mkdir(parents=True)
    manager = ("--user",) if user else ("--system",)
    units = units_below(tmp_path / "into")
    ended = run("systemd-analyze", *manager, "verify", "--recursive-errors=no", *units, XDG_RUNTIME_DIR=str(runtime))

    assert [unit.name for unit in units] == ["jand.service", "jand.socket"]
    # Whether a user's manager runs where the test does is not the units' matter.
    complaints = [line for line in ended.stderr.splitlines() if "jand" in line]
    assert complaints == []
    assert ended.returncode == 0 or user


@pytest.mark.needs("systemd-analyze")
@pytest.mark.timeout(60)
def test_the_system_s_daemon_is_exposed_to_little(tmp_path: Path) -> None:
    install(site(tmp_path))
    (unit,) = (tmp_path / "into").rglob("jand.service")
    ended = run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit)
    without = tmp_path / "jand.service"
    hardened = unit.read_text().partition("# What it may not")
    without.write_text(hardened[0] + "[Install]" + hardened[2].partition("[Install]")[2])
    open_wide = run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", without)

    assert ended.returncode == 0, ended.stdout[-200:]
    assert open_wide.returncode == 1, "the measure does not measure"


@pytest.mark.needs("systemd-sysusers", "systemd-tmpfiles")
@pytest.mark.timeout(30)
def test_the_user_and_the_folders_are_made_as_the_unit_wants_them(tmp_path: Path) -> None:
    where = tmp_path / "image"
    (where / "etc").mkdir(parents=True)
    assert run("systemd-sysusers", f"--root={where}", ROOT / "systemd" / "sysusers.conf").returncode == 0
    if os.geteuid() == 0:
        made = run("systemd-tmpfiles", f"--root={where}", "--create", ROOT / "systemd" / "tmpfiles.conf")
        assert made.returncode == 0, made.stderr
        models, keys = where / "janroot" / "models", where / "etc" / "jand" / "keys"
        assert models.stat().st_mode & 0o7777 == 0o2775
        assert keys.stat().st_mode & 0o7777 == 0o700
        assert (keys.stat().st_uid, models.stat().st_uid != 0) == (0, True)
    user = next(line for line in (where / "etc" / "passwd").read_text().splitlines() if line.startswith("jand:"))
    assert user.split(":")[5] == "/var/lib/jand"


@pytest.mark.parametrize("user", [False, True], ids=["daemon", "agent"])
def test_property_lists(tmp_path: Path, user: bool) -> None:
    where = site(tmp_path, user=user, root=tmp_path / "r&d", launchd=True)
    (placement,) = placing.placements(where)
    job = plistlib.loads(sealed(placement).encode())
    words = job["ProgramArguments"]
    socket = job["Sockets"]["Listeners"]

    assert placement.path.stem == job["Label"] == placing.LABEL
    assert words[:4] == [*where.program, "serve", "--root", str(tmp_path / "r&d")]
    assert words[words.index("--socket") + 1] == socket["SockPathName"], "else it would be bound twice"
    assert socket["SockPathMode"] == (0o600 if user else 0o660)
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert "--detach" not in words
    assert "NAME" not in str(job)
    assert user or job["UserName"] == "_jand"


def test_the_socket_of_the_property_list_is_asked_for_by_its_name() -> None:
    from jand.service.launchd import SOCKETS_NAME

    for path in (ROOT / "launchd").rglob("*.plist"):
        assert SOCKETS_NAME in plistlib.loads(path.read_bytes())["Sockets"], path


LAUNCHD = """
#include <errno.h>
#include <stdlib.h>
#include <string.h>
int launch_activate_socket(const char *name, int **fds, size_t *count) {
    if (strcmp(name, "Listeners") != 0) return ENOENT;
    *fds = malloc(2 * sizeof(int));
    (*fds)[0] = 70; (*fds)[1] = 71; *count = 2;
    return 0;
}
"""


@pytest.mark.needs("cc")
@pytest.mark.timeout(60)
def test_launchd_s_sockets_are_taken_from_its_library(tmp_path: Path) -> None:
    """With a library of the same prototype (launch.h) in the place of macOS's."""
    (tmp_path / "launchd.c").write_text(LAUNCHD)
    library = tmp_path / "launchd.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "launchd.c"], check=True)
    asked = f"from jand.service.launchd import activated_descriptors as a; print(a(library={str(library)!r}), a('Other', {str(library)!r}), a(library='none.so'))"
    ended = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "(70, 71) () ()"


def test_the_package_carries_the_files() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert wheel["force-include"]["systemd"] == "jand/service/systemd"
    assert wheel["force-include"]["launchd"] == "jand/service/launchd"
