"""How an answer is shown while it comes: as it is in a pipe, drawn as Markdown on a terminal. Nothing of it that a terminal would obey gets there.

What is complete (blocks before the last empty line that is not within a fence of code) is printed once and for all, and only the rest is drawn over itself; a long answer so scrolls
like any text, and each piece costs as much as its last block.
"""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, Final, Protocol

from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

OBEYED: Final = frozenset({"Cc", "Cs"})
"""Categories of characters that a terminal obeys, or that are none."""

FENCES: Final = ("```", "~~~")
FRAMES_PER_SECOND: Final = 10


class Voice(Protocol):
    def think(self, text: str) -> None:
        """Take a piece of what the model reasons before it answers."""

    def say(self, text: str) -> None:
        """Take a piece of the answer."""


def harmless(text: str) -> str:
    """Keep the lines of *text*, but nothing that a terminal would obey."""
    return "".join(
        printable(char) if unicodedata.category(char) in OBEYED and char not in "\n\t" else char for char in text
    )


@contextlib.contextmanager
def speaking(*, streams: bool) -> Iterator[Voice]:
    """Show what comes until the end of the block; without *streams* all of it then."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in {None, "", "dumb"}:
        plain = _Plain(streams=streams)
        try:
            yield plain
        except GeneratorExit:
            raise
        except BaseException:
            plain.end(broken=True)
            raise
        plain.end()
        return
    with _drawing(streams=streams) as drawn:
        yield drawn


class _Plain:
    def __init__(self, *, streams: bool) -> None:
        self._streams = streams
        self._text = ""

    def think(self, text: str) -> None:
        """In a pipe the answer alone is wanted."""

    def say(self, text: str) -> None:
        self._text += text
        if self._streams:
            self._write(text)

    def end(self, *, broken: bool = False) -> None:
        if broken:
            if self._text and self._streams:
                self._write("\n")
            return
        rest = "" if self._streams else self._text
        self._write(rest + ("" if self._text.endswith("\n") else "\n"))

    def _write(self, text: str) -> None:
        sys.stdout.write(harmless(text))
        sys.stdout.flush()


@contextlib.contextmanager
def _drawing(*, streams: bool) -> Iterator[Voice]:
    from rich.console import Console  # noqa: PLC0415 - 60 ms that only a terminal has to wait for
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(
        console=Console(), refresh_per_second=FRAMES_PER_SECOND, vertical_overflow="visible", transient=True
    ) as live:
        voice = _Drawn(live, streams=streams)
        try:
            yield voice
        finally:
            voice.end()


class _Drawn:
    """*live* draws the last block over itself; what is before it was printed."""

    def __init__(self, live: Any, *, streams: bool) -> None:
        self._live = live
        self._streams = streams
        self._thoughts = ""
        self._rest = ""

    def think(self, text: str) -> None:
        self._thoughts += text
        if self._streams:
            self._live.update(_thought(self._thoughts[-2000:]))

    def say(self, text: str) -> None:
        self._end_thinking()
        self._rest += text
        if not self._streams:
            return
        whole, self._rest = split_blocks(self._rest)
        if whole:
            self._print(_markdown(whole))
        self._live.update(_markdown(self._rest))

    def end(self) -> None:
        self._end_thinking()
        if self._rest.strip():
            self._print(_markdown(self._rest))
        self._rest = ""

    def _end_thinking(self) -> None:
        if self._thoughts:
            self._print(_thought(self._thoughts))
            self._thoughts = ""

    def _print(self, drawn: Any) -> None:
        # What was drawn last has to be gone from the terminal before, or it stays above what is printed.
        self._live.update("", refresh=True)
        self._live.console.print(drawn)


def split_blocks(text: str) -> tuple[str, str]:
    """Cut Markdown at its last empty line that lies outside of fenced code; the first part is complete, whatever comes."""
    at, inside, position = 0, "", 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = line.lstrip()[:3]
        if mark in FENCES and inside in {"", mark}:
            inside = "" if inside else mark
        elif not line.strip() and line.endswith("\n") and not inside:
            at = position
    return text[:at], text[at:]


def _markdown(text: str) -> Any:
    from rich.markdown import Markdown  # noqa: PLC0415 - as above

    # A hyperlink shows one thing and opens another; without them the address stands beside its text.
    return Markdown(harmless(text), hyperlinks=False)


def _thought(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(harmless(text.strip()), style="dim italic")
