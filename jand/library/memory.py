"""What the scans of an earlier life said of entries, so that a start with many folders need not read what has not changed.

Only entries without anything odd are kept: whole models, no problems, no links, nothing that changed a moment ago. One is believed where every name, mode, inode, size and time below it is the same;
whatever else a scan depends on is part of the file's digest. The file may be deleted at any time. Blocks for disk I/O; belongs to one thread at a time.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import sys
import threading
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

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
    from collections.abc import Iterable, Sequence

    from jand.library.findings import Tree
    from jand.library.headers import HeaderCache
    from jand.library.stamps import EntryStamp

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 64 << 20

_FORMAT: Final = "jand-entries-2"
_ROLES: Final = {role.value: role for role in Role}
_FIELDS: Final = tuple(each.name for each in fields(Header))

_facts_of: Final = attrgetter(*_FIELDS)

_Row: TypeAlias = "Sequence[Any]"
"""One entry: for each model the folder below the entry, the JSON's name, its stamp, its spec, whether jand wrote it, and its binaries."""


class Memory:
    """Keeps its file beside that of *headers*; nowhere where those are kept nowhere."""

    def __init__(self, headers: HeaderCache) -> None:
        self._headers = headers
        headers.teach = self._teach
        self._path = None if headers.path is None else headers.path.with_name("entries")
        self._rows: dict[bytes, _Row] | None = None
        self._facts: list[Header] = []
        self._known: frozenset[bytes] = frozenset()
        self._saving = threading.Lock()

    def recall(self, tree: Tree, entry: str, stamp: EntryStamp | None) -> EntryScan | None:
        """Return what a scan of *entry*, which has *stamp* now, would say; None where it has to be scanned."""
        if self._rows is None:
            self._facts, self._rows = self._load()
            self._known = frozenset(self._rows)
        if stamp is None or not stamp.lasting or (row := self._rows.pop(stamp.lasting, None)) is None:
            return None
        try:
            scan = _unpack(tree, entry, row, self._facts)
        except (ValueError, TypeError, LookupError):
            return None
        self._headers.lessons[tree.label, entry] = scan
        return scan

    def save(self, scans: Iterable[tuple[EntryScan, EntryStamp | None]]) -> None:
        """Keep what *scans* say, all that there are after the first look at everything, atomically; a disk that takes no writes costs the memory, never the caller."""
        if self._path is None:
            return
        with self._saving:
            self._rows, self._facts = {}, []
            kept = [
                (stamp.lasting, scan)
                for scan, stamp in scans
                if stamp is not None and stamp.lasting and (stamp.lasting in self._known or _is_plain(scan))
            ]
            digests = frozenset(digest for digest, _ in kept)
            if digests == self._known:
                return
            facts = _Facts()
            rows = {digest: row for digest, scan in kept if (row := _pack(scan, facts)) is not None}
            body = marshal.dumps(([_facts_of(header) for header in facts.headers], rows))
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
        headers = self._headers
        good = {
            found.path: Reading(found.path, found.stamp, found.spec, generated=found.generated) for found in scan.models
        }
        headers.good[scan.tree.label, scan.entry] = good
        for reading in good.values():
            headers.documents.keep(reading.stamp, reading)
        for found in scan.models:
            for binary in found.binaries:
                if binary.stamp is not None and binary.header is not None:
                    # Whoever began to write since has not written yet, or the stamp would be another.
                    headers.keep(binary.stamp, binary.header, quiet=True)

    def _load(self) -> tuple[list[Header], dict[bytes, _Row]]:
        """Read the file. Its digest is looked at first: what `marshal` reads must be what it wrote."""
        if self._path is None:
            return [], {}
        try:
            if self._path.stat().st_size <= 2 * MAX_BYTES:
                head, _, body = self._path.read_bytes().partition(b"\n")
                if head == _head(body):
                    facts, rows = marshal.loads(body)  # noqa: S302
                    return [Header(**dict(zip(_FIELDS, each, strict=True))) for each in facts], rows
            log.info("entries ignored", path=str(self._path), reason="damaged, or written by another release")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, EOFError) as error:
            log.warning("entries ignored", path=str(self._path), reason=str(error))
        return [], {}


def _is_plain(scan: EntryScan) -> bool:
    """Whether everything that *scan* says follows from what lies in the entry, and goes on being true while that lies there."""
    odd = scan.entry == LOOSE or scan.offline or scan.problems or scan.bare or scan.recheck_after_s is not None
    return not odd and bool(scan.models) and all(found.whole and not found.spec.secrets() for found in scan.models)


def _pack(scan: EntryScan, facts: _Facts) -> _Row | None:
    """Write *scan* as plain values, and its headers among *facts*; None where it would not come back as it is."""
    label = f"{scan.tree.label}/{scan.entry}"
    models = []
    try:
        for found in scan.models:
            binaries = [
                (binary.name, str(binary.role), _numbers(binary.stamp), facts.number(binary.header))
                for binary in found.binaries
            ]
            spec = json.loads(json.dumps(packed.pack(found.spec)))
            folder = found.folder.removeprefix(label)
            models.append((folder, found.file.name, _numbers(found.stamp), spec, found.generated, binaries))
        same = _unpack(scan.tree, scan.entry, models, facts.headers) == scan
    except (ValueError, TypeError, LookupError):
        return None
    return models if same else None


class _Facts:
    """Headers, each once: copies and parts of one model say the same."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self._numbers: dict[Header, int] = {}

    def number(self, header: Header | None) -> int:
        """Return the place of *header*; ValueError for none."""
        if header is None:
            raise ValueError("no header")
        number = self._numbers.setdefault(header, len(self.headers))
        if number == len(self.headers):
            self.headers.append(header)
        return number


def _numbers(stamp: Stamp | None) -> tuple[int, ...] | None:
    if stamp is None:
        return None
    return stamp.device, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns


def _unpack(tree: Tree, entry: str, models: _Row, headers: Sequence[Header]) -> EntryScan:
    """Make the scan again."""
    label, root = f"{tree.label}/{entry}", f"{tree.path}/{entry}"
    found = []
    for below, name, numbers, spec, generated, files in models:
        folder, place = label + below, root + below
        binaries = []
        for each, role, at, number in files:
            stamp, header = Stamp(*at), headers[number]
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
    circumstances = repr((names, kinds, os.geteuid(), jand.__version__, sys.version_info))
    digest = hashlib.blake2b(circumstances.encode(), digest_size=16)
    digest.update(body)
    return f"{_FORMAT} {digest.hexdigest()}".encode()
