"""Where everything stands in the text of a model JSON, and the first thing in it that cannot be read.

It finds structure only; what a text or number means is read by the library behind `document`. One pass with a stack of its own: time linear in the text,
depth and count of values bounded, and it stops at the first fault. Comments may begin with `//`, `#` or `/*`, names may stand without quotes, a comma may trail.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyjson5

from jand.model import secrets

if TYPE_CHECKING:
    from collections.abc import Callable

Path = tuple[str | int, ...]

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 10_000
"""A model JSON has some dozens; the bound keeps time and memory small for whatever else is called .json."""

_MAX_PLACES: Final = 4096
_MAX_NUMBER: Final = 400

_TOKEN = re.compile(
    r"""
      (?P<gap>(?:[\s\ufeff]++|//[^\n\r\u2028\u2029]*+|\#[^\n\r\u2028\u2029]*+|/\*.*?\*/)++)
    | (?P<mark>[{}\[\]:,])
    | (?P<quoted>"(?:[^"\\\n\r]++|\\(?:\r\n|.))*+"|'(?:[^'\\\n\r]++|\\(?:\r\n|.))*+')
    | (?P<word>[^\s\ufeff"'{}\[\]:,/\#]++)
    | (?P<broken>.)""",
    re.VERBOSE | re.DOTALL,
)
_NAME = re.compile(r"[^\W\d][\w$-]*+|\$[\w$-]*+")
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]++|(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)")
_COLON_AHEAD = re.compile(r"(?:[\s\ufeff]++|//[^\n\r]*+|\#[^\n\r]*+|/\*.*?\*/)*+:", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\n|\r")
_NOT_NUMBERS: Final = ("nan", "infinity", "inf")
_LITERALS: Final = ("true", "false", "null")


class UnreadableError(Exception):
    """The text cannot be read from *offset* on. Stays inside `model`: `document` makes a Problem of it."""

    def __init__(self, offset: int, what: str, hint: str = "", code: str = "bad-json") -> None:
        super().__init__(what)
        self.offset = offset
        self.what = what
        self.hint = hint
        self.code = code


@dataclass(slots=True)
class _Frame:
    """An object or list that is open; *step* is the name or index of what is being read in it."""

    opened_at: int
    closer: str
    step: str | int
    names: dict[str, int] = field(default_factory=dict)
    bare: bool = False


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Both from 1, columns in characters."""
    before = text[:offset].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class Walk:
    """One walk over *text*. Afterwards *pieces* are its tokens in the library's dialect and *offsets* where each stands.

    *names_at* and *values_at* give the offset of a field's name and of a value by its path (the first 4096 of them). Raises UnreadableError.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: list[str] = []
        self.offsets: list[int] = []
        self.names_at: dict[Path, int] = {}
        self.values_at: dict[Path, int] = {}
        self._stack: list[_Frame] = []
        self._values = 0
        self._previous = (0, 0)
        self._take: Callable[[str, str, int], None] = self._take_top
        self._run()

    def place_of(self, path: Path) -> int:
        """Find the offset of the value at *path*, or of the nearest thing around it that is known."""
        while path and path not in self.values_at:
            path = path[:-1]
        return self.values_at.get(path, 0)

    def place_of_name(self, path: Path) -> int:
        return self.names_at.get(path, self.place_of(path))

    def _run(self) -> None:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup or ""
            if kind == "gap":
                continue
            if kind == "broken":
                self._refuse_broken(match.start())
            self._take(kind, match[0], match.start())
            self._previous = match.span()
        if self._take != self._take_nothing:
            self._refuse_end()

    # Each of these takes one token where the grammar allows what its name says, and says what comes next.

    def _take_top(self, kind: str, piece: str, at: int) -> None:
        if piece == "{":
            self._take_value(kind, piece, at)
            return
        if kind in ("quoted", "word") and _COLON_AHEAD.match(self.text, at + len(piece)):
            raise UnreadableError(
                at,
                f'expected "{{" before the first field, found {self._show(kind, piece, at)}',
                'put "{" on a line before the first field, and "}" after the last',
            )
        hint = ""
        if piece.startswith("<"):
            hint = "it looks like a web page: download the file itself, not the page that shows it"
        elif self.text.startswith("version https://git-lfs"):
            hint = "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"
        raise UnreadableError(
            at, f'expected "{{", with which a model JSON begins, found {self._show(kind, piece, at)}', hint
        )

    def _take_nothing(self, kind: str, piece: str, at: int) -> None:
        hint = 'there is one "}" too many, here or before' if piece == "}" else "a file holds one model"
        raise UnreadableError(at, f"expected the end of the file, found {self._show(kind, piece, at)}", hint)

    def _take_name(self, kind: str, piece: str, at: int) -> None:
        frame = self._stack[-1]
        if piece == "}":
            self._close(at)
            return
        if kind == "mark":
            hint = "remove the second comma" if piece == "," else ""
            raise UnreadableError(at, f"expected the name of a field, found {self._show(kind, piece, at)}", hint)
        if kind == "word" and not _NAME.fullmatch(piece):
            raise UnreadableError(
                at, f"expected the name of a field, found {self._show(kind, piece, at)}", _quote_hint(piece)
            )
        name = piece if kind == "word" else self._decode(piece, at)
        if name in frame.names:
            line, _ = line_and_column(self.text, frame.names[name])
            raise UnreadableError(
                at,
                f"expected each field once, found {_quote(name)} again, which is on line {line} already",
                "remove one of the two",
            )
        frame.names[name] = at
        frame.step, frame.bare = name, kind == "word"
        if len(self.names_at) < _MAX_PLACES:
            self.names_at[self._path()] = at
        self._keep(f'"{piece}"' if kind == "word" else piece, at)
        self._take = self._take_colon

    def _take_colon(self, kind: str, piece: str, at: int) -> None:
        if piece == ":":
            self._keep(piece, at)
            self._take = self._take_value
            return
        frame = self._stack[-1]
        name = frame.step
        if piece == "}" and frame.bare and len(frame.names) == 1:
            raise UnreadableError(
                frame.opened_at,
                f"expected a value, found the placeholder {{{name}}}",
                "put the real value in its place, or remove the line",
            )
        hidden = kind != "mark" and secrets.is_secret_name(name)
        found = "a value that is not shown" if hidden else self._show(kind, piece, at)
        raise UnreadableError(
            at,
            f'expected ":" after the name {_quote(name)}, found {found}',
            'a name and its value stand as "name": value',
        )

    def _take_item(self, kind: str, piece: str, at: int) -> None:
        if piece == "]":
            self._close(at)
        else:
            self._take_value(kind, piece, at)

    def _take_value(self, kind: str, piece: str, at: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise UnreadableError(at, f"expected a model JSON with some dozens of values, found more than {MAX_VALUES}")
        if len(self.values_at) < _MAX_PLACES:
            self.values_at[self._path()] = at
        if piece in ("{", "["):
            self._open(piece, at)
            return
        if kind == "mark":
            raise UnreadableError(at, f"expected a value{self._for_field()}, found {self._show(kind, piece, at)}")
        if kind == "word":
            self._check_word(piece, at)
        self._keep(piece, at)
        self._take = self._take_next

    def _take_next(self, kind: str, piece: str, at: int) -> None:
        frame = self._stack[-1]
        if piece == ",":
            self._keep(piece, at)
            if isinstance(frame.step, int):
                frame.step += 1
            self._take = self._take_name if frame.closer == "}" else self._take_item
            return
        if piece == frame.closer:
            self._close(at)
            return
        self._refuse_next(frame, kind, piece, at)

    def _open(self, piece: str, at: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise UnreadableError(
                at, f"expected at most {MAX_DEPTH} braces and brackets inside one another, found more"
            )
        self._keep(piece, at)
        if piece == "{":
            self._stack.append(_Frame(at, "}", ""))
            self._take = self._take_name
        else:
            self._stack.append(_Frame(at, "]", 0))
            self._take = self._take_item

    def _close(self, at: int) -> None:
        self._keep(self._stack.pop().closer, at)
        self._take = self._take_next if self._stack else self._take_nothing

    def _keep(self, piece: str, at: int) -> None:
        self.pieces.append(piece)
        self.offsets.append(at)

    def _path(self) -> Path:
        return tuple(frame.step for frame in self._stack)

    def _decode(self, piece: str, at: int) -> str:
        if "\\" not in piece:
            return piece[1:-1]
        try:
            return str(pyjson5.decode(piece))
        except pyjson5.Json5Exception:
            raise UnreadableError(at, *_BAD_ESCAPE) from None

    def _check_word(self, piece: str, at: int) -> None:
        if piece in _LITERALS:
            return
        if _NUMBER.fullmatch(piece):
            if len(piece) > _MAX_NUMBER:
                raise UnreadableError(
                    at, f"expected a number that a computer can hold, found one of {len(piece)} characters"
                )
            return
        lower = piece.lower()
        if lower.lstrip("+-") in _NOT_NUMBERS:
            raise UnreadableError(
                at, f"expected a value{self._for_field()}, found {piece}, which is no number that can be used"
            )
        hint = _quote_hint(piece)
        if lower in _LITERALS or lower == "none":
            hint = f"write {'null' if lower == 'none' else lower}, in small letters"
        elif re.fullmatch(r"[+-]?0\d+", piece):
            hint = "leave out the zeros before the number"
        raise UnreadableError(at, f"expected a value{self._for_field()}, found {self._show('word', piece, at)}", hint)

    def _refuse_next(self, frame: _Frame, kind: str, piece: str, at: int) -> None:
        """Say that a comma is missing, where it is missing, if that explains what was found; else name what is there."""
        last = self._previous[1]
        new_line = _LINE_END.search(self.text, last, at) is not None
        named = kind in ("quoted", "word") and _COLON_AHEAD.match(self.text, at + len(piece)) is not None
        item = frame.closer == "]" and (
            kind == "quoted" or piece in ("{", "[") or piece in _LITERALS or _NUMBER.fullmatch(piece) is not None
        )
        found = self._show(kind, piece, at)
        if named or item or (new_line and kind in ("quoted", "word")):
            line, _ = line_and_column(self.text, last)
            where = f" on line {line_and_column(self.text, at)[0]}" if new_line else ""
            raise UnreadableError(
                last,
                f"expected a comma after the value{self._of_field()}, found {found}{where}",
                f"put a comma after the value on line {line}",
            )
        line, _ = line_and_column(self.text, frame.opened_at)
        opener = "{" if frame.closer == "}" else "["
        raise UnreadableError(
            at,
            f'expected a comma, or "{frame.closer}" for the "{opener}" of line {line}, found {found}',
            "remove it, or put # before it",
        )

    def _refuse_broken(self, at: int) -> None:
        mark = self.text[at]
        cut = _LINE_END.search(self.text, at) is None
        if mark in "\"'":
            what = f"expected a closing {mark} before the end of the line, found none for the text that begins here"
            hint = "the file is cut" if cut else r"close the text on its line; a line end inside it is written \n"
            raise UnreadableError(at, what, hint, "incomplete-json" if cut else "bad-json")
        if self.text.startswith("/*", at):
            raise UnreadableError(
                at,
                "expected */ after the comment that begins here, found the end of the file",
                "close the comment",
                "incomplete-json",
            )
        raise UnreadableError(
            at, 'expected a field or a value, found "/"', "a comment begins with //, # or /*; a text stands in quotes"
        )

    def _refuse_end(self) -> None:
        last = self._previous[1]
        if not self._stack:
            raise UnreadableError(
                0, 'expected "{", with which a model JSON begins, found nothing', "the file is empty", "empty-json"
            )
        frame = self._stack[-1]
        line, _ = line_and_column(self.text, frame.opened_at)
        opener = "{" if frame.closer == "}" else "["
        raise UnreadableError(
            last,
            f'expected "{frame.closer}" for the "{opener}" of line {line}, found the end of the file',
            "the file is cut, or a closing brace is missing",
            "incomplete-json",
        )

    def _for_field(self) -> str:
        return self._of_field().replace(" of ", " for ", 1)

    def _of_field(self) -> str:
        names = [str(frame.step) for frame in self._stack if isinstance(frame.step, str) and frame.step]
        return f" of {_quote(names[-1])}" if names else ""

    def _show(self, kind: str, piece: str, at: int) -> str:
        """Name a token as a person would, without the value of a secret."""
        if kind == "mark":
            return f'"{piece}"'
        if kind == "quoted" and not _COLON_AHEAD.match(self.text, at + len(piece)):
            return "a text"
        shown = piece[1:-1] if kind == "quoted" else piece
        hidden = any(secrets.is_secret_name(frame.step) for frame in self._stack) or secrets.looks_secret(shown)
        return "a value that is not shown" if hidden and kind == "word" else _quote(shown)


_BAD_ESCAPE: Final = (
    "expected a text whose escapes are valid, found one after a backslash that means no character",
    r"write a backslash twice (\\), also in Windows paths",
)


def refuse_piece(piece: str, at: int) -> UnreadableError:
    """Why the library refuses one of a walk's pieces, which the grammar let pass."""
    if piece[0] in "\"'":
        return UnreadableError(at, *_BAD_ESCAPE)
    return UnreadableError(at, f"expected a number that a computer can hold, found {_quote(piece)}")


def _quote(name: object) -> str:
    shown = str(name)
    if secrets.looks_secret(shown):
        return f'"{secrets.MASK}"'
    return json.dumps(shown if len(shown) <= 60 else shown[:57] + "...", ensure_ascii=True)


def _quote_hint(piece: str) -> str:
    if set(piece) & set("\u201c\u201d\u201e\u201f\u2018\u2019\u00ab\u00bb"):
        return 'replace the curly quotes with straight ones: "'
    return "put it in quotes" if piece.isprintable() and piece[0].isalpha() else ""
