"""What a DELETE removes and what it leaves, decided first and then done.

The JSON goes first: were the daemon killed in between, a binary without a JSON is a bare GGUF that anybody can see and delete, while a JSON without its binary would begin to
fetch it again. A binary is looked at once more just before it goes: one that was dropped anew since the last scan saw it is no longer the one that was meant, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jand.errors import NotPossibleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from jand.library.findings import Binary, Found


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
    binaries: tuple[Binary, ...]
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
    remove: list[Binary] = []
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
            remove.append(binary)
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
    kept = list(planned.kept)
    try:
        planned.json.unlink(missing_ok=True)
        removed.append(planned.json.name)
        for binary in planned.binaries:
            if _is_another(binary):
                kept.append(Kept(binary.name, "it was dropped anew while its model was deleted"))
            else:
                binary.path.unlink(missing_ok=True)
                removed.append(binary.name)
        for name, path in planned.fetched:
            if path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)
                removed.append(name)
    except OSError as error:
        message = f'cannot delete "{model_id}": {error.strerror}: {error.filename}'
        raise NotPossibleError(message, hint="check the permissions of the folder", removed=removed) from error
    places = [*(binary.path for binary in planned.binaries), *(path for _, path in planned.fetched)]
    for path in {folder, *(place.parent for place in places)}:
        _remove_empty(path, planned.top)
    return Deletion(model_id, tuple(removed), tuple(kept))


def _is_another(binary: Binary) -> bool:
    """Whether the file that lies there is not the one that was found, by what no ordinary copy keeps; one that was arriving may have grown since."""
    try:
        status = binary.path.lstat()
    except FileNotFoundError:
        return False
    stamp = binary.stamp
    assert stamp is not None
    if (status.st_dev, status.st_ino) != (stamp.device, stamp.inode):
        return True
    # The number of a file that was removed is given to the next one at once.
    return binary.whole and (status.st_size, status.st_mtime_ns) != (stamp.size, stamp.mtime_ns)


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove *folder* and its parents below *top* as far as they are empty."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
