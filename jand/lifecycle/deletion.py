"""What a DELETE removes and what it leaves, decided first and then done.

The JSON goes first: were the daemon killed in between, a binary without a JSON is a bare GGUF that anybody can see and delete, while a JSON without its binary would begin to
fetch it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jand.errors import NotPossibleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from jand.library.findings import Found


@dataclass(frozen=True, slots=True)
class Kept:
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """*removed* and *kept* name files relative to the model's folder (or absolute, where they lie elsewhere)."""

    id: str
    removed: tuple[str, ...]
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    json: Path
    binaries: tuple[tuple[str, Path], ...]
    kept: tuple[Kept, ...]
    top: Path
    fetched: tuple[tuple[str, Path], ...] = ()


def plan(found: Found, others: Sequence[Found], tree: Path, *, keep_files: bool, fetched: Iterable[str] = ()) -> Plan:
    """Decide for *found*; *others* are all other models, *tree* the directory that is never removed itself. Blocks to follow links.

    *fetched* are the names of files that a download for it may have completed since the last scan.
    """
    used: dict[tuple[int, int], list[tuple[str, Path]]] = {}
    for other in others:
        for binary in other.binaries:
            if binary.stamp is not None:
                used.setdefault((binary.stamp.device, binary.stamp.inode), []).append((other.path, binary.path))
    remove: list[tuple[str, Path]] = []
    kept: list[Kept] = []
    for binary in found.binaries:
        if binary.stamp is None:
            continue
        sharers = used.get((binary.stamp.device, binary.stamp.inode), [])
        # Another hard link to the file is another's own: what it is to that model stays when this name goes.
        user = next((path for path, name in sharers if name.resolve() == binary.path.resolve()), None)
        if keep_files:
            kept.append(Kept(binary.name, "keep_files was asked for"))
        elif not binary.owned:
            kept.append(Kept(binary.name, "it is a link or lies outside the model's folder"))
        elif user is not None:
            kept.append(Kept(binary.name, f"{user} uses it too"))
        else:
            remove.append((binary.name, binary.path))
    names = () if keep_files else _fresh(found, others, fetched)
    return Plan(found.file, tuple(remove), tuple(kept), tree, tuple((name, found.directory / name) for name in names))


def _fresh(found: Found, others: Sequence[Found], fetched: Iterable[str]) -> Iterator[str]:
    """Yield those of *fetched* that no scan has found yet, and that no other model of the folder waits for."""
    known = {binary.name for binary in found.binaries}
    for other in others:
        if other.directory == found.directory:
            known.update(other.missing)
            known.update(binary.name for binary in other.binaries)
    yield from (name for name in fetched if name not in known)


def carry_out(model_id: str, planned: Plan) -> Deletion:
    """Remove what *planned* says. Blocks for disk I/O; a file that is gone already counts as removed.

    Raises NotPossibleError where the folder is reached through a link (links are never followed for deleting) or the disk refuses.
    """
    folder = planned.json.parent
    if folder.resolve() != planned.top.resolve() / folder.relative_to(planned.top):
        message = f'cannot delete "{model_id}": its folder {folder} is reached through a link'
        raise NotPossibleError(message, hint="remove the link itself; what it points to stays")
    removed: list[str] = []
    try:
        for name, path in ((planned.json.name, planned.json), *planned.binaries):
            path.unlink(missing_ok=True)
            removed.append(name)
        for name, path in planned.fetched:
            if path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)
                removed.append(name)
    except OSError as error:
        message = f'cannot delete "{model_id}": {error.strerror}: {error.filename}'
        raise NotPossibleError(message, hint="check the permissions of the folder", removed=removed) from error
    for path in {folder, *(path.parent for _, path in (*planned.binaries, *planned.fetched))}:
        _remove_empty(path, planned.top)
    return Deletion(model_id, tuple(removed), planned.kept)


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove *folder* and its parents below *top* as far as they are empty."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
