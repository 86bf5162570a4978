"""Settings: which value holds, where it came from, and how a wrong one is reported."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from jand.errors import SettingsError
from jand.paths import Places
from jand.settings import Loaded, Settings, known_settings, load
from jand.settings.layers import _lines_of_keys
from jand.settings.loading import shown

EXAMPLE = Path(__file__).parents[2] / "janroot.example" / "jand.toml"


class Case:
    """A root with a jand.toml, and a home beside it."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.root = directory / "root"
        self.root.mkdir()
        self.places = Places(self.home, system_root=directory / "none", system_runtime=directory / "run")

    @property
    def file(self) -> Path:
        return self.root / "jand.toml"

    def load(self, toml: str = "", *, environ: dict[str, str] | None = None, **flags: object) -> Loaded:
        self.file.write_text(toml)
        return load({"root": str(self.root), **flags}, environ or {}, places=self.places)

    def refusal(self, toml: str = "", *, environ: dict[str, str] | None = None, **flags: object) -> SettingsError:
        with pytest.raises(SettingsError) as caught:
            self.load(toml, environ=environ, **flags)
        return caught.value


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_without_anything_given_every_value_is_a_default(case: Case) -> None:
    loaded = load({}, {}, places=case.places)

    assert loaded.settings.root == case.home / "janroot"
    assert loaded.settings.socket == case.home / ".jand/jand.sock"
    assert loaded.settings.settle == 2.0
    assert {source for _, _, source in loaded.rows()} == {"default"}


def test_flags_go_over_the_environment_over_the_file_over_defaults(case: Case) -> None:
    toml = "settle = 3\nrescan = 30\nadopt = false\n"
    environ = {"JAND_SETTLE": "4", "JAND_RESCAN": "40"}

    loaded = case.load(toml, environ=environ, settle="5")

    assert (loaded.settings.settle, loaded.settings.rescan, loaded.settings.adopt) == (5.0, 40.0, False)
    assert loaded.settings.start_on_request is True
    assert loaded.sources["settle"] == "flag --settle"
    assert loaded.sources["rescan"] == "environment variable JAND_RESCAN"
    assert loaded.sources["adopt"] == f"{case.file}, line 3"
    assert "start_on_request" not in loaded.sources


def test_a_false_flag_counts_and_one_that_was_not_given_does_not(case: Case) -> None:
    assert case.load(adopt=False).settings.adopt is False
    assert case.load("adopt = false", adopt=None).settings.adopt is False
    assert case.load('extra_models = ["/a"]', extra_models=[]).settings.extra_models == (Path("/a"),)


def test_the_root_decides_which_settings_file_is_read(case: Case, tmp_path: Path) -> None:
    case.file.write_text("settle = 9")

    assert load({}, {"JAND_ROOT": str(case.root)}, places=case.places).settings.settle == 9.0
    assert load({"root": tmp_path}, {"JAND_ROOT": str(case.root)}, places=case.places).settings.settle == 2.0


def test_nested_settings_come_from_tables_and_double_underscores(case: Case) -> None:
    assert case.load('[download]\nallow_private = ["nas", "hub.lan"]').settings.download.allow_private == (
        "nas",
        "hub.lan",
    )
    assert case.load('download.allow_private = ["nas"]').settings.download.allow_private == ("nas",)
    assert case.load(environ={"JAND_DOWNLOAD__ALLOW_PRIVATE": "true"}).settings.download.allow_private is True
    assert case.load(environ={"JAND_DOWNLOAD__ALLOW_PRIVATE": "nas, hub.lan"}).settings.download.allow_private == (
        "nas",
        "hub.lan",
    )


def test_secrets_that_are_bound_join_those_that_are_bound_already(case: Case) -> None:
    toml = '[secrets]\nMY_KEY = "https://api.example.com"\nOPENAI_API_KEY = "https://other.example.com"\n'
    loaded = case.load(toml, environ={"JAND_SECRETS__THIRD": "https://third.example.com"})

    assert loaded.settings.secrets == {
        "OPENAI_API_KEY": "https://other.example.com",
        "AZURE_OPENAI_API_KEY": "https://*.openai.azure.com",
        "MY_KEY": "https://api.example.com",
        "THIRD": "https://third.example.com",
    }
    assert loaded.sources["secrets.MY_KEY"] == f"{case.file}, line 2"


@pytest.mark.parametrize(
    ("written", "expected"),
    [("/a", ("/a",)), ("/a,/b", ("/a", "/b")), ('["/a,b"]', ("/a,b",)), ("", ())],
)
def test_a_list_in_the_environment_is_json_or_parts_between_commas(
    case: Case, written: str, expected: tuple[str, ...]
) -> None:
    loaded = case.load(environ={"JAND_EXTRA_MODELS": written})

    assert loaded.settings.extra_models == tuple(map(Path, expected))


def test_relative_paths_begin_at_the_root_in_its_file_and_at_the_working_directory_elsewhere(case: Case) -> None:
    toml = 'socket = "own.sock"\nextra_models = ["more", "~/models", "/abs"]\n'

    from_file = case.load(toml).settings
    from_flags = case.load(socket="own.sock", extra_models=["more"]).settings

    assert from_file.socket == case.root / "own.sock"
    assert from_file.extra_models == (case.root / "more", case.home / "models", Path("/abs"))
    assert (from_flags.socket, from_flags.extra_models) == (Path.cwd() / "own.sock", (Path.cwd() / "more",))


def test_an_empty_text_means_not_set(case: Case) -> None:
    loaded = case.load('listen = ""\nsocket_group = ""\n', environ={"JAND_SETTLE": ""})

    assert (loaded.settings.listen, loaded.settings.socket_group, loaded.settings.settle) == (None, None, 2.0)


def test_a_file_with_a_byte_order_mark_and_dos_line_ends_is_read(case: Case) -> None:
    case.file.write_bytes(b"\xef\xbb\xbfsettle = 3\r\nsettel = 4\r\n")

    with pytest.raises(SettingsError, match=r"settel .*line 2"):
        load({"root": case.root}, {}, places=case.places)


def test_a_file_mode_is_octal_text_and_never_a_bare_number(case: Case) -> None:
    assert case.load('socket_mode = "0660"').settings.socket_mode == 0o660
    assert case.load(environ={"JAND_SOCKET_MODE": "660"}).settings.socket_mode == 0o660
    assert case.load('socket_mode = "0o666"').settings.socket_mode == 0o666
    assert "octal" in case.refusal("socket_mode = 660").message
    assert "octal" in case.refusal('socket_mode = "0066"').message, "the owner must be able to use the socket"
    assert dict(row[:2] for row in case.load().rows())["socket_mode"] == "0600"


@pytest.mark.parametrize("address", ["127.0.0.1:1337", "localhost:0", "[::1]:1337", "my-host.lan:65535"])
def test_an_address_to_listen_on_is_taken(case: Case, address: str) -> None:
    assert case.load(listen=address).settings.listen == address


@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":1337", "host:", "host:70000", "[::1:1337", "a b:1", "[x]:1", "http://a:1"]
)
def test_an_address_that_is_none_is_refused(case: Case, address: str) -> None:
    assert "expected HOST:PORT" in case.refusal(listen=address).message


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one(case: Case) -> None:
    error = case.refusal("# comment\n\nadopt = true\nsettel = 3\n")

    assert error.message == f"cannot use settel ({case.file}, line 4): there is no such setting"
    assert error.hint == "the nearest known one is settle"
    assert error.param == "settel"


@pytest.mark.parametrize(
    ("toml", "near", "line"),
    [
        ("allow_private = true", "download.allow_private", 1),
        ("[download]\nallow_privat = true", "download.allow_private", 2),
        ("[downlod]\nallow_private = true", "download", 1),
        ("adopt = [\n  1,\n]\n\nlog-level = 1", "log_level", 5),
    ],
)
def test_the_nearest_known_key_is_found_in_and_out_of_tables(case: Case, toml: str, near: str, line: int) -> None:
    error = case.refusal(toml)

    assert f"line {line})" in error.message
    assert error.hint == f"the nearest known one is {near}"


def test_a_key_like_nothing_known_is_refused_without_a_guess(case: Case) -> None:
    assert case.refusal("zzzzqqqq = 1").hint == "jand config lists them all"


def test_an_unknown_variable_is_refused_and_the_nearest_one_is_spelled_as_a_variable(case: Case) -> None:
    error = case.refusal(environ={"JAND_DOWNLOAD_ALLOW_PRIVATE": "true"})

    assert error.message == "cannot use environment variable JAND_DOWNLOAD_ALLOW_PRIVATE: there is no such setting"
    assert error.hint == "the nearest known one is JAND_DOWNLOAD__ALLOW_PRIVATE"


def test_an_unknown_flag_is_refused(case: Case) -> None:
    error = case.refusal(log_leve="info")

    assert (error.message, error.hint) == (
        "cannot use flag --log-leve: there is no such setting",
        "the nearest known one is --log-level",
    )


@pytest.mark.parametrize(
    ("toml", "expected", "found"),
    [
        ('settle = "soon"', "a number of seconds from 0 to 3600", '"soon"'),
        ("settle = true", "a number of seconds from 0 to 3600", "true"),
        ("settle = -1", "a number of seconds from 0 to 3600", "-1"),
        ("settle = nan", "a number of seconds from 0 to 3600", "NaN"),
        ("rescan = 0", "a number of seconds from 1 to 86400", "0"),
        ("start_timeout = inf", "a number of seconds from 1 to 86400", "Infinity"),
        ('adopt = "perhaps"', "true or false", '"perhaps"'),
        ('log_level = "loud"', "debug, info, warning or error", '"loud"'),
        ("extra_models = [1]", "a list of paths", "[1]"),
        ("secrets.X = 3", "an origin, for example https://api.example.com", "3"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_expected_and_found(
    case: Case, toml: str, expected: str, found: str
) -> None:
    key = toml.partition(" = ")[0]

    assert case.refusal(toml).message == f"cannot use {key} ({case.file}, line 1): expected {expected}, found {found}"


def test_a_bad_value_says_which_variable_or_flag_it_is(case: Case) -> None:
    assert "(environment variable JAND_SETTLE)" in case.refusal(environ={"JAND_SETTLE": "x"}).message
    assert "(flag --settle)" in case.refusal(settle="x").message


def test_several_bad_values_are_all_told(case: Case) -> None:
    error = case.refusal('settle = "x"\nadopt = 7\n')

    assert "settle" in error.message
    assert "line 2): expected true or false, found 7" in error.hint


def test_a_long_value_is_cut_in_the_sentence(case: Case) -> None:
    assert len(case.refusal(f'settle = "{"x" * 5000}"').message) < 300


@pytest.mark.parametrize("key", ["root", "token"])
def test_what_cannot_stand_in_the_file_is_refused_with_what_to_do_instead(case: Case, key: str) -> None:
    error = case.refusal(f'{key} = "x"')

    assert error.message.startswith(f"cannot use {key} ({case.file}, line 1)")
    assert re.search(r"use --root|token_file", error.message)


def test_a_certificate_needs_its_key(case: Case) -> None:
    assert "tls_cert and tls_key" in case.refusal('tls_cert = "/c.pem"').message
    assert case.load('tls_cert = "/c.pem"\ntls_key = "/k.pem"').settings.tls_key == Path("/k.pem")


def test_a_token_is_never_shown(case: Case) -> None:
    loaded = case.load(environ={"JAND_TOKEN": "hush-hush"})

    assert isinstance(loaded.settings.token, SecretStr)
    assert loaded.settings.token.get_secret_value() == "hush-hush"
    assert "hush" not in repr(loaded)
    assert "hush" not in repr(list(loaded.rows()))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"settle = = 3", "line 1, column"),
        (b"a = 1\na = 2\n\n", "line 2, column"),
        (b"x = 1\ny = '\xff'", "line 2"),
        (b"[", ""),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_place(case: Case, content: bytes, where: str) -> None:
    case.file.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        load({"root": case.root}, {}, places=case.places)

    assert caught.value.message.startswith(f"cannot read {case.file}")
    assert where in caught.value.message


@pytest.mark.parametrize("toml", ["download = 3", 'secrets = "x"'])
def test_a_value_where_a_table_belongs_is_refused(case: Case, toml: str) -> None:
    assert "expected a table" in case.refusal(toml).message


def test_a_settings_file_that_cannot_be_read_is_an_error_and_none_at_all_is_not(case: Case) -> None:
    assert load({"root": case.root}, {}, places=case.places).settings.settle == 2.0

    case.file.mkdir()
    with pytest.raises(SettingsError, match=r"cannot read .*jand\.toml"):
        load({"root": case.root}, {}, places=case.places)


def test_a_file_too_large_for_settings_is_refused(case: Case) -> None:
    assert "at most" in case.refusal("#" * 2_000_000).message


@given(
    st.lists(
        st.sampled_from(
            [
                "# note",
                "",
                "a = 1",
                "b = [\n 1,\n # in\n 2]",
                '"c.d" = "x"',
                "s = '''\nk = 1\n'''",
                "[t]",
                "t.u = 2",
                "[[z]]",
            ]
        ),
        max_size=9,
    )
)
def test_the_line_found_for_a_key_is_where_its_statement_begins(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    for key, line in _lines_of_keys(text).items():
        begins = text.split("\n")[line - 1]
        assert begins.lstrip("[\"'").startswith((key[0], key[-1])), (key, begins)


def test_every_setting_says_what_it_does_what_it_takes_and_seconds_say_so() -> None:
    for known in known_settings():
        assert known.description, known.key
        assert known.expected, known.key
        units = {"number of seconds": "s", "bytes per second": "bytes/s", "number of bytes": "bytes"}
        assert known.unit == next((unit for words, unit in units.items() if words in known.expected), ""), known.key


def _written_default(value: object) -> Any:
    return "" if value is None else value


def test_the_example_file_shows_every_setting_with_its_default_and_changes_nothing(tmp_path: Path) -> None:
    """The comments of janroot.example/jand.toml are the documentation that people edit, so they must be right."""
    text = EXAMPLE.read_text()
    assert tomllib.loads(text) == {}, "an example must not change a default"

    uncommented = re.sub(r"^# ?(?=(\[?[a-z_A-Z.]+\]?)( = |$))", "", text, flags=re.MULTILINE)
    written = tomllib.loads(uncommented)
    settings = Settings.model_validate({"root": "/r", "socket": "/s"}, context={"resolve": lambda _field, path: path})
    expected: dict[str, Any] = {}
    for known in known_settings():
        if known.key == "socket" or not known.in_file:
            continue
        value: Any = settings
        for part in known.key.split("."):
            value = getattr(value, part)
        table = expected
        for part in known.key.split(".")[:-1]:
            table = table.setdefault(part, {})
        table[known.key.split(".")[-1]] = _written_default(shown(known.key, value))
    assert written.pop("socket") == "", "its default depends on who runs the daemon"
    assert written == expected
