"""The plain entry: a folder with one JSON and its one whole binary, nothing odd about it. Nearly all entries are such, and a start with many spends its time on them.

What is said here is what `scan` would say by the rules for everything that can lie in an entry; at the first sign of anything else it is left to those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.library import documents, verdict
from jand.library.findings import Binary, EntryScan, Found, Role
from jand.library.headers import make_stamp
from jand.model import identity, quantisation
from jand.model.filenames import CONTROL_ENDING, Kind, binary_stem, json_stem, kind

if TYPE_CHECKING:
    import os

    from jand.library.documents import Reading
    from jand.library.findings import Tree
    from jand.library.headers import HeaderCache
    from jand.library.stamps import Listings


def scan_plain(tree: Tree, entry: str, headers: HeaderCache, *, now: float, listings: Listings) -> EntryScan | None:
    """Say what *entry*, whose folders *listings* has, holds; None where that is for `scan` to say."""
    place, shown = f"{tree.path}/{entry}", f"{tree.label}/{entry}"
    items = listings.get(place)
    if items is None or len(listings) > 1 or (files := _pick(items)) is None or _is_odd(entry):
        return None
    json, weights = files
    path = f"{shown}/{json.name}"
    try:
        json_stamp, stamp = make_stamp(json.stat()), make_stamp(weights.stat())
    except OSError:
        return None
    good = headers.good.get((tree.label, entry), {}).get(path)
    sight = documents.look(json.path, path, json_stamp, headers, good=good, now=now)
    reading = sight.reading
    if sight.arriving or reading is None or not _names_nothing(reading):
        return None
    found = verdict.judge(weights.path, stamp, headers, now=now)
    header = found.header
    if header is None or not found.whole or header.is_projector or header.is_adapter or header.split_count > 1:
        return None
    assert reading.spec is not None
    headers.good[tree.label, entry] = {path: reading}
    binary = Binary(
        weights.name,
        weights.path,
        Role.WEIGHTS,
        0 if found.stamp is None else found.stamp.size,
        header.size_needed,
        whole=True,
        owned=tree.writable,
        stamp=found.stamp,
        header=header,
    )
    model = Found(
        path, shown, place, reading.spec, reading.stamp, (binary,), generated=reading.generated, name=json.name
    )
    return EntryScan(tree, entry, models=(model,))


def _pick(items: list[os.DirEntry[str]]) -> tuple[os.DirEntry[str], os.DirEntry[str]] | None:
    """Return the one JSON and the one binary among *items*; None where there are others, or what could be one."""
    json = weights = None
    for item in items:
        name = item.name
        promised = kind(name)
        if promised is Kind.JSON and json is None:
            json = item
        elif promised is Kind.BINARY and weights is None:
            weights = item
        elif promised is not Kind.OTHER or name.endswith(CONTROL_ENDING):
            return None
    if json is None or weights is None or _is_odd(json.name) or _is_odd(weights.name):
        return None
    if not (json.is_file(follow_symlinks=False) and weights.is_file(follow_symlinks=False)):
        return None
    if quantisation.split_part(weights.name) is not None:
        return None
    if json_stem(json.name) != binary_stem(weights.name) and identity.is_side_file(weights.name):
        return None
    return json, weights


def _is_odd(name: str) -> bool:
    """Whether *name* may be shown to people in another way than it is."""
    return not name.isascii() or "\\" in name


def _names_nothing(reading: Reading) -> bool:
    """Whether it is a model without a word about its files."""
    spec = reading.spec
    if spec is None or reading.problems or spec.is_remote or spec.download_url or spec.metadata.mmproj:
        return False
    return not spec.parameters.init.lora
