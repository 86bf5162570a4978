"""The layers that settings come from, each as key -> raw value with its place. Nothing is validated here but that the keys exist."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.errors import SettingsError
from jand.settings.schema import FILE_REFUSES, known_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PREFIX: Final = "JAND_"
MAX_FILE_BYTES: Final = 1 << 20
FREE_TABLES: Final = frozenset({("secrets",)})
"""Tables whose keys are names that the user chooses."""

Key = tuple[str, ...]
LEAVES: Final = frozenset(tuple(known.key.split(".")) for known in known_settings()) - FREE_TABLES
TABLES: Final = frozenset(key[:-1] for key in LEAVES if len(key) > 1) | FREE_TABLES


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it, with its place in words (`flag --settle`, `/janroot/jand.toml, line 3`)."""

    value: object
    place: str
    from_file: bool = False


def dotted(key: Key) -> str:
    return ".".join(key)


def is_known(key: Key) -> bool:
    return key in LEAVES or (len(key) > 1 and key[:-1] in FREE_TABLES)


def from_flags(flags: Mapping[str, object]) -> dict[Key, Given]:
    """Take flags by their dotted key; None and an empty list mean that a flag was not given."""
    given = {}
    for name, value in flags.items():
        key = tuple(name.split("."))
        place = f"flag {_as_flag(key)}"
        if not is_known(key):
            raise _unknown(place, key, _as_flag)
        if value is not None and value not in ([], ()):
            given[key] = Given(value, place)
    return given


OF_CLIENTS: Final = frozenset({"JAND_URL", "JAND_CERTIFICATE"})
"""Variables that tell the command line where a daemon is, and a daemon nothing (`client.place`)."""


def from_environment(environ: Mapping[str, str]) -> dict[Key, Given]:
    """Take `JAND_*`; an empty variable means that it is not set."""
    given = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX) or not value or name in OF_CLIENTS:
            continue
        parts = name.removeprefix(PREFIX).split("__")
        table = tuple(part.lower() for part in parts[:-1])
        key = (*table, parts[-1] if table in FREE_TABLES else parts[-1].lower())
        place = f"environment variable {name}"
        if not is_known(key):
            raise _unknown(place, key, _as_variable)
        given[key] = Given(value, place)
    return given


def from_file(path: Path) -> dict[Key, Given]:
    """Read jand.toml, each value with its line; a file that is not there gives nothing, and an empty text means not set."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror or error}", hint="make it a file that jand may read, or remove it"
        ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(
            f"cannot read {path}: it has {len(raw)} bytes, and a settings file has at most {MAX_FILE_BYTES}"
        )
    text = _decode(raw, path)
    lines = _lines_of_keys(text)
    given = {}
    for key, value in _leaves(_parse(text, path)):
        line = lines.get(key)
        place = f"{path}" if line is None else f"{path}, line {line}"
        if key in FILE_REFUSES:
            raise SettingsError(f"cannot use {dotted(key)} ({place}): {FILE_REFUSES[key]}", param=dotted(key))
        if key in TABLES:
            raise SettingsError(
                f"cannot use {dotted(key)} = {value!r} ({place}): expected a table, found a single value",
                hint=f"write its settings below a line [{dotted(key)}]",
                param=dotted(key),
            )
        if not is_known(key):
            raise _unknown(f"{dotted(key)} ({place})", key, dotted)
        if value != "":
            given[key] = Given(value, place, from_file=True)
    return given


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"cannot read {path}, line {line}: it is not UTF-8", hint="save the file in UTF-8"
        ) from error


def _parse(text: str, path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        where = f", line {place[1]}, column {place[2]}" if place else ""
        cause = str(error)[: place.start()] if place else str(error)
        raise SettingsError(
            f"cannot read {path}{where}: {cause[:1].lower()}{cause[1:]}",
            hint="texts need quotes and tables a line of their own, as in the comments of janroot.example/jand.toml",
        ) from error


def _leaves(table: Mapping[str, object], above: Key = ()) -> Iterator[tuple[Key, object]]:
    """Yield what a table holds; a nested table that is no known one is a leaf itself, so that its name is what gets reported."""
    for name, value in table.items():
        key = (*above, name)
        if isinstance(value, dict) and key in TABLES:
            yield from _leaves(value, key)
        else:
            yield key, value


def _lines_of_keys(text: str) -> dict[Key, int]:
    """Find the line on which each key's statement begins.

    tomllib tells no positions. But a text that is cut after a whole statement parses, and what is new in it since the last such cut is
    what that statement gave.
    """
    found: dict[Key, int] = {}
    lines = text.split("\n")
    begin = 0
    for end, line in enumerate(lines, start=1):
        if begin == end - 1 and (not line.strip() or line.lstrip().startswith("#")):
            begin = end
            continue
        try:
            data = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
        for key, _ in _leaves(data):
            found.setdefault(key, begin + 1)
        begin = end
    return found


def _as_variable(key: Key) -> str:
    return PREFIX + "__".join(key).upper()


def _as_flag(key: Key) -> str:
    return "--" + "-".join(key).replace("_", "-")


def _unknown(what: str, key: Key, spell: Callable[[Key], str]) -> SettingsError:
    """Say that *what* is no setting, with the nearest known one spelled the way that its place needs."""
    known = {dotted(name): name for name in sorted(LEAVES | TABLES)}
    wanted = dotted(key).lower()
    same_last_part = [name for name, parts in known.items() if parts[-1] == key[-1].lower()]
    near = same_last_part or difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    nearest = spell(known[near[0]]) if near else ""
    return SettingsError(
        f"cannot use {what}: there is no such setting",
        hint=f"the nearest known one is {nearest}" if nearest else "jand config lists them all",
        param=dotted(key),
        near=nearest,
    )
