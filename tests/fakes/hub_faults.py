"""What a stand-in hub is asked to get wrong, and what it saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

Where = Literal["api", "hub", "cdn"]


@dataclass
class Fault:
    """What goes wrong with requests *at* one place whose path contains *path*: *skip* of them pass, then *times* meet it (None: all)."""

    at: Where = "cdn"
    path: str = ""
    times: int | None = 1
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    close: bool = False
    """Close the connection in place of an answer."""
    stall_headers: bool = False
    delay_s: float = 0.0
    """Answer so much later."""
    cut_after: int | None = None
    """End the connection after so many bytes of the body; *reset* makes it an RST."""
    reset: bool = False
    stall_after: int | None = None
    ignore_range: bool = False
    shift: int = 0
    """Serve, and announce in Content-Range, a range that begins so many bytes later than asked."""
    flip_at: int | None = None
    """Invert the byte at this offset of the file."""
    no_length: bool = False
    extra: bytes = b""
    """Follows the content, announced in the length."""
    wrong_total: int | None = None
    gzip: bool = False
    redirect: str | None = None
    drop: tuple[str, ...] = ()
    """Headers left out."""

    def meets(self, at: Where, path: str) -> bool:
        if self.at != at or self.path not in path or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Request:
    """One request as it came. *served* counts the bytes of the body that were handed to the socket."""

    at: Where
    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    served: int = 0

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def start(self) -> int:
        """The first byte asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return int(found[1]) if found else 0
