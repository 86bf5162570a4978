"""Reading an answer as it comes: what the model thinks, what it says, and the tools it calls, told apart in the text. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from jand.engine.worker.tools import MARKS, Family

THINK: Final = ("<think>", "</think>")
_NAMED_ARGUMENTS: Final = re.compile(r"\s*([A-Za-z0-9_.-]{1,64})(?:\[CALL_ID\][A-Za-z0-9_-]*)?\[ARGS\]")


@dataclass(frozen=True, slots=True)
class Said:
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """*arguments* is JSON text."""

    name: str
    arguments: str


Piece = Said | Thought | Called


class Reader:
    """Reads one answer. *thinking* is true where the prompt has opened the model's thoughts already; without *family* calls are text like any other."""

    def __init__(self, *, family: Family | None = None, separate_thoughts: bool = True, thinking: bool = False) -> None:
        self._family = family
        self._may_think = separate_thoughts
        self._thinking = thinking and separate_thoughts
        self._held = ""
        self._began = False
        self._thought = False
        self._spoke = False
        self.called = False

    @property
    def passes_on(self) -> bool:
        """Whether all that comes is said as it is, from now to the end."""
        return self._family is None and self._began and not self._thinking and not self._held

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        return self._read(last=False)

    def end(self) -> list[Piece]:
        """Return what was held back; the answer is over."""
        pieces = self._read(last=True)
        if self._held:
            pieces += self._rest(self._held)
            self._held = ""
        return pieces

    def _read(self, *, last: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while True:
            before = self._held
            pieces += self._once(last=last)
            if self._held == before:
                return [piece for piece in pieces if not isinstance(piece, Said | Thought) or piece.text]

    def _once(self, *, last: bool) -> list[Piece]:
        if self._thinking:
            return self._think(last=last)
        if not self._began:
            stripped = self._held.lstrip()
            if not stripped or (self._may_think and not last and THINK[0].startswith(stripped)):
                return []
            if self._may_think and stripped.startswith(THINK[0]):
                self._held = stripped[len(THINK[0]) :].lstrip("\n")
                self._thinking = True
                return []
            if self._thought:
                self._held = self._held.lstrip("\n")
            self._began = True
        return self._say(last=last)

    def _think(self, *, last: bool) -> list[Piece]:
        thought, mark, rest = self._held.partition(THINK[1])
        if mark:
            self._held, self._thinking, self._may_think, self._thought = rest, False, False, True
            return [Thought(thought.rstrip("\n"))]
        shown = thought if last else thought[: len(thought) - _beginning(thought, THINK[1])].rstrip("\n")
        self._held = thought[len(shown) :]
        return [Thought(shown)]

    def _say(self, *, last: bool) -> list[Piece]:
        if self._family is None:
            text, self._held = self._held, ""
            return [Said(text)]
        begin, end = MARKS[self._family]
        if self._family is Family.LLAMA and not self.called and self._held.lstrip().startswith("{"):
            return []  # a bare object: a call, or else text after all, which its end shows
        before, mark, after = self._held.partition(begin)
        if not mark:
            keep = 0 if last else _beginning(self._held, begin)
            text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            return [self._said(text)]
        if not end:
            self._held = mark + after
            return [self._said(before)]
        inside, closed, rest = after.partition(end)
        if not closed:
            self._held = mark + after
            return [self._said(before)]
        self._held = rest
        return [self._said(before), *self._calls(inside, mark + inside + closed)]

    def _said(self, text: str) -> Said:
        """Return *text*, without the space that only stands around calls."""
        if not text.strip() and (self.called or not self._spoke):
            return Said("")
        self._spoke = True
        return Said(text)

    def _rest(self, text: str) -> list[Piece]:
        """Read what no mark has closed: the end of the answer closes it."""
        if self._thinking:
            return [Thought(text)]
        if self._family is None:
            return [Said(text)]
        inside = text.strip().removeprefix(MARKS[self._family][0])
        return self._calls(inside, text)

    def _calls(self, inside: str, whole: str) -> list[Piece]:
        """Return the calls written in *inside*, or *whole* as text where there are none."""
        found = parse_calls(inside)
        if not found:
            return [Said(whole)]
        self.called = True
        return list(found)


def parse_calls(text: str) -> list[Called]:
    """Read calls in any of the families' forms; empty where *text* is something else."""
    if match := _NAMED_ARGUMENTS.match(text):
        return _named_arguments(text, match)
    decoder, found, at = json.JSONDecoder(), list[Called](), 0
    while at < len(text):
        while at < len(text) and text[at] in " \n\r\t;,":
            at += 1
        if at == len(text):
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        for item in value if isinstance(value, list) else [value]:
            if (call := _call(item)) is None:
                return []
            found.append(call)
    return found


def _named_arguments(text: str, match: re.Match[str]) -> list[Called]:
    """Read Mistral's newer form: a name, `[ARGS]`, an object."""
    try:
        value, _ = json.JSONDecoder().raw_decode(text, match.end())
    except (ValueError, RecursionError):
        return []
    return [Called(match[1], json.dumps(value, ensure_ascii=False))] if isinstance(value, dict) else []


def _call(value: Any) -> Called | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    function: dict[str, Any] = inner if isinstance(inner, dict) else value
    name = function.get("name")
    arguments = function.get("arguments", function.get("parameters"))
    if not isinstance(name, str) or not name or not isinstance(arguments, dict | str):
        return None
    return Called(name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _beginning(text: str, mark: str) -> int:
    """Count the characters at the end of *text* with which *mark* may begin."""
    for count in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-count:]):
            return count
    return 0
