"""Specs of model JSONs that say little and say it as it is to be, made without a validator: what nearly all of ten thousand files are, at a third of the time.

What is not plainly right, whatever it is, is for `Spec.model_validate` to judge; what is made here is what that would have made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from jand.model import packed
from jand.model.fields import MAX_ITEMS, MAX_TEXT, is_unset
from jand.model.parameters import Parameters
from jand.model.spec import MAX_ID, Engine, ImportFormat, Metadata, Spec, may_be_provider

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMATS: Final = {each.value: each for each in (ImportFormat.DEFAULT, ImportFormat.THEBLOKE, ImportFormat.JANHQ)}
_GIVE_UP: Final = object()


def accept(data: dict[str, Any]) -> Spec | None:
    """Return the spec that *data* is; None where that is not plain to see."""
    values = _take(data, _SPEC)
    if values is None or "origin" not in values or may_be_provider(values["origin"]):
        return None
    values.setdefault("metadata", _NO_METADATA)
    return packed.make(Spec, values)


def _take(data: dict[str, Any], readers: dict[str, Callable[[Any], object]]) -> dict[str, Any] | None:
    values = {}
    for name, value in data.items():
        reader = readers.get(name)
        if reader is None or (taken := reader(value)) is _GIVE_UP:
            return None
        values[name] = taken
    return values


def _line(value: Any) -> object:
    plain = value.__class__ is str and 0 < len(value) <= MAX_TEXT and value.isprintable() and value == value.strip()
    return value if plain and not is_unset(value) else _GIVE_UP


def _id(value: Any) -> object:
    return _line(value) if value.__class__ is str and len(value) <= MAX_ID else _GIVE_UP


def _import_format(value: Any) -> object:
    return _FORMATS.get(value, _GIVE_UP) if value.__class__ is str else _GIVE_UP


def _texts(value: Any) -> object:
    if value.__class__ is not list or not 0 < len(value) <= MAX_ITEMS:
        return _GIVE_UP
    if not all(text.__class__ is str and not is_unset(text) for text in value):
        return _GIVE_UP
    return tuple(dict.fromkeys(value))


def _description(value: Any) -> object:
    return value if value.__class__ is str and not is_unset(value) else _GIVE_UP


def _flag(value: Any) -> object:
    return value if value.__class__ is bool else _GIVE_UP


def _engine(value: Any) -> object:
    return Engine.LLAMACPP if value == "llamacpp" else _GIVE_UP


def _parameters(value: Any) -> object:
    try:
        return Parameters.model_validate(value) if value.__class__ is dict else _GIVE_UP
    except ValidationError:
        return _GIVE_UP


def _metadata(value: Any) -> object:
    values = _take(value, _METADATA) if value.__class__ is dict else None
    if values is None:
        return _GIVE_UP
    values.setdefault("engine", Engine.LLAMACPP)
    return packed.make(Metadata, values)


_SPEC: Final[dict[str, Callable[[Any], object]]] = {
    "origin": _line,
    "import_format": _import_format,
    "id": _id,
    "owned_by": _line,
    "parameters": _parameters,
    "metadata": _metadata,
}
_METADATA: Final[dict[str, Callable[[Any], object]]] = {
    "engine": _engine,
    "quantization": _line,
    "autostart": _flag,
    "pinned": _flag,
    "tags": _texts,
    "description": _description,
}
_NO_METADATA: Final = packed.make(Metadata, {"engine": Engine.LLAMACPP})
