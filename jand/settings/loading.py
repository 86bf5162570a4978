"""Puts the layers together and validates the result; turns what pydantic finds into one located sentence."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from jand.errors import SettingsError
from jand.paths import Janroot, Places
from jand.settings import layers
from jand.settings.layers import Given, Key, dotted
from jand.settings.schema import BUILT_IN_SECRETS, Settings, known_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic_core import ErrorDetails

DEFAULT = "default"
MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the place of each value (`default` where nobody gave one), by dotted key."""

    settings: Settings
    sources: Mapping[str, str]
    again: Callable[[], Loaded] = field(repr=False, compare=False)
    """Reads the settings once more, with the same flags, environment and working directory; raises as `load` does."""

    def is_given(self, key: str) -> bool:
        """Whether somebody gave *key* a value."""
        return self.sources.get(key, DEFAULT) != DEFAULT

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """Yield (dotted key, value, source) for every setting; secrets come masked, modes as octal text."""
        for known in known_settings():
            value: Any = self.settings
            for part in known.key.split("."):
                value = getattr(value, part)
            if isinstance(value, dict):
                for name, bound in value.items():
                    key = f"{known.key}.{name}"
                    yield key, bound, self.sources.get(key, DEFAULT)
            else:
                yield known.key, shown(known.key, value), self.sources.get(known.key, DEFAULT)


def shown(key: str, value: object) -> object:
    """Return *value* as people and JSON see it."""
    if isinstance(value, SecretStr):
        return "***"
    if key == "socket_mode" and isinstance(value, int):
        return f"{value:04o}"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [str(part) for part in value]
    return value


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    places: Places | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Return the settings that hold for a daemon started with *flags* (dotted keys; None means not given) in *environ* and *directory* (the working directory).

    Raises SettingsError for an unknown key or a value that cannot be understood. Reads `<root>/jand.toml` and nothing else; makes nothing.
    """
    environ = os.environ if environ is None else environ
    places = places or Places.of(environ)
    directory = directory or Path.cwd()
    given: dict[Key, Given] = {
        ("root",): Given(places.default_root(), DEFAULT),
        ("socket",): Given(places.default_socket(), DEFAULT),
    }
    outer = layers.from_environment(environ) | layers.from_flags(flags or {})
    root = _root_of((given | outer)[("root",)], places, directory)
    given |= layers.from_file(Janroot(root).settings_file) | outer
    resolve = _Resolver(given, root, places, directory)
    try:
        settings = Settings.model_validate(_nested(given), context={"resolve": resolve})
    except ValidationError as error:
        raise _as_settings_error(error, given) from error
    again = functools.partial(load, flags, environ, places=places, directory=directory)
    return Loaded(settings, {dotted(key): value.place for key, value in given.items()}, again)


def _root_of(given: Given, places: Places, directory: Path) -> Path:
    if not isinstance(given.value, str | Path):
        raise SettingsError(
            f"cannot use root ({given.place}): expected a path, found {_quoted(given.value)}", param="root"
        )
    return places.absolute(Path(given.value), directory)


@dataclass(frozen=True, slots=True)
class _Resolver:
    given: Mapping[Key, Given]
    root: Path
    places: Places
    directory: Path

    def __call__(self, field: str, path: Path) -> Path:
        given = self.given.get((field,))
        from_file = given is not None and given.from_file
        return self.places.absolute(path, self.root if from_file else self.directory)


def _nested(given: Mapping[Key, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {"secrets": dict(BUILT_IN_SECRETS)}
    for key, value in given.items():
        table = tree
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = value.value
    return tree


def _as_settings_error(error: ValidationError, given: Mapping[Key, Given]) -> SettingsError:
    sentences = list(dict.fromkeys(_sentence(detail, given) for detail in error.errors(include_url=False)))
    more = f"; then: {'; '.join(text for text, _ in sentences[1:])}" if len(sentences) > 1 else ""
    text, key = sentences[0]
    return SettingsError(text, hint=f"jand config shows every setting with its default{more}", param=key)


def _sentence(detail: ErrorDetails, given: Mapping[Key, Given]) -> tuple[str, str]:
    """Return the sentence for one of pydantic's findings, and the dotted key it is about."""
    location = tuple(str(part) for part in detail["loc"])
    key = next((location[:end] for end in range(len(location), 0, -1) if location[:end] in given), ())
    if not key:
        return (
            f"cannot use the settings together: {str(detail['ctx']['error']) if 'ctx' in detail else detail['msg']}",
            "",
        )
    found = given[key]
    expected = _expected(key)
    value = "a text that is not shown" if key == ("token",) else _quoted(found.value)
    return f"cannot use {dotted(key)} ({found.place}): expected {expected}, found {value}", dotted(key)


def _expected(key: Key) -> str:
    known = {tuple(known.key.split(".")): known.expected for known in known_settings()}
    return known.get(key) or known[key[:-1]]


def _quoted(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
