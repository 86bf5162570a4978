"""What the scans of an earlier life said of entries, so that a start with many folders need not read what has not changed.

Only entries without anything odd are kept: whole models, no problems, no links, nothing that changed a moment ago. One is believed where every name, mode, inode, size and time below it is the same;
whatever else a scan depends on is part of the file's digest. The file may be deleted at any time. Blocks for disk I/O; belongs to one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import structlog

import jand
from jand import atomic
from jand.library.documents import Reading
from jand.library.findings import LOOSE, Binary, EntryScan, Found, Role, Stamp
from jand.model import packed
from jand.model.gguf import Header
from jand.model.parameters import Init, Parameters, Runtime
from jand.model.spec import Metadata, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jand.library.findings import Tree
    from jand.library.headers import HeaderCache
    from jand.library.stamps import EntryStamp

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 64 << 20

_FORMAT: Final = "jand-entries-1"
_ROLES: Final = {role.value: role for role in Role}


class Memory:
    """Keeps its file beside that of *headers*, which has the headers themselves; nowhere where those are kept nowhere."""

    def __init__(self, headers: HeaderCache) -> None:
        self._headers = headers
        self._path = None if headers.path is None else headers.path.with_name("entries")
        self._rows: dict[str, str] | None = None
        self._known: frozenset[str] = frozenset()
        self._saving = threading.Lock()

    def recall(self, tree: Tree, entry: str, stamp: EntryStamp | None) -> EntryScan | None:
        """Return what a scan of *entry*, which has *stamp* now, would say; None where it has to be scanned."""
        if self._rows is None:
            self._rows = self._load()
            self._known = frozenset(self._rows)
        if stamp is None or not stamp.lasting or (row := self._rows.pop(stamp.lasting, None)) is None:
            return None
        try:
            scan = _unpack(tree, entry, json.loads(row), self._headers)
        except (ValueError, TypeError, LookupError):
            return None
        if scan is not None:
            self._teach(scan)
        return scan

    def save(self, scans: Iterable[tuple[EntryScan, EntryStamp | None]]) -> None:
        """Keep what *scans* say, all that there are after the first look at everything, atomically; a disk that takes no writes costs the memory, never the caller."""
        if self._path is None:
            return
        with self._saving:
            self._rows = {}
            kept = [
                (stamp.lasting, scan)
                for scan, stamp in scans
                if stamp is not None and stamp.lasting and _is_plain(scan)
            ]
            digests = frozenset(digest for digest, _ in kept)
            if digests == self._known:
                return
            rows = [(digest, _pack(scan, self._headers)) for digest, scan in kept]
            body = "\n".join(f"{digest}\t{row}" for digest, row in rows if row is not None).encode()
            if len(body) > MAX_BYTES:
                return
            try:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                atomic.write(self._path, _head(body) + b"\n" + body, replace=True, mode=0o600)
            except OSError as error:
                log.warning("entries not written", path=str(self._path), reason=error.strerror)
            else:
                self._known = digests

    def _teach(self, scan: EntryScan) -> None:
        """Let later scans know what this one would have left behind."""
        good = {
            found.path: Reading(found.path, found.stamp, found.spec, generated=found.generated) for found in scan.models
        }
        self._headers.good[scan.tree.label, scan.entry] = good
        for reading in good.values():
            self._headers.documents.keep(reading.stamp, reading)

    def _load(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            if self._path.stat().st_size <= 2 * MAX_BYTES:
                head, _, body = self._path.read_bytes().partition(b"\n")
                if head == _head(body):
                    return dict(row.split("\t", 1) for row in body.decode().split("\n") if row)
            log.info("entries ignored", path=str(self._path), reason="damaged, or written by another release")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("entries ignored", path=str(self._path), reason=str(error))
        return {}


def _is_plain(scan: EntryScan) -> bool:
    """Whether everything that *scan* says follows from what lies in the entry, and goes on being true while that lies there."""
    odd = scan.entry == LOOSE or scan.offline or scan.problems or scan.bare or scan.recheck_after_s is not None
    return not odd and bool(scan.models) and all(found.whole and not found.spec.secrets() for found in scan.models)


def _pack(scan: EntryScan, headers: HeaderCache) -> str | None:
    """Write *scan* as text; None where it would not come back as it is."""
    label = f"{scan.tree.label}/{scan.entry}"
    models: list[Any] = []
    for found in scan.models:
        binaries = [[binary.name, str(binary.role), _numbers(binary.stamp)] for binary in found.binaries]
        folder = found.folder.removeprefix(label)
        models.append(
            [folder, found.file.name, _numbers(found.stamp), packed.pack(found.spec), found.generated, binaries]
        )
    row = json.dumps(models, separators=(",", ":"))
    try:
        same = _unpack(scan.tree, scan.entry, json.loads(row), headers) == scan
    except (ValueError, TypeError, LookupError):
        return None
    return row if same else None


def _numbers(stamp: Stamp | None) -> tuple[int, ...] | None:
    if stamp is None:
        return None
    return stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns


def _unpack(tree: Tree, entry: str, models: list[Any], headers: HeaderCache) -> EntryScan | None:
    """Make the scan again; None where a header is not known any more."""
    label, root = f"{tree.label}/{entry}", f"{tree.path}/{entry}"
    found = []
    for below, name, numbers, spec, generated, files in models:
        folder, place = label + below, root + below
        binaries = []
        for each, role, at in files:
            stamp = Stamp(*at)
            header = headers.recall(stamp)
            if not isinstance(header, Header):
                return None
            binaries.append(
                Binary(
                    each,
                    f"{place}/{each}",
                    _ROLES[role],
                    stamp.size,
                    header.size_needed,
                    whole=True,
                    owned=tree.writable,
                    stamp=stamp,
                    header=header,
                )
            )
        found.append(
            Found(
                f"{folder}/{name}",
                folder,
                place,
                packed.unpack(spec),
                Stamp(*numbers),
                tuple(binaries),
                generated=generated,
                name=name,
            )
        )
    return EntryScan(tree, entry, models=tuple(found))


def _head(body: bytes) -> bytes:
    """Return the first line, which tells whether the file is whole, and of this release and user."""
    names = [[*part.model_fields] for part in (Spec, Parameters, Init, Runtime, Metadata)]
    kinds = [[each.name for each in fields(kind)] for kind in (Found, Binary, Header)]
    digest = hashlib.blake2b(repr((names, kinds, os.geteuid(), jand.__version__)).encode() + body, digest_size=16)
    return f"{_FORMAT} {digest.hexdigest()}".encode()
