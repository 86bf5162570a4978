"""What is given away: the sdist builds the wheel, and the wheel alone, in an environment of its own, is the whole program with all that ships beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest

import jand
from jand.api import page
from jand.cli.verbs import VERBS
from tests.fakes.browser import address_of
from tests.fakes.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(120)


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist of this tree, and of that alone the wheel."""
    made = tmp_path_factory.mktemp("made")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", made, cwd=ROOT)
    [sdist] = made.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(made, filter="data")
    [tree] = (path for path in made.iterdir() if path.is_dir())
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", made, cwd=tree)
    [found] = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel as pipx does, into an environment of its own; what it depends on is lent by this one."""
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    options = ("--disable-pip-version-check", "--no-deps", "--no-index", "-q")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def names(wheel: Path) -> Sequence[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_everything_and_nothing_else(wheel: Path) -> None:
    there = set(names(wheel))

    assert {f"jand/{name}" for name in files_below(ROOT / "jand")} <= there
    assert {f"jand/example/{name}" for name in files_below(ROOT / "janroot.example")} <= there
    assert {f"jand/service/systemd/{name}" for name in files_below(ROOT / "systemd")} <= there
    assert {f"jand/service/launchd/{name}" for name in files_below(ROOT / "launchd")} <= there
    data = f"jand-{jand.__version__}.data/data/share"
    assert {name for name in there if name.startswith(data)} == {
        f"{data}/{name}"
        for name in (
            "man/man1/jand.1",
            "bash-completion/completions/jand",
            "zsh/site-functions/_jand",
            "fish/vendor_completions.d/jand.fish",
        )
    }
    assert not [name for name in there if "__pycache__" in name or name.startswith(("tests/", "."))]


async def test_installed_alone_it_serves_with_its_page_its_catalogue_and_its_manual(
    installed: Path, tmp_path: Path
) -> None:
    program = installed / "bin" / "jand"
    assert run(program, "--version").strip() == f"jand {jand.__version__}"
    where = run(installed / "bin" / "python", "-c", "import jand; print(jand.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
    assert run(program, "manual", cwd=tmp_path)
    start = (str(installed / "bin" / "python"), "-m", "jand")
    async with DaemonProcess(tmp_path / "root", "--listen", "127.0.0.1:0", start=start) as daemon:
        assert (await daemon.call("GET", "/v1/catalog"))["data"]
        async with aiohttp.ClientSession() as session, session.get(await address_of(daemon)) as response:
            assert await response.read() == (page.FOLDER / page.INDEX).read_bytes()
        assert "models" in run(program, "status", "--socket", str(daemon.socket))


@pytest.mark.needs("groff")
def test_the_man_page_is_good_roff_and_names_every_command(installed: Path) -> None:
    written = installed / "share" / "man" / "man1" / "jand.1"
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=100n", "-P-cbou", written],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert (done.returncode, done.stderr) == (0, "")
    for verb in VERBS:
        assert f"jand {verb}" in done.stdout, verb
    for words in ("--init NAME=VALUE", "EXIT STATUS", "jand start zephyr-7b --init ctx_len=8192 --init n_parallel=2"):
        assert words in done.stdout


def complete(installed: Path, shell: str, *, words: Sequence[str]) -> str:
    """Ask what *shell* would complete for *words*, by the file that ships for it."""
    path = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    last = len(words) - 1
    script = {
        "bash": f"source {installed}/share/bash-completion/completions/jand; COMP_WORDS=({' '.join(words)}); COMP_CWORD={last}; "
        '_jand_completion jand; printf "%s\\n" "${COMPREPLY[@]}"',
        "fish": f'set -p fish_complete_path {installed}/share/fish/vendor_completions.d; complete -C "{" ".join(words)}"',
    }
    return run(shell, "-c", script[shell], PATH=path)


@pytest.mark.needs("bash")
def test_bash_completes_by_the_file_that_ships(installed: Path) -> None:
    offered = complete(installed, "bash", words=("jand", "st")).split()

    assert offered == ["status", "start", "stop"]


@pytest.mark.needs("fish")
def test_fish_completes_by_the_file_that_ships(installed: Path) -> None:
    offered = complete(installed, "fish", words=("jand", "st")).splitlines()

    assert [line.split("\t")[0] for line in offered] == ["start", "status", "stop"]


@pytest.mark.needs("zsh")
def test_zsh_completes_at_the_first_request(installed: Path, tmp_path: Path) -> None:
    """A terminal of its own: zsh completes nowhere else."""
    script = (
        f"fpath=({installed}/share/zsh/site-functions $fpath); autoload -U compinit; compinit -u -d {tmp_path}/dump; "
        "print -r -- ${_comps[jand]}; autoload +X -U _jand; functions _jand"
    )
    told = run("zsh", "-fc", script, PATH=f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}")

    assert told.startswith("_jand\n")
    assert '_jand_completion "$@"' in told
