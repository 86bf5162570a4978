"""The record of a model, painted from its actor: pure, so that two looks at the same actor agree."""

from __future__ import annotations

import re
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from jand.library.findings import Role
from jand.model.problem import ErrorNote
from jand.model.record import FileProgress, FileRecord, Progress, PublicState, Record
from jand.model.state import public

if TYPE_CHECKING:
    from jand.library.findings import Binary, Found
    from jand.lifecycle.actor import Actor
    from jand.model.gguf import Header

ROOT_OFFLINE: Final = "root-offline"


_FACTS: Final = {
    "architecture": "architecture",
    "name": "name",
    "parameters": "parameters",
    "quantization": "quantization",
    "context_length": "context_length",
    "embedding_length": "embedding_length",
    "vocabulary": "vocab_size",
    "template": "has_template",
    "license": "license",
    "split_count": "split_count",
}
"""The facts of a header that are shown, by the words of the contract."""

_facts_of: Final = attrgetter(*_FACTS.values())


def paint(actor: Actor) -> Record:
    found = actor.found
    state, transition = public(actor.state)
    error = actor.error
    if actor.offline:
        error = ErrorNote(
            ROOT_OFFLINE, f'cannot see the folder of "{actor.id}": it is not there now', "mount the disk again"
        )
    return Record(
        id=actor.id,
        path=found.path,
        created=found.spec.created if found.spec.created is not None else found.stamp.mtime_ns // 1_000_000_000,
        owned_by=found.spec.owned_by or owner(found.spec.origin),
        state=state,
        spec=actor.spec_in_force,
        transition=transition,
        paused=actor.paused,
        restart_needed=actor.restart_needed,
        error=error,
        progress=progress(actor) if state is PublicState.DOWNLOADING else None,
        files=files(found, () if actor.whole else actor.wanted),
        details=details(actor),
        aliases=actor.aliases,
    )


def owner(origin: str) -> str:
    """Return the first part of *origin*: the user of `user/repo`, the host of a URL, without what may be secret in one."""
    _, is_url, rest = origin.rpartition("://")
    if not is_url:
        return origin.split("/", 1)[0]
    return re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]


def files(found: Found, wanted: tuple[FileRecord, ...] = ()) -> tuple[FileRecord, ...]:
    """Return what is there, and what is not: as far as it is *wanted* from somewhere with its size and digest."""
    there = [
        FileRecord(
            binary.name,
            binary.size if binary.present else binary.needed,
            present=binary.present,
            sha256=_find_digest(found, binary.name),
        )
        for binary in found.binaries
    ]
    known = {file.name for file in there}
    coming = [file for file in wanted if file.name not in known]
    known.update(file.name for file in coming)
    absent = [
        FileRecord(name, None, present=False, sha256=_find_digest(found, name))
        for name in found.missing
        if name not in known
    ]
    return (*there, *coming, *absent)


def _find_digest(found: Found, name: str) -> str | None:
    """Find what the JSON says *name* must hash to; a digest without a name is that of the only binary."""
    digests = found.spec.metadata.sha256
    if isinstance(digests, str):
        return digests if len(found.binaries) + len(found.missing) == 1 else None
    return (digests or {}).get(name)


def progress(actor: Actor) -> Progress | None:
    """How far a download has come, or what somebody copies in; what is paused has no speed."""
    found = actor.progress or arriving(actor.found)
    if found is None or not actor.paused:
        return found
    return replace(found, bytes_per_second=0.0, eta_seconds=None)


def arriving(found: Found) -> Progress | None:
    """How far the binaries that somebody copies in have come; None where there is nothing yet."""
    parts = [FileProgress(binary.name, binary.size, binary.needed) for binary in found.binaries if binary.present]
    if not parts:
        return None
    total = None
    if not found.missing and all(part.bytes_total is not None for part in parts):
        total = sum(part.bytes_total or 0 for part in parts)
    return Progress(sum(part.bytes_done for part in parts), total, files=tuple(parts))


def details(actor: Actor) -> dict[str, Any]:
    facts: dict[str, Any] = {name: value for name, value in actor.choice.items() if value}
    if reused := reused_from(actor):
        facts["reused_from"] = reused
    header = weights_header(actor.found.binaries)
    if header is not None:
        facts |= header_details(header)
    if any(binary.role is Role.PROJECTOR for binary in actor.found.binaries):
        facts["vision"] = True
    if actor.loaded is not None:
        facts["load_progress"] = round(actor.loaded, 3)
    if actor.running is not None:
        facts |= actor.running.details()
    return facts


def reused_from(actor: Actor) -> dict[str, str]:
    """Return where those binaries are from that jand linked, by name, as long as they are still the same files."""
    return {
        binary.name: str(taken.source)
        for binary in actor.found.binaries
        if (taken := actor.reused.get(binary.name)) is not None
        and binary.stamp is not None
        and (binary.stamp.inode, binary.stamp.size) == (taken.inode, taken.size)
    }


def weights_header(binaries: tuple[Binary, ...]) -> Header | None:
    return next((binary.header for binary in binaries if binary.role is Role.WEIGHTS and binary.header), None)


def header_details(header: Header) -> dict[str, Any]:
    """Return what the GGUF says of itself, in the words of the contract; unknown facts are left out."""
    return {name: value for name, value in zip(_FACTS, _facts_of(header), strict=True) if value is not None}
