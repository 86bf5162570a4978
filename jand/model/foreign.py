"""What a file is that should be a GGUF and is none, told by its first bytes, in words for the person who put it there.

Downloads that went wrong look alike in a folder: a login page, a Git LFS pointer, a proxy's error text, an archive that nobody unpacked. Each has its own cure.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from jand.errors import GgufError, IncompleteGgufError, LegacyGgmlError

HEAD_BYTES: Final = 4096
"""How much of a file's beginning `explain` looks at."""

_GET_GGUF: Final = "get a GGUF version of this model, or convert it with llama.cpp's convert_hf_to_gguf.py"
_GET_FILE: Final = "download the model file itself again (on a hub: the download link, not the page that shows it)"
_UNPACK: Final = "unpack it and put the model file that it holds into the folder"
_REMOVE: Final = "remove it from the models folder, or put the right file in its place"


class _Signature(NamedTuple):
    start: bytes
    what: str
    hint: str


_SIGNATURES: Final = (
    _Signature(b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    _Signature(b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    _Signature(b"\x1f\x8b", "a gzip archive", _UNPACK),
    _Signature(b"BZh91AY&SY", "a bzip2 archive", _UNPACK),
    _Signature(b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    _Signature(b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    _Signature(b"\x89HDF\r\n\x1a\n", "a Keras model (HDF5)", _GET_GGUF),
    _Signature(b"\x93NUMPY", "a NumPy array", _GET_GGUF),
    _Signature(b"\x89PNG", "a picture (PNG)", _REMOVE),
    _Signature(b"\xff\xd8\xff", "a picture (JPEG)", _REMOVE),
    _Signature(b"%PDF", "a PDF document", _REMOVE),
    _Signature(b"\x7fELF", "a program (ELF)", _REMOVE),
    _Signature(b"\xcf\xfa\xed\xfe", "a program (Mach-O)", _REMOVE),
    _Signature(b"nsgg", "a saved session of llama.cpp, not a model", _REMOVE),
    _Signature(b"qsgg", "a saved state of llama.cpp, not a model", _REMOVE),
)

# The magic numbers are 32-bit words, which little-endian machines wrote back to front.
_LEGACY: Final = {
    b"lmgg": "GGML",
    b"fmgg": "GGMF",
    b"tjgg": "GGJT",
    b"algg": "GGLA (LoRA)",
    b"ggml": "GGML",
    b"ggmf": "GGMF",
    b"ggjt": "GGJT",
    b"ggla": "GGLA (LoRA)",
}

_LFS = b"version https://git-lfs"
_LFS_SIZE = re.compile(rb"^size ([0-9]{1,18})$", re.MULTILINE)
_WEB = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")


def explain(head: bytes, size: int, label: str) -> GgufError:
    """Make the error for a file of *size* bytes whose first ones, *head*, are not those of a GGUF; *label* is how the message calls it."""
    if not head.strip(b"\x00"):
        return _unwritten(head, size, label)
    if (legacy := _LEGACY.get(head[:4])) is not None:
        return LegacyGgmlError(
            f"cannot use {label}: it is of the old {legacy} format, which llama.cpp has not read since August 2023",
            hint=_GET_GGUF,
        )
    what, hint = _recognise(head)
    return GgufError(f"cannot use {label}: it is {what}", hint=hint)


def _unwritten(head: bytes, size: int, label: str) -> IncompleteGgufError:
    # A file of zeros was laid out by a download or a copy that has not come to its beginning yet, or never will.
    what = "it holds nothing but zeros so far" if head else "it is empty" if size == 0 else "nothing of it can be read"
    return IncompleteGgufError(
        f"cannot use {label}: {what}",
        hint="if nothing is writing to it any more, copy or download it again",
    )


def _recognise(head: bytes) -> tuple[str, str]:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(_LFS):
        return _pointer(head)
    if text[:16].lower().startswith(_WEB):
        return "a web page (a login or error page, perhaps), not a model", _GET_FILE
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ("a PyTorch model", _GET_GGUF) if b"data.pkl" in head[:512] else ("a zip archive", _UNPACK)
    if head[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle (an old PyTorch model)", _GET_GGUF
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100 << 20:
        return "a safetensors model", _GET_GGUF
    for signature in _SIGNATURES:
        if head.startswith(signature.start):
            return signature.what, signature.hint
    return (
        _recognise_text(text)
        if _is_text(head)
        else (f"no GGUF (it begins with the bytes {head[:4].hex(' ')})", _REMOVE)
    )


def _pointer(head: bytes) -> tuple[str, str]:
    match = _LFS_SIZE.search(head)
    of = f" to a file of {int(match[1]):,} bytes" if match else ""
    return (
        f"a Git LFS pointer{of}, not the file itself",
        'run "git lfs pull" where it was cloned, or download the model file itself',
    )


def _recognise_text(text: bytes) -> tuple[str, str]:
    if text.startswith((b"{", b"[")):
        return "JSON text (the error message of a server, perhaps), not a model", _GET_FILE
    if text.startswith(b"<"):
        return "XML text (the error message of a server, perhaps), not a model", _GET_FILE
    return "plain text (the error message of a server, perhaps), not a model", _GET_FILE


def _is_text(head: bytes) -> bool:
    """UTF-8 without control characters but those of a text; a character cut in two at the end does not count against it."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return bool(text) and all(character.isprintable() or character in "\t\r\n\f" for character in text)
