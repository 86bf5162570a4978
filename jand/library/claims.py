"""Which files of an entry each model JSON claims: the rules of `model.identity`, applied to what lies there.

A claim is settled for all JSONs of a folder together, since what one names is not there for another to guess. Nothing is opened here but a file that a JSON names and that is not among those
of the entry.
"""

# ruff: noqa: PTH111, PTH118 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from jand.library import documents
from jand.library.findings import Binary, Role
from jand.model import identity, quantisation
from jand.model.filenames import Source, composed, parse_reference, printable
from jand.model.identity import Candidate, Group
from jand.model.immutable import immutable
from jand.model.problem import ErrorNote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jand.library.documents import Reading
    from jand.library.findings import Stamp
    from jand.library.verdict import Verdict
    from jand.library.walk import Folder
    from jand.model.gguf import Header
    from jand.model.spec import Spec

MOST_LISTED: Final = 8
"""How many files a message names."""


@immutable()
class BinaryFile:
    """One file that is a binary, or says so. *name* and *shown* are for people, relative to its folder and whole; *path* is the real one.

    *error* is what is wrong with it, once that can be told.
    """

    name: str
    path: str
    shown: str
    verdict: Verdict
    linked: bool
    projector: bool
    adapter: bool
    error: ErrorNote | None

    @classmethod
    def of(cls, name: str, path: str, shown: str, verdict: Verdict, *, linked: bool) -> BinaryFile:
        header = verdict.header
        if header is None:
            projector, adapter = quantisation.is_projector_name(name), False
        else:
            projector, adapter = header.is_projector, header.is_adapter
        return cls(name, path, shown, verdict, linked, projector, adapter, _find_error(name, shown, verdict))


def _find_error(name: str, shown: str, verdict: Verdict) -> ErrorNote | None:
    if verdict.whole and verdict.header is not None:
        return _find_split_error(name, verdict.header, verdict.stamp)
    fault = verdict.fault
    if fault is None or not verdict.ripe:
        return None
    if isinstance(fault, OSError):
        return _system_error(shown, fault, changed_at(verdict.stamp))
    return ErrorNote(fault.code, fault.message, fault.hint, at=changed_at(verdict.stamp))


def changed_at(stamp: Stamp | None) -> float:
    """Return since when a file lies as it does: the same for every scan that finds it so."""
    return 0.0 if stamp is None else stamp.ctime_ns / 1e9


def _find_split_error(name: str, header: Header, stamp: Stamp | None) -> ErrorNote | None:
    """Say where the header and the name of a part disagree: llama.cpp finds the other parts by their names."""
    part = quantisation.split_part(name)
    number, count = (1, 1) if part is None else (part.no, part.count)
    if header.split_count == count and header.split_no + 1 == number:
        return None
    inside = f"part {header.split_no + 1} of {header.split_count}" if header.split_count > 1 else "whole"
    outside = f"part {number} of {count}" if part else "whole"
    message = f'cannot use "{name}": by its header it is {inside}, by its name it is {outside}'
    return ErrorNote(
        "bad-binary", message, "give all parts the names that they had where they come from", at=changed_at(stamp)
    )


def _system_error(shown: str, error: OSError, at: float) -> ErrorNote:
    if isinstance(error, FileNotFoundError):
        message = f"cannot use {shown}: it is a link to what is not there"
        return ErrorNote("missing-binary", message, "mount the disk that it leads to, or remove the link", at=at)
    hint = documents.UNREADABLE_HINT if isinstance(error, PermissionError) else "check the disk"
    if error.errno is None:
        hint = "put a file in its place, or remove it"
    return ErrorNote("unreadable", f"cannot read {shown}: {error.strerror or error}", hint, at=at)


@immutable()
class Claim:
    """What belongs to one JSON. *complaints* are about the JSON, not about one of the files; *error* is the first of all.

    *paths* are the real ones of its files, with those of *rivals*, any of which it may mean: nobody else may guess at them or adopt them.
    """

    reading: Reading
    name: str
    binaries: tuple[Binary, ...] = ()
    missing: tuple[str, ...] = ()
    unresolved: bool = False
    complaints: tuple[ErrorNote, ...] = ()
    error: ErrorNote | None = None
    paths: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Draft:
    """A claim being put together."""

    binaries: list[Binary] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    complaints: list[ErrorNote] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def give_role(self, place: str, role: Role | None) -> None:
        """Let a file that was named before be what it is named for now, if that says more."""
        if role is not None:
            self.binaries = [replace(one, role=role) if one.place == place else one for one in self.binaries]

    def load_first(self) -> None:
        """Of several weights that are no parts of one model, load the first and keep the others for who names them."""
        first: tuple[str, int] | None = None
        for at, binary in enumerate(self.binaries):
            if binary.role is Role.WEIGHTS:
                part = quantisation.split_part(binary.name)
                group = (binary.name, 1) if part is None else (part.prefix, part.count)
                first = first or group
                if group != first:
                    self.binaries[at] = replace(binary, role=Role.OTHER)

    def finish(self, reading: Reading, name: str, *, unresolved: bool) -> Claim:
        errors = [*self.complaints, *[binary.error for binary in self.binaries if binary.error is not None]]
        return Claim(
            reading,
            name,
            tuple(self.binaries),
            tuple(self.missing),
            unresolved=unresolved and not errors,
            complaints=tuple(self.complaints),
            error=errors[0] if errors else None,
            paths=frozenset(self.paths),
        )


class FolderClaims:
    """The claims of the JSONs of *folder* on *files* (by their names relative to it).

    *find* gives the file at a real path that is not among them, None where there is none; *writable* says whether files of this tree may be removed at all.
    """

    def __init__(
        self,
        folder: Folder,
        files: dict[str, BinaryFile],
        find: Callable[[str, str], BinaryFile | None],
        *,
        writable: bool,
    ) -> None:
        self._folder = folder
        self._files = files
        self._find = find
        self._writable = writable
        weights = [candidate(name, file) for name, file in files.items() if not file.projector and not file.adapter]
        self._weights = identity.group_parts(weights)
        self._projectors = identity.group_parts(
            [candidate(name, file) for name, file in files.items() if file.projector]
        )

    def settle(self, jsons: Sequence[tuple[str, Reading]]) -> list[Claim]:
        """Decide for all *jsons* (by their real names), in their order."""
        taken = self._taken(jsons) if len(jsons) > 1 else {}
        return [self._claim(name, reading, taken) for name, reading in jsons]

    def _taken(self, jsons: Sequence[tuple[str, Reading]]) -> dict[str, set[str]]:
        """Return which files are named, or carry the stem, of JSONs that people wrote, with the origins of these."""
        taken: dict[str, set[str]] = {}
        for name, reading in jsons:
            assert reading.spec is not None
            if reading.generated or reading.spec.is_remote:
                continue
            for file in self._surely_named(name, reading.spec):
                taken.setdefault(file, set()).add(reading.spec.origin)
        return taken

    def _surely_named(self, name: str, spec: Spec) -> Iterator[str]:
        for text in spec.download_url:
            yield from quantisation.split_names(parse_reference(text).name.removeprefix("./"))
        if not spec.download_url:
            for group in identity.own_weights(identity.json_stem(printable(name)), self._weights):
                yield from group.names

    def _claim(self, name: str, reading: Reading, taken: dict[str, set[str]]) -> Claim:
        spec = reading.spec
        assert spec is not None
        draft = _Draft()
        if spec.is_remote:
            return draft.finish(reading, name, unresolved=False)
        stem = identity.json_stem(printable(name))
        weights = None
        if spec.download_url:
            for text in spec.download_url:
                self._take_named(draft, text)
            draft.load_first()
        else:
            # A file that another model names is not there to be guessed, unless both are the same model with other parameters.
            free = self._weights
            if taken:
                free = [
                    group
                    for group in free
                    if all(spec.origin in taken.get(part, {spec.origin}) for part in group.names)
                ]
            weights = self._take_weights(draft, stem, spec.metadata.quantization, free)
        unresolved = not draft.binaries and not draft.missing
        self._take_projector(draft, stem, weights, spec.metadata.mmproj)
        for text in spec.parameters.init.lora or ():
            self._take_named(draft, text, Role.ADAPTER)
        return draft.finish(reading, name, unresolved=unresolved)

    def _take_named(self, draft: _Draft, text: str, role: Role | None = None) -> None:
        """Take the file that *text* in a JSON names, with all its parts."""
        reference = parse_reference(text)
        if not reference.name:
            message = f"cannot use {text[:200]!r} as a binary: it names no file, or one outside of the model's folder"
            draft.complaints.append(
                ErrorNote(
                    "bad-file-name",
                    message,
                    'name a file of the repository, a full address, or a local path such as "./model.gguf"',
                )
            )
            return
        for name in quantisation.split_names(reference.name):
            if reference.source is Source.LOCAL:
                self._take_local(draft, name, role)
            elif (found := self._beside(name)) is not None:
                self._take(draft, *found, role)
            elif name not in draft.missing:
                draft.missing.append(name)

    def _beside(self, name: str) -> tuple[str, BinaryFile] | None:
        """Find the file *name* of the folder; also where a disk spells an accent in another way than the JSON."""
        if (file := self._files.get(name)) is not None:
            return name, file
        if (file := self._find(f"{self._folder.path}/{name}", f"{self._folder.shown}/{name}")) is not None:
            return name, file
        if name.isascii():
            return None
        return next(((here, file) for here, file in self._files.items() if composed(here) == composed(name)), None)

    def _take_local(self, draft: _Draft, reference: str, role: Role | None) -> None:
        """Take a file by its place on this machine; one that is not there is never fetched."""
        path = os.path.join(self._folder.path, os.path.expanduser(reference))
        plain = os.path.normpath(path)
        if not self._folder.linked:
            # Behind a link, `..` is the parent of what it leads to.
            path = plain
        inside = plain.removeprefix(f"{self._folder.path}/") if plain.startswith(f"{self._folder.path}/") else None
        if inside is not None and (found := self._beside(inside)) is not None:
            self._take(draft, *found, role)
        elif (file := self._find(path, printable(plain))) is not None:
            self._take(draft, printable(plain), file, role, elsewhere=True)
        else:
            message = f"cannot find {printable(plain)}, which the JSON names as a binary"
            error = ErrorNote("missing-binary", message, "put the file there, or correct the path in the JSON")
            role = role or (Role.PROJECTOR if quantisation.is_projector_name(reference) else Role.WEIGHTS)
            draft.complaints.append(error)
            draft.binaries.append(Binary(inside or printable(plain), plain, role, error=error))

    def _take_weights(self, draft: _Draft, stem: str, wanted: str | None, groups: Sequence[Group]) -> Group | None:
        chosen = identity.choose_weights(stem, wanted, groups)
        if len(chosen) > 1 and wanted is not None and wanted.lower() == "all":
            for group in (first := identity.choose_of_all(chosen), *(group for group in chosen if group is not first)):
                self._take_group(draft, group, Role.WEIGHTS if group is first else Role.OTHER)
            return first
        if len(chosen) == 1:
            self._take_group(draft, chosen[0], Role.WEIGHTS)
            return chosen[0]
        if chosen:
            self._note_rivals(draft, chosen, "download_url")
        return None

    def _take_projector(self, draft: _Draft, stem: str, weights: Group | None, named: str | None) -> None:
        if named:
            self._take_named(draft, named, Role.PROJECTOR)
            return
        if not self._projectors or any(binary.role is Role.PROJECTOR for binary in draft.binaries):
            return
        chosen = identity.choose_projectors(stem, weights, self._weights, self._projectors)
        if len(chosen) == 1:
            self._take_group(draft, chosen[0], Role.PROJECTOR)
        elif chosen:
            self._note_rivals(draft, chosen, "metadata.mmproj")

    def _take_group(self, draft: _Draft, group: Group, role: Role) -> None:
        for name in group.names:
            file = self._files.get(name)
            if file is None:
                draft.missing.append(name)
            else:
                self._take(draft, name, file, role)

    def _note_rivals(self, draft: _Draft, groups: Sequence[Group], field_name: str) -> None:
        names = [group.names[0] for group in groups]
        more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
        message = f"cannot tell which binary belongs to the model: {', '.join(names[:MOST_LISTED])}{more}"
        draft.complaints.append(ErrorNote("ambiguous-binary", message, f'name the one that is meant in "{field_name}"'))
        draft.paths.update(self._files[part.name].path for group in groups for part in group.present)

    def _take(
        self, draft: _Draft, name: str, file: BinaryFile, role: Role | None = None, *, elsewhere: bool = False
    ) -> None:
        if file.path in draft.paths:
            draft.give_role(file.path, role)
            return
        if role is None:
            role = Role.PROJECTOR if file.projector else Role.OTHER if file.adapter else Role.WEIGHTS
        draft.paths.add(file.path)
        draft.binaries.append(to_binary(name, file, role, owned=self._writable and not file.linked and not elsewhere))


def to_binary(name: str, file: BinaryFile, role: Role, *, owned: bool) -> Binary:
    verdict = file.verdict
    return Binary(
        name=name,
        place=file.path,
        role=role,
        size=0 if verdict.stamp is None else verdict.stamp.size,
        needed=None if verdict.header is None else verdict.header.size_needed,
        whole=verdict.whole and file.error is None,
        writing=verdict.writing,
        owned=owned,
        stamp=verdict.stamp,
        header=verdict.header,
        error=file.error,
    )


def candidate(name: str, file: BinaryFile) -> Candidate:
    header = file.verdict.header
    return Candidate(name, file.verdict.soundness, None if header is None else header.quantization)
