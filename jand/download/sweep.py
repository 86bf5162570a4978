"""Partials that nobody wants any more: each is noted when it is first found so, and removed a day later, so that a JSON that comes back finds its bytes.

Works on the hidden folder alone, without following links; blocks, so it belongs in a thread.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jand.download import place
from jand.download.naming import NOTES_ENDING, PARTIAL_ENDING, PARTIAL_FOLDER, partial_stem
from jand.download.partial import Notes, read_notes, remove_if_empty, write_notes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def read_all_notes(directory: Path) -> tuple[Notes, ...]:
    """Read the notes of every partial in the model folder *directory*."""
    with _opened(directory) as (_, folder):
        found = (read_notes(folder, stem) for stem in _stems(folder))
        return tuple(notes for notes in found if notes is not None)


def folders_with_partials(tree: Path) -> tuple[Path, ...]:
    """Find every folder below *tree* that holds partials, also where its model is gone; links are not followed."""
    found = []
    for folder, names, _ in os.walk(tree):
        if PARTIAL_FOLDER in names:
            found.append(Path(folder))
        names[:] = [name for name in names if not name.startswith(".")]
    return tuple(found)


def sweep(directory: Path, owners: Collection[str], *, now: float, keep_s: float) -> tuple[str, ...]:
    """Remove the partials in *directory* that have been wanted by none of *owners* for *keep_s* seconds; return what was removed.

    *now* is a Unix time. A partial without notes is judged by when it was last written.
    """
    removed = []
    with _opened(directory) as (root, folder):
        for stem in _stems(folder):
            notes = read_notes(folder, stem)
            if notes is not None and set(notes.owners) & set(owners):
                if notes.orphaned_at is not None:
                    write_notes(folder, stem, replace(notes, orphaned_at=None))
                continue
            since = _last_written(folder, stem) if notes is None else notes.orphaned_at
            if since is None or since > now:
                # Not seen as orphaned before; or the clock was set back since.
                write_notes(folder, stem, replace(notes or Notes(""), orphaned_at=now))
            elif now - since > keep_s:
                _remove(folder, stem)
                removed.append(stem)
        remove_if_empty(root)
    return tuple(removed)


def discard(directory: Path, owner: str, busy: Collection[str] = ()) -> None:
    """Remove at once the partials in *directory* that only *owner* wants; not those of the files *busy*, whose transfers go on for others and keep their notes themselves."""
    spared = {partial_stem(name) for name in busy}
    with _opened(directory) as (root, folder):
        for stem in _stems(folder):
            if stem in spared:
                continue
            notes = read_notes(folder, stem)
            if notes is None and _size(folder, stem) == 0:
                # Ended before a server had answered: nobody loses anything.
                _remove(folder, stem)
            elif notes is not None and owner in notes.owners:
                rest = tuple(other for other in notes.owners if other != owner)
                if rest:
                    write_notes(folder, stem, replace(notes, owners=rest))
                else:
                    _remove(folder, stem)
        remove_if_empty(root)


def discard_partial(directory: Path, name: str) -> None:
    """Remove at once what a download of *name* left in *directory*; the file came from elsewhere."""
    with _opened(directory) as (root, folder):
        if (stem := partial_stem(name)) in _stems(folder):
            _remove(folder, stem)
        remove_if_empty(root)


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[tuple[int, int]]:
    """Yield descriptors of *directory* and of its hidden folder, -1 for one that is not there or a link."""
    with contextlib.ExitStack() as stack:
        root = folder = -1
        with contextlib.suppress(OSError):
            root = place.open_directory(directory)
            stack.callback(os.close, root)
            folder = place.open_below(root, [PARTIAL_FOLDER], create=False)
            stack.callback(os.close, folder)
        yield root, folder


def _stems(folder: int) -> list[str]:
    if folder < 0:
        return []
    names = os.listdir(folder)
    stems = {
        name.removesuffix(ending)
        for name in names
        for ending in (NOTES_ENDING, PARTIAL_ENDING)
        if name.endswith(ending)
    }
    return sorted(stems)


def _size(folder: int, stem: str) -> int | None:
    try:
        return os.stat(stem + PARTIAL_ENDING, dir_fd=folder, follow_symlinks=False).st_size
    except OSError:
        return None


def _last_written(folder: int, stem: str) -> float | None:
    try:
        return os.stat(stem + PARTIAL_ENDING, dir_fd=folder, follow_symlinks=False).st_mtime
    except OSError:
        return None


def _remove(folder: int, stem: str) -> None:
    for ending in (PARTIAL_ENDING, NOTES_ENDING, NOTES_ENDING + "~"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stem + ending, dir_fd=folder)
