"""The file in which headers outlive the daemon: compact text, checked as a whole, read row by row as rows are asked for.

First line: format and digest. Second line: the long texts (chat templates repeat from model to model). Then a row for each header: the stamp of its file, a tab, the values. The fields and the
release are part of the digest, so a file of another jand counts as none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import structlog

import jand
from jand.model.gguf import Header

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jand.library.findings import Stamp

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 64 << 20

_FORMAT: Final = "jand-headers-1"
_FIELDS: Final = tuple(each.name for each in dataclasses.fields(Header))
_PLAIN: Final = frozenset({int, str, bool, type(None)})
_LONG_TEXT: Final = 64


class StoredHeaders:
    """What a file held when it was read; each header is taken out once."""

    def __init__(self, texts: list[str], rows: dict[str, str]) -> None:
        self._texts = texts
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, stamp: Stamp) -> tuple[Header, bool] | None:
        """Return the header of exactly *stamp*, and whether nobody was writing to the file then."""
        row = self._rows.pop(_key(stamp), None) if self._rows else None
        return None if row is None else self._unpack(row)

    def rest(self) -> list[tuple[str, Header, bool]]:
        """Return what nobody has asked for, by its key."""
        unpacked = [(key, self._unpack(row)) for key, row in self._rows.items()]
        return [(key, *found) for key, found in unpacked if found is not None]

    def _unpack(self, row: str) -> tuple[Header, bool] | None:
        try:
            quiet, *packed = json.loads(row)
            values = [value if value.__class__ in _PLAIN else self._whole(value) for value in packed]
            return Header(**dict(zip(_FIELDS, values, strict=True))), bool(quiet)
        except (ValueError, TypeError, LookupError):
            return None

    def _whole(self, value: Any) -> Any:
        return self._texts[value["text"]] if isinstance(value, dict) else tuple(value)


def load(path: Path) -> StoredHeaders:
    """Read the file at *path*; a missing, damaged or foreign one holds nothing."""
    try:
        if path.stat().st_size <= MAX_BYTES:
            head, _, body = path.read_bytes().partition(b"\n")
            if head == _head(body):
                texts, *rows = body.decode().split("\n")
                return StoredHeaders(json.loads(texts), dict(row.split("\t", 1) for row in rows if row))
        log.info("header cache ignored", path=str(path), reason="it is damaged, or another release wrote it")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        log.warning("header cache ignored", path=str(path), reason=str(error))
    return StoredHeaders([], {})


def dump(known: Iterable[tuple[Stamp, Header, bool]], before: StoredHeaders, *, limit: int) -> bytes:
    """Return the file for *known*, the most important first, and for what is left of *before*, as far as it fits."""
    texts: dict[str, int] = {}
    rows: dict[str, str] = {}
    budget = MAX_BYTES // 2
    fresh = ((_key(stamp), header, quiet) for stamp, header, quiet in known)
    for key, header, quiet in chain(fresh, before.rest()):
        texts_before = len(texts)
        row = _pack(header, texts, quiet=quiet)
        budget -= len(row) + sum(map(len, islice(reversed(texts), len(texts) - texts_before)))
        if budget < 0 or len(rows) >= limit:
            break
        rows.setdefault(key, row)
    body = "\n".join([json.dumps(list(texts)), *(f"{key}\t{row}" for key, row in rows.items())]).encode()
    return _head(body) + b"\n" + body


def _key(stamp: Stamp) -> str:
    return f"{stamp.device} {stamp.inode} {stamp.size} {stamp.mtime_ns} {stamp.ctime_ns}"


def _pack(header: Header, texts: dict[str, int], *, quiet: bool) -> str:
    values: list[Any] = [quiet]
    for name in _FIELDS:
        value = getattr(header, name)
        if isinstance(value, str) and len(value) > _LONG_TEXT:
            value = {"text": texts.setdefault(value, len(texts))}
        values.append(value)
    return json.dumps(values, separators=(",", ":"))


def _head(body: bytes) -> bytes:
    digest = hashlib.blake2b(repr((_FIELDS, jand.__version__)).encode() + body, digest_size=16)
    return f"{_FORMAT} {digest.hexdigest()}".encode()
