"""Server-sent events as bytes: how one is framed, and where a buffer of them may be cut."""

from __future__ import annotations

from typing import Final

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
COMMENT: Final = b":\n\n"
ENDS: Final = (b"\n\n", b"\r\n\r\n")


def frame(data: bytes, *, kind: str = "", event_id: int | None = None) -> bytes:
    """Return one event. *data* must be a single line, as JSON without indentation is."""
    number = b"" if event_id is None else b"id: %d\n" % event_id
    name = f"event: {kind}\n".encode() if kind else b""
    return b"%s%sdata: %s\n\n" % (number, name, data)


def split_whole(buffer: bytes) -> tuple[bytes, bytes]:
    """Return the whole events at the beginning of *buffer*, and the incomplete rest."""
    cut = max(at + len(end) if (at := buffer.rfind(end)) >= 0 else 0 for end in ENDS)
    return buffer[:cut], buffer[cut:]
