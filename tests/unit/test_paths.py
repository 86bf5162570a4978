"""Where the root and the socket are, for the daemon and for its clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from jand.paths import Janroot, Places, client_sockets, printable


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def places(home: Path, *, runtime: Path | None = None, superuser: bool = False) -> Places:
    beside = home.parent
    return Places(home, runtime, superuser, system_root=beside / "janroot", system_runtime=beside / "run")


def test_the_default_root_is_the_system_one_where_it_exists_else_below_home(home: Path) -> None:
    here = places(home)

    assert here.default_root() == home / "janroot"

    here.system_root.mkdir()
    assert here.default_root() == here.system_root


def test_a_root_that_is_a_file_is_no_root(home: Path) -> None:
    here = places(home)
    here.system_root.touch()

    assert here.default_root() == home / "janroot"


@pytest.mark.parametrize("superuser", [False, True])
def test_the_runtime_directory_has_the_socket_wherever_there_is_one(home: Path, superuser: bool) -> None:
    assert places(home, runtime=home / "rt", superuser=superuser).default_socket() == home / "rt/jand/jand.sock"


def test_without_a_runtime_directory_root_listens_for_the_system_and_others_at_home(home: Path) -> None:
    assert places(home, superuser=True).default_socket() == home.parent / "run/jand/jand.sock"
    assert places(home).default_socket() == home / ".jand/jand.sock"


def test_the_environment_says_home_and_runtime_directory_and_a_relative_one_counts_as_none(home: Path) -> None:
    assert Places.of({"HOME": str(home), "XDG_RUNTIME_DIR": "/run/user/7"}).runtime == Path("/run/user/7")
    assert Places.of({"HOME": str(home), "XDG_RUNTIME_DIR": "run"}).runtime is None
    assert Places.of({"HOME": str(home), "XDG_RUNTIME_DIR": ""}).runtime is None
    assert Places.of({"HOME": str(home)}).home == home
    assert Places.of({}).home == Path.home()


@pytest.mark.parametrize("superuser", [False, True])
def test_a_client_looks_at_the_runtime_directory_then_at_home_then_at_the_system(home: Path, superuser: bool) -> None:
    here = places(home, runtime=home / "rt", superuser=superuser)

    looked = client_sockets(None, {}, here)

    assert looked == (home / "rt/jand/jand.sock", home / ".jand/jand.sock", home.parent / "run/jand/jand.sock")


def test_a_socket_that_was_named_is_the_only_one_and_the_flag_goes_first(home: Path) -> None:
    """A command that was meant for one daemon never reaches another."""
    environ = {"JAND_SOCKET": "/from/environment"}

    assert client_sockets(Path("/from/flag"), environ, places(home)) == (Path("/from/flag"),)
    assert client_sockets(None, environ, places(home)) == (Path("/from/environment"),)
    assert client_sockets(Path("near.sock"), {}, places(home)) == (Path.cwd() / "near.sock",)
    assert client_sockets(Path("~/s"), {}, places(home)) == (home / "s",)


def test_a_client_finds_the_socket_that_the_settings_file_of_its_root_names(home: Path) -> None:
    root = home / "elsewhere"
    root.mkdir()
    (root / "jand.toml").write_text('socket = "own.sock"\n')

    looked = client_sockets(None, {"JAND_ROOT": str(root)}, places(home))

    assert looked[0] == root / "own.sock"
    assert looked[1:] == places(home).client_sockets()


@pytest.mark.parametrize("content", ["socket = [", "socket = 7", "", "\xff\xfe"])
def test_a_settings_file_without_a_usable_socket_leaves_the_usual_places(home: Path, content: str) -> None:
    root = home / "janroot"
    root.mkdir()
    (root / "jand.toml").write_bytes(content.encode("latin-1"))

    assert client_sockets(None, {}, places(home)) == places(home).client_sockets()


def test_a_leading_tilde_is_home_and_relative_paths_begin_at_the_base(home: Path) -> None:
    here = places(home)

    assert here.absolute(Path("~/models"), Path("/base")) == home / "models"
    assert here.absolute(Path("models"), Path("/base")) == Path("/base/models")
    assert here.absolute(Path("/models"), Path("/base")) == Path("/models")


def test_what_lies_in_a_root_has_the_contract_s_names() -> None:
    root = Janroot(Path("/r"))

    assert (root.models, root.catalog) == (Path("/r/models"), Path("/r/catalog"))
    assert (root.settings_file, root.own) == (Path("/r/jand.toml"), Path("/r/.jand"))


def test_what_a_terminal_would_obey_is_escaped_and_letters_of_all_scripts_stay() -> None:
    assert printable("modèle-模型 1") == "modèle-模型 1"
    assert printable("a\x1b[31mb\nc\udcff") == "a\\x1b[31mb\\nc\\udcff"
