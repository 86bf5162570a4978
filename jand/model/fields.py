"""The kinds of value that a model JSON holds, and how kindly each is read: numbers as text, enumerations in any case, one thing where a list may stand.

`""`, `".."` and null mean "not set" in every field. What was expected is part of each kind's own error, for `complaints` to put into a sentence.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import override

from jand.model import secrets
from jand.model.filenames import Source, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable

UNSET: Final = ("", "..")
"""What people write where they leave a value open (model-specs.md has both)."""

MAX_TEXT: Final = 4096
MAX_ITEMS: Final = 1000
_MAX_GPUS: Final = 128


def expected(what: str, hint: str = "", at: str = "") -> PydanticCustomError:
    """Make an error whose sentence will end with "expected *what*"; *at* is the dotted name, within what is validated, of the field at fault."""
    return PydanticCustomError("expected", "expected {what}", {"what": what, "hint": hint, "at": at})


def is_unset(value: object) -> bool:
    return value is None or (isinstance(value, str) and value in UNSET)


class Part(BaseModel):
    """One object of a model JSON; names that are not known are kept."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if not is_unset(value)}

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Secrets stay out of tracebacks and logs."""
        return [(name, secrets.mask(value, name)) for name, value in super().__repr_args__() if value is not None]

    def given(self) -> dict[str, Any]:
        """Give what is set, by the names of the file, ready for JSON; secrets as they are."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _not_a_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise expected("a number")
    return value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _listed(value: Any) -> Any:
    """Read one thing where a list may stand as a list of one; leave out what is not set in it, and repetitions."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise expected("text in quotes, or a list of such texts in brackets")
    items = [item for item in value if not is_unset(item)]
    if len(items) > MAX_ITEMS:
        raise expected(f"at most {MAX_ITEMS} of them")
    return tuple(dict.fromkeys(items)) if all(isinstance(item, str) for item in items) else tuple(items)


def _shares(value: Any) -> Any:
    """llama.cpp writes shares as "3,1" or "3/1"."""
    if isinstance(value, str):
        value = [share for share in re.split(r"[,/;]", value) if share.strip()]
    if isinstance(value, (list, tuple)) and len(value) > _MAX_GPUS:
        raise expected(f"at most {_MAX_GPUS} of them")
    return value


def _check_share(value: float) -> float:
    if not 0 <= value < math.inf:
        raise expected("shares such as [3, 1], none of them negative")
    return value


def _attention(value: Any) -> Any:
    """llama.cpp's third word beside on and off: let it choose, which is what happens where nothing is set."""
    return None if _lower(value) == "auto" else value


def _check_line(value: str) -> str:
    value = value.strip()
    if not value:
        raise expected("a name", hint="it holds nothing but blanks")
    if len(value) > MAX_TEXT:
        raise expected(f"at most {MAX_TEXT} characters")
    if not value.isprintable():
        raise expected("one line without control characters")
    return value


def _check_location(value: str) -> str:
    reference = parse_reference(value)
    if reference.source is Source.URL and value.split("://", 1)[0].lower() not in ("http", "https"):
        raise expected("a path in the repository, an https:// address, or a local path that begins with / ~/ ./ or ../")
    if not reference.name:
        raise expected(
            "the path of a file that stays inside the repository",
            hint='a local path begins with "/", "~/", "./" or "../"',
        )
    return value


def _check_digest(value: str) -> str:
    value = value.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise expected("a SHA-256 digest of 64 hexadecimal digits")
    return value


def _check_digests(value: Any) -> Any:
    if isinstance(value, str):
        return _check_digest(value)
    if isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values()):
        return {name: _check_digest(digest) for name, digest in value.items() if not is_unset(digest)}
    raise expected("a SHA-256 digest, or an object of file names and digests")


Whole = Annotated[int, BeforeValidator(_not_a_flag)]
Number = Annotated[float, BeforeValidator(_not_a_flag)]
Line = Annotated[str, AfterValidator(_check_line)]
Location = Annotated[Line, AfterValidator(_check_location)]
Locations = Annotated[tuple[Location, ...], BeforeValidator(_listed)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Digests = Annotated[str | dict[str, str], BeforeValidator(_check_digests)]
Shares = Annotated[tuple[Annotated[Number, AfterValidator(_check_share)], ...], BeforeValidator(_shares)]
Attention = Annotated[bool | None, BeforeValidator(_attention)]
CacheType = Annotated[
    Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"], BeforeValidator(_lower)
]
