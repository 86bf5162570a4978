"""A spec as plain values that JSON can hold, and back without being validated once more: for caches of ours, never for what people write.

`unpack` trusts what it gets. Whoever packs makes sure that the spec comes back as it was, and that nobody else wrote what is unpacked.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel

from jand.model.fields import Part
from jand.model.spec import Engine, ImportFormat, Init, Metadata, Parameters, Runtime, Spec

if TYPE_CHECKING:
    from collections.abc import Callable

P = TypeVar("P", bound=Part)

_UNPACK: Final[dict[type[Part], dict[str, Callable[[Any], Any]]]] = {
    Spec: {
        "import_format": {each.value: each for each in ImportFormat}.__getitem__,
        "download_url": tuple,
        "parameters": lambda value: _unpack(Parameters, value),
        "metadata": lambda value: _unpack(Metadata, value),
    },
    Parameters: {"init": lambda value: _unpack(Init, value), "runtime": lambda value: _unpack(Runtime, value)},
    Init: {"tensor_split": tuple, "lora": tuple},
    Runtime: {"stop": tuple, "samplers": tuple, "dry_sequence_breakers": tuple},
    Metadata: {"engine": {each.value: each for each in Engine}.__getitem__, "tags": tuple},
}
"""What JSON cannot tell from something else."""

_set_values, _set_names, _set_extra, _set_private = (
    BaseModel.__dict__[name].__set__
    for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)


class _Blank(NamedTuple):
    """What an unset part of one kind holds."""

    values: dict[str, Any]
    unpack: dict[str, Callable[[Any], Any]]


def pack(part: Part) -> dict[str, Any]:
    """Give what is set, by the names of the fields, and what is kept beside them."""
    names = part.model_fields_set
    values = {name: getattr(part, name) for name in type(part).model_fields if name in names}
    packed = {name: pack(value) if isinstance(value, Part) else value for name, value in values.items()}
    return packed | (part.model_extra or {})


def unpack(packed: dict[str, Any]) -> Spec:
    """Give the spec of which *packed* was made."""
    return _unpack(Spec, packed)


def _unpack(kind: type[P], packed: dict[str, Any]) -> P:
    blank = _blank(kind)
    values, extra = blank.values.copy(), {}
    for name, value in packed.items():
        if name not in values:
            extra[name] = value
        elif (read := blank.unpack.get(name)) is None or value is None:
            values[name] = value
        else:
            values[name] = read(value)
    return _build(kind, values, _names(tuple(packed)), extra)


def make(kind: type[P], values: dict[str, Any]) -> P:
    """Make a part of *values* by the names of its fields, which are what a validator would have made of them."""
    return _build(kind, _blank(kind).values | values, _names(tuple(values)), {})


def _build(kind: type[P], values: dict[str, Any], names: set[str], extra: dict[str, Any]) -> P:
    part = kind.__new__(kind)
    # Parts are frozen; their slots are not, and this is a good deal faster than `object.__setattr__`.
    _set_values(part, values)
    _set_names(part, names)
    _set_extra(part, extra)
    _set_private(part, None)
    return part


@cache
def _blank(kind: type[Part]) -> _Blank:
    fields = kind.model_fields.items()
    return _Blank(
        {name: None if field.is_required() else field.get_default(call_default_factory=True) for name, field in fields},
        _UNPACK[kind],
    )


@cache
def _names(names: tuple[str, ...]) -> set[str]:
    """Give one set for all parts with the same fields; parts are frozen, and their copies copy it."""
    return set(names)
