"""A model JSON as people write it: read kindly, and whatever is wrong with it said with line and column.

`parse` never raises and takes under a second and some dozens of MB for any bytes. Strict JSON goes the fast way (json.loads); what that refuses is walked (`places`) and read as
JSON5 by pyjson5. Codes of its problems, all of them errors but the last:

    empty-json       nothing but blanks and comments; a copy may be about to fill it
    incomplete-json  the text ends too early; a copy may be under way
    bad-json         no JSON that can be read: syntax, encoding, size, depth, a field given twice
    bad-spec         JSON, but not a valid model: a value is missing, of the wrong kind or out of its range
    unknown-field    a name that jand does not know (warning); the value is kept
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pyjson5
from pydantic import ValidationError

from jand.model import complaints, quick
from jand.model.immutable import immutable
from jand.model.places import MAX_DEPTH, MAX_VALUES, Path, UnreadableError, Walk, line_and_column, refuse_piece
from jand.model.problem import Problem, Severity
from jand.model.spec import Init, Metadata, Parameters, Runtime, Spec, known_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jand.model.fields import Part

MAX_BYTES: Final = 1 << 20
_MAX_PROBLEMS: Final = 20
_MAX_UNKNOWN: Final = 100
_MAX_WHOLE: Final = 2**63

_SECTIONS: Final[tuple[tuple[Path, type[Part]], ...]] = (
    ((), Spec),
    (("parameters",), Parameters),
    (("parameters", "init"), Init),
    (("parameters", "runtime"), Runtime),
    (("metadata",), Metadata),
)
_NAMES: Final = {path: known_names(part) | set(part.model_fields) for path, part in _SECTIONS}


@immutable()
class Document:
    """*spec* is None where a problem is an error; *problems* are in the order of the text."""

    spec: Spec | None
    problems: tuple[Problem, ...]


def parse(raw: bytes, path: str) -> Document:
    """Read the content of the model JSON that is shown to people as *path*. Never raises."""
    text = raw[:MAX_BYTES].removeprefix(_MARK).decode("utf-8", "replace")
    try:
        return _validate(_read(raw, text), text, path)
    except UnreadableError as error:
        line, column = line_and_column(text, error.offset)
        message = f"cannot read {path}, line {line}, column {column}: {error.what}"
        return Document(
            None,
            (Problem(path, error.code, message, error.hint or "correct or remove what stands there", line, column),),
        )


def to_json(data: object) -> str:
    """Write *data* as the text of a file that jand writes: indented, readable, with a line end."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _read(raw: bytes, text: str) -> dict[str, Any]:
    _check_bytes(raw, text)
    plain = False
    try:
        data = _STRICT.decode(text)
        plain = len(text) < MAX_VALUES and text.count("{") + text.count("[") < MAX_DEPTH and not _ODD.search(text)
    except (ValueError, RecursionError):
        data = _read_kindly(text)
    if not isinstance(data, dict):
        Walk(text)
        raise UnreadableError(0, 'expected "{", with which a model JSON begins')
    if not plain:
        _check_values(data, text)
    return data


def _check_bytes(raw: bytes, text: str) -> None:
    if len(raw) > MAX_BYTES:
        hint = "a model JSON has a few KB; is this one by mistake, such as a tokenizer's?"
        raise UnreadableError(0, f"expected at most {MAX_BYTES} bytes, found more", hint)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError(0, "expected UTF-8, found UTF-16", "save the file again with the encoding UTF-8")
    if "\ufffd" in text:
        _check_encoding(raw)
    if (at := text.find("\0")) >= 0:
        unwritten = not text[at:].strip("\0")
        code = "incomplete-json" if unwritten else "bad-json"
        hint = (
            "nothing has been written there yet, or a copy was cut"
            if unwritten
            else "it is UTF-16 or no text at all; save it as UTF-8"
        )
        raise UnreadableError(at, "expected text, found a NUL byte", hint, code)


def _check_encoding(raw: bytes) -> None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig")
        hint = "save the file again with the encoding UTF-8"
        what = f"expected UTF-8, found the byte 0x{raw[error.start]:02x}"
        raise UnreadableError(len(before), what, hint) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a name stands twice")
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_MARK: Final = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, which some editors write at the beginning."""

_ODD: Final = re.compile(r"[^\t\n\r -~]|\\|[0-9]{19}|[eE]\+?[0-9]{3}")
"""Strict JSON without any of these holds no characters that could be refused, and no number that is too large."""

_STRICT: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
"""Whatever it refuses, for whatever reason, is walked, which finds the place of the fault or reads it after all."""


def _read_kindly(text: str) -> object:
    walk = Walk(text)
    try:
        data: object = pyjson5.decode("".join(walk.pieces), maxdepth=MAX_DEPTH + 1)
    except pyjson5.Json5Exception as error:
        raise _find_refused(walk) from error
    return data


def _find_refused(walk: Walk) -> UnreadableError:
    for piece, at in zip(walk.pieces, walk.offsets, strict=True):
        if piece not in "{}[]:,":
            try:
                pyjson5.decode(piece)
            except pyjson5.Json5Exception:
                return refuse_piece(piece, at)
    return UnreadableError(0, "expected JSON5, found something that its reader refuses")


def _check_values(data: object, text: str) -> None:
    """Refuse what JSON can write but nothing after this can hold, whatever the field: half characters, huge numbers, a pit of brackets."""
    count = 0
    stack: list[tuple[Path, object]] = [((), data)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            for name in value:
                if what := _find_bad_text(name):
                    raise UnreadableError(Walk(text).place_of_name((*path, name)), f"{what} in the name of a field")
            items: Iterable[tuple[str | int, object]] = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        else:
            if what := _find_bad_value(value):
                raise UnreadableError(Walk(text).place_of(path), f"{what}, as the value of {complaints.name_of(path)}")
            continue
        count += len(value)
        if count > MAX_VALUES or len(path) >= MAX_DEPTH:
            Walk(text)  # which refuses it, and knows the place
        stack += [((*path, step), each) for step, each in items]


def _find_bad_value(value: object) -> str | None:
    if isinstance(value, str):
        return _find_bad_text(value)
    if isinstance(value, int) and abs(value) >= _MAX_WHOLE:
        return "expected a whole number that fits 64 bits, found a larger one"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a number that a computer can hold, found a larger one"
    return None


def _find_bad_text(text: str) -> str | None:
    if "\0" in text:
        return "expected text, found a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "expected whole characters, found half of a surrogate pair"
    return None


def _validate(data: dict[str, Any], text: str, path: str) -> Document:
    spec = quick.accept(data)
    if spec is not None and "parameters" not in data:
        # No other names have passed there than those that are known.
        return Document(spec, ())
    warnings = list(islice(_find_unknown(data), _MAX_PROBLEMS))
    try:
        spec = spec or Spec.model_validate(data)
    except ValidationError as error:
        found: dict[str, complaints.Complaint] = {}
        for each in error.errors(include_url=False, include_input=False)[: 2 * _MAX_PROBLEMS]:
            complaint = complaints.complain(each, data)
            found.setdefault(complaint.name, complaint)  # of a value that may be of two kinds pydantic says two things
        return Document(None, _locate(text, path, list(found.values())[:_MAX_PROBLEMS], warnings))
    return Document(spec, _locate(text, path, (), warnings) if warnings else ())


@dataclass(frozen=True, slots=True)
class _Unknown:
    path: Path
    hint: str


def _find_unknown(data: dict[str, Any]) -> Iterator[_Unknown]:
    """`metadata` is free for notes: there, only what looks like a slip of the pen is unknown."""
    for section, names in _NAMES.items():
        part: Any = data
        for step in section:
            part = part.get(step) if isinstance(part, dict) else None
        if not isinstance(part, dict) or part.keys() <= names:
            continue
        for name in [name for name in part if name not in names][:_MAX_UNKNOWN]:
            near = complaints.find_near(name, names)
            if near or section != ("metadata",):
                yield _Unknown((*section, name), _hint_for(name, near))


def _hint_for(name: str, near: str | None) -> str:
    homes = [".".join(map(str, section)) for section, names in _NAMES.items() if name in names]
    if homes:
        return f"it belongs to {homes[0] or 'the top of the file'}"
    return f'did you mean "{near}"?' if near else ""


def _locate(
    text: str, path: str, errors: Iterable[complaints.Complaint], warnings: Iterable[_Unknown]
) -> tuple[Problem, ...]:
    walk = Walk(text)
    problems = []
    for error in errors:
        line, column = line_and_column(text, walk.place_of(error.path))
        message = f"cannot use {path}, line {line}, column {column}: {error}"
        problems.append(Problem(path, "bad-spec", message, error.hint, line, column))
    for warning in warnings:
        line, column = line_and_column(text, walk.place_of_name(warning.path))
        message = f"{path}, line {line}, column {column}: {complaints.describe(warning.path[-1])} is no field that jand knows{_within(warning.path)}; it is kept, and does nothing"
        problems.append(Problem(path, "unknown-field", message, warning.hint, line, column, Severity.WARNING))
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.column, problem.message)))


def _within(path: Path) -> str:
    return f" in {'.'.join(map(str, path[:-1]))}" if len(path) > 1 else ""
