"""Which names from a JSON, a hub or a URL may become files inside a model's folder.

The rules are those of every system at once, so that a janroot can move between them. Pure; where a file really lands (links, mounts) is checked again by `place`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PureWindowsPath
from typing import Final
from urllib.parse import quote

from jand.errors import BadFileNameError

PARTIAL_FOLDER: Final = ".jand-part"
PARTIAL_ENDING: Final = ".part"
NOTES_ENDING: Final = ".part.json"

LONGEST_SEGMENT: Final = 255
DEEPEST: Final = 16

# Windows' devices keep their meaning with any ending ("NUL.gguf").
_DEVICES = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?", re.IGNORECASE | re.DOTALL
)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')


def checked_name(name: str) -> str:
    """Return *name*, a relative POSIX path, where every system accepts it and it stays in its folder; raise BadFileNameError else."""
    cause = _objection(name)
    if cause:
        message = f"cannot use {name[:200]!r} as the name of a file: {cause}"
        raise BadFileNameError(
            message, hint="name a file of the repository, such as folder/model.gguf", param="download_url"
        )
    return name


def is_safe_name(name: str) -> bool:
    return not _objection(name)


def _objection(name: str) -> str:
    windows = PureWindowsPath(name)
    if not name or name != name.strip("/"):
        return "it is empty or begins or ends with a slash"
    if windows.drive or windows.root:
        return "it is absolute"
    segments = name.split("/")
    if len(segments) > DEEPEST:
        return "it lies too deep"
    return next((cause for segment in segments if (cause := _segment_objection(segment))), "")


def _segment_objection(segment: str) -> str:
    if segment in {"", ".", ".."}:
        return "it has an empty part, or one of dots"
    if segment.startswith("."):
        return "a part of it is hidden"
    if _FORBIDDEN.search(segment):
        return "it has a character that not every system accepts"
    if segment != segment.rstrip(". "):
        return "a part of it ends with a dot or a space"
    if _DEVICES.fullmatch(segment):
        return "a part of it is the name of a device"
    if len(segment.encode(errors="surrogatepass")) > LONGEST_SEGMENT:
        return "a part of it is too long"
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in segment):
        return "it is no text"
    return ""


def partial_stem(name: str) -> str:
    """Return what the partial of *name* is called without its ending: flat, readable, one for each name."""
    flat = quote(name, safe=" ()[]+,=@~!")
    longest = LONGEST_SEGMENT - len(NOTES_ENDING)
    if len(flat) <= longest:
        return flat
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{flat[: longest - 17]}~{digest}"
