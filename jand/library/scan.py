"""What lies on the disk, as findings: one entry of a tree at a time.

The scan is the truth from which everything else follows, so it never raises for what it finds: a file that cannot be read, is half written or swapped under its hands is
a problem, or an entry to look at again. Blocks for disk I/O; runs in a thread.
"""

# ruff: noqa: PTH110, PTH116, PTH119 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from jand.errors import LegacyGgmlError, RootOfflineError
from jand.library import documents, verdict
from jand.library.claims import BinaryFile, FolderClaims, candidate, to_binary
from jand.library.findings import LOOSE, BareBinary, Binary, EntryScan, Found, Role
from jand.library.headers import make_stamp
from jand.library.plain import scan_plain
from jand.library.walk import walk
from jand.model import filenames, identity, quantisation
from jand.model.filenames import printable
from jand.model.problem import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jand.library.claims import Claim
    from jand.library.documents import Reading
    from jand.library.findings import Stamp, Tree
    from jand.library.headers import HeaderCache
    from jand.library.stamps import Listings
    from jand.library.walk import File, Folder, Walk
    from jand.model.identity import Group
    from jand.model.problem import ErrorNote

ANY = "*"
"""Among the stems of pending JSONs: one that may claim any binary of its folder, since it is still arriving."""


def list_entries(tree: Tree) -> list[str]:
    """Return the names of the entries of *tree* in their order, `LOOSE` first; RootOfflineError where the tree itself cannot be listed.

    A link that leads nowhere is an entry too: what it led to may only be unmounted.
    """
    try:
        with os.scandir(tree.path) as items:
            names = sorted(item.name for item in items if not filenames.is_temporary(item.name) and _is_entry(item))
    except OSError as error:
        message = f"cannot list {printable(str(tree.path))}: {error.strerror or error}"
        raise RootOfflineError(message, hint="mount the disk again, or make the folder") from error
    return [LOOSE, *names]


def _is_entry(item: os.DirEntry[str]) -> bool:
    try:
        if item.is_dir():
            return True
        return item.is_symlink() and not item.is_file() and "." not in item.name and not os.path.exists(item.path)
    except OSError:
        return True


def scan_entry(
    tree: Tree, entry: str, headers: HeaderCache, *, now: float, listings: Listings | None = None
) -> EntryScan:
    """Say what *entry* of *tree* holds at *now*, the Unix time. A later *now* than the clock's takes what is fresh for settled.

    *listings* are those of its folders that were read a moment ago.
    """
    headers.learn(tree.label, entry)
    if listings and (plain := scan_plain(tree, entry, headers, now=now, listings=listings)) is not None:
        return plain
    walked = walk(tree, entry, listings)
    return _Scan(tree, entry, walked, headers, now).run()


class _Scan:
    """One scan under way. Paths are real ones (text), unless they are called shown."""

    def __init__(self, tree: Tree, entry: str, walked: Walk, headers: HeaderCache, now: float) -> None:
        self._tree = tree
        self._entry = entry
        self._walk = walked
        self._headers = headers
        self._now = now
        self._problems = list(walked.problems)
        self._recheck_s: float | None = None
        self._files: dict[str, BinaryFile] = {}
        self._in_folder: dict[str, list[BinaryFile]] = {}
        self._jsons: dict[str, list[tuple[str, Reading]]] = {}
        self._pending: dict[str, set[str]] = {}
        self._models: list[Found] = []
        self._claimed: set[str] = set()

    def run(self) -> EntryScan:
        for folder in self._walk.folders:
            self._read_jsons(folder)
            self._in_folder[folder.path] = self._judge_files(folder)
        self._remember_good()
        for folder in self._walk.folders:
            if self._jsons[folder.path]:
                self._claim(folder)
        bare = [group for folder in self._walk.folders for group in self._find_bare(folder)]
        for file in self._files.values():
            if file.error is not None:
                self._report(file, file.error)
        return EntryScan(
            tree=self._tree,
            entry=self._entry,
            exists=self._walk.exists,
            models=tuple(sorted(self._models, key=_path_of) if len(self._models) > 1 else self._models),
            bare=tuple(bare),
            problems=tuple(sorted(set(self._problems), key=_order) if self._problems else ()),
            recheck_after_s=self._recheck_s,
            offline=self._walk.offline,
        )

    def _recheck(self, after_s: float | None) -> None:
        if after_s is not None:
            self._recheck_s = after_s if self._recheck_s is None else min(after_s, self._recheck_s)

    # What lies there.

    def _read_jsons(self, folder: Folder) -> None:
        """Read the JSONs of *folder*; those that are no models (yet) are pending, by their stems."""
        good = self._headers.good.get((self._tree.label, self._entry), {})
        usable, pending = [], set()
        for file in folder.jsons:
            shown = f"{folder.shown}/{printable(file.name)}"
            stamp = self._stamp(file, shown)
            if stamp is None:
                continue
            sight = documents.look(file.item.path, shown, stamp, self._headers, good=good.get(shown), now=self._now)
            self._recheck(sight.recheck_after_s)
            if sight.reading is not None and sight.reading.spec is not None:
                usable.append((file.name, sight.reading))
                self._problems += sight.reading.problems
            elif sight.arriving or sight.reading is not None:
                pending.add(ANY if sight.arriving else identity.json_stem(printable(file.name)))
                self._problems += () if sight.reading is None else sight.reading.problems
        self._jsons[folder.path] = usable
        self._pending[folder.path] = pending

    def _stamp(self, file: File, shown: str) -> Stamp | None:
        try:
            return make_stamp(file.item.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._problems.append(documents.unreadable(shown, error))
            return None

    def _judge_files(self, folder: Folder) -> list[BinaryFile]:
        judged = [self._judge(folder, file) for file in folder.binaries]
        for file in folder.unknown:
            stamp = self._stamp(file, f"{folder.shown}/{printable(file.name)}")
            if stamp is not None and verdict.begins_like_model(file.item.path, stamp, self._headers):
                judged.append(self._judge(folder, file))
        return [file for file in judged if file is not None]

    def _judge(self, folder: Folder, file: File) -> BinaryFile | None:
        name = printable(file.name)
        try:
            stamp = make_stamp(file.item.stat())
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not file.item.is_symlink():
                return None
            found = verdict.Verdict(None, fault=error, ripe=True)
        else:
            controlled = file.name in folder.controlled
            found = verdict.judge(file.item.path, stamp, self._headers, now=self._now, controlled=controlled)
            if isinstance(found.fault, FileNotFoundError):
                return None
        return self._add(BinaryFile.of(name, file.item.path, f"{folder.shown}/{name}", found, linked=file.linked))

    def _add(self, file: BinaryFile) -> BinaryFile:
        self._recheck(file.verdict.recheck_after_s)
        self._files[file.path] = file
        return file

    def _find(self, path: str, shown: str) -> BinaryFile | None:
        """Find the regular file at *path*, wherever it lies; one that is there and no file is a verdict too."""
        if (known := self._files.get(path)) is not None:
            return known
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            found = verdict.Verdict(None, fault=IsADirectoryError("it is no regular file"), ripe=True)
        else:
            found = verdict.judge(path, make_stamp(status), self._headers, now=self._now)
        return self._add(BinaryFile.of(os.path.basename(shown), path, shown, found, linked=True))

    def _remember_good(self) -> None:
        key = (self._tree.label, self._entry)
        good = {reading.path: reading for jsons in self._jsons.values() for _, reading in jsons}
        if good:
            self._headers.good[key] = good
        else:
            self._headers.good.pop(key, None)

    # What belongs together.

    def _claim(self, folder: Folder) -> None:
        files = {file.name: file for file in self._in_folder[folder.path]}
        if folder.below and all(file.projector for file in files.values()):
            files |= self._files_below(folder)
        claims = FolderClaims(folder, files, self._find, writable=self._tree.writable)
        for claim in claims.settle(self._jsons[folder.path]):
            self._claimed |= claim.paths
            self._models.append(self._found(folder, claim))

    def _files_below(self, folder: Folder) -> dict[str, BinaryFile]:
        """Return the files of sub-folders that are named after a quantisation, as repositories have them, and hold no JSON of their own."""
        files: dict[str, BinaryFile] = {}
        for inner in folder.below:
            name = inner.shown.rpartition("/")[2]
            if not self._jsons[inner.path] and quantisation.find_quantization(name) is not None:
                files |= {f"{name}/{file.name}": file for file in self._in_folder[inner.path]}
        return files

    def _found(self, folder: Folder, claim: Claim) -> Found:
        reading = claim.reading
        assert reading.spec is not None
        self._problems += [Problem(reading.path, note.code, note.message, note.hint) for note in claim.complaints]
        return Found(
            path=reading.path,
            folder=folder.shown,
            place=folder.path,
            spec=reading.spec,
            stamp=reading.stamp,
            binaries=claim.binaries,
            missing=claim.missing,
            unresolved=claim.unresolved,
            generated=reading.generated,
            error=claim.error,
            name=claim.name,
            linked=folder.linked,
        )

    def _find_bare(self, folder: Folder) -> list[BareBinary]:
        """Return the models of *folder* that no JSON claims, and none is about to."""
        pending = self._pending[folder.path]
        if ANY in pending or filenames.json_stem(identity.FOLDER_JSON) in pending:
            return []
        unclaimed = [file for file in self._in_folder[folder.path] if file.path not in self._claimed]
        free = [file for file in unclaimed if _may_be_bare(file)]
        if not free:
            self._note_stray(unclaimed)
            return []
        files = {file.name: file for file in self._in_folder[folder.path]}
        groups = identity.group_parts([candidate(file.name, file) for file in free])
        projectors = identity.group_parts([candidate(name, file) for name, file in files.items() if file.projector])
        return [
            BareBinary(
                folder.shown,
                folder.path,
                tuple(self._members(folder, files, group, groups, projectors)),
                folder.linked,
            )
            for group in groups
            if group.stem not in pending
        ]

    def _members(
        self, folder: Folder, files: dict[str, BinaryFile], group: Group, groups: list[Group], projectors: list[Group]
    ) -> Iterator[Binary]:
        for name in group.names:
            if (file := files.get(name)) is not None:
                yield to_binary(name, file, Role.WEIGHTS, owned=self._tree.writable and not file.linked)
            else:
                yield Binary(name, f"{folder.path}/{name}", Role.WEIGHTS)
        chosen = identity.choose_projectors(group.stem, group, groups, projectors)
        if len(chosen) == 1:
            file = files[chosen[0].names[0]]
            yield to_binary(file.name, file, Role.PROJECTOR, owned=self._tree.writable and not file.linked)

    # What is wrong with it.

    def _report(self, file: BinaryFile, error: ErrorNote) -> None:
        """Make a problem of a file that is no binary: one that a model claims, or that says by its name or content that it is a model."""
        says_so = file.name.lower().endswith(".gguf") or isinstance(file.verdict.fault, LegacyGgmlError | OSError)
        if says_so or file.path in self._claimed:
            self._problems.append(Problem(file.shown, error.code, error.message, error.hint))

    def _note_stray(self, files: Iterable[BinaryFile]) -> None:
        for file in files:
            if file.projector and file.verdict.whole:
                message = f"cannot use {file.shown}: it is a projector, and no model lies beside it"
                hint = "put it into the folder of the model that it belongs to"
                self._problems.append(Problem(file.shown, "stray-projector", message, hint, severity=Severity.WARNING))


def _may_be_bare(file: BinaryFile) -> bool:
    """Whether *file* holds weights that may get a JSON of their own, now or when it is complete."""
    known = file.verdict.header is not None and file.error is None
    return known and not file.projector and not file.adapter and not identity.is_side_file(file.name)


def _path_of(found: Found) -> str:
    return found.path


def _order(problem: Problem) -> tuple[str, int, int, str, str]:
    return problem.path, problem.line or 0, problem.column or 0, problem.code, problem.message
