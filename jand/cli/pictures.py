"""Pictures of this machine as parts of a message: a data address, so that the daemon needs to read no file of somebody else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from jand.cli import errors

if TYPE_CHECKING:
    from pathlib import Path

LARGEST: Final = 32 << 20
BEGINNINGS: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}
"""Kinds by their first bytes; which of them a model takes is for its engine to say."""


def picture_part(path: Path) -> dict[str, Any]:
    """Return the part of a message that holds the picture at *path*. Raises Failure where it is none."""
    path = path.expanduser()
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise errors.Failure(f"cannot read {path}: {cause}", hint="check the path", status=errors.NOT_FOUND) from error
    kind = next((kind for beginning, kind in BEGINNINGS.items() if data.startswith(beginning)), None)
    if kind is None:
        raise errors.Failure(f"cannot use {path}: it is no picture", hint="take a PNG or a JPEG", status=errors.DATA)
    if len(data) > LARGEST:
        raise errors.Failure(f"cannot use {path}: it is too large", hint="make it smaller", status=errors.DATA)
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}
