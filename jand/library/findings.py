"""What a scan of one entry of a models tree finds, as plain values.

An *entry* is one name directly in a models tree: a folder, with everything below it, or `LOOSE` for the files that lie directly in the tree. It is the unit
of watching and of scanning; a model's own *folder* is the directory of its JSON, which may be the tree itself or lie several levels deep. A *place* is a real path as text, of which there are
many: making a `Path` of it takes longer than the look at the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand.model.immutable import immutable

if TYPE_CHECKING:
    from jand.model.gguf import Header
    from jand.model.problem import ErrorNote, Problem
    from jand.model.spec import Spec

LOOSE: Final = ""
"""The name of the entry that stands for the files lying directly in a tree."""

FILE_ERRORS: Final = frozenset(
    {
        "ambiguous-binary",
        "bad-binary",
        "bad-file-name",
        "incomplete-binary",
        "legacy-ggml",
        "missing-binary",
        "unreadable",
    }
)
"""Every code that an error of a `Found` or a `Binary` can have: how the files lie. Each goes when they lie otherwise."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One watched directory: `models/` of the root, or one of `extra_models`.

    *label* is what paths shown to people begin with: `models` for the root's own, the absolute path for others. jand writes only where *writable*.
    """

    path: Path
    label: str
    writable: bool = True


class Role(StrEnum):
    """What a binary is for.

    `WEIGHTS` are what a worker loads: several only where they are the parts of one split model. An `ADAPTER` is what `parameters.init.lora` names. What belongs to the model
    and is not loaded (further quantisations) is `OTHER`.
    """

    WEIGHTS = "weights"
    PROJECTOR = "projector"
    ADAPTER = "adapter"
    OTHER = "other"


@immutable()
class Stamp:
    """What tells one content of a file from another without reading it; all but *ctime_ns* can be set by programs."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@immutable()
class Binary:
    """One file that a model needs, as it lies on the disk now.

    *name* is relative to the model's folder (POSIX), or absolute for a file re-used from elsewhere. *needed* is the size in bytes that its header (and
    for a split part nothing else) demands, None while unknown. *whole*: present, complete, and nobody writes to it. *owned*: a regular file
    inside the model's folder, which a DELETE may remove. *error*: what keeps it from ever being whole as it lies; one that is still arriving has none.

    One that is not there (*present* is false) and has an error was named by its place on this machine: it is not to be fetched.
    """

    name: str
    place: str
    role: Role
    size: int = 0
    needed: int | None = None
    whole: bool = False
    writing: bool = False
    owned: bool = False
    stamp: Stamp | None = None
    header: Header | None = None
    error: ErrorNote | None = None

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def present(self) -> bool:
        """There at all, whole or not."""
        return self.stamp is not None


@immutable()
class Found:
    """One model JSON with its binaries.

    *path* and *folder* are shown to people (they begin with the tree's label; bytes that are no UTF-8 are escaped), *place* (of the folder), *directory* and *file* are the real ones. *missing*: the
    binaries that it names or that its split set demands, that are not there at all and may be fetched. *unresolved*: it names no weights and has none, so the importer
    must say what to fetch. *generated*: jand wrote its JSON and nobody has edited it since. *linked*: its folder is reached through a link, so nothing in it is written or
    deleted. *error*: why it cannot be `downloaded` as it lies (the first of its binaries' errors, an ambiguity, ...).
    """

    path: str
    folder: str
    place: str
    spec: Spec
    stamp: Stamp
    binaries: tuple[Binary, ...] = ()
    missing: tuple[str, ...] = ()
    unresolved: bool = False
    generated: bool = False
    error: ErrorNote | None = None
    name: str = ""
    linked: bool = False

    @property
    def directory(self) -> Path:
        return Path(self.place)

    @property
    def file(self) -> Path:
        """The JSON itself; *name* is given where the shown path does not end in the real name."""
        return self.directory / (self.name or self.path.rpartition("/")[2])

    @property
    def whole(self) -> bool:
        """Everything that it needs is there and complete (always so for a remote model)."""
        if self.missing or self.unresolved or self.error is not None:
            return False
        return all([binary.whole for binary in self.binaries])  # noqa: C419 - there are few, and a generator costs more


@immutable()
class BareBinary:
    """A GGUF that no JSON claims, with what belongs to it; a candidate for adoption once it is whole.

    The weights come first, in the order of their parts (absent ones included), then a projector. *linked*: reached through a link, so nothing is written beside it.
    """

    folder: str
    place: str
    binaries: tuple[Binary, ...]
    linked: bool = False

    @property
    def directory(self) -> Path:
        return Path(self.place)

    @property
    def whole(self) -> bool:
        return all(binary.whole for binary in self.binaries)


@immutable()
class EntryScan:
    """Everything that one entry holds.

    *recheck_after_s*: something in it is being written or cannot be judged yet, so it must be scanned again after so many seconds even if no event comes; None where
    the next event will do; it is no part of what two scans are compared by. An entry that is gone has no models, no problems, and *exists* false.
    *offline*: it cannot be looked at now (the link that it is leads nowhere, its disk does not answer), so what was known of it stands.
    """

    tree: Tree
    entry: str
    exists: bool = True
    models: tuple[Found, ...] = ()
    bare: tuple[BareBinary, ...] = ()
    problems: tuple[Problem, ...] = ()
    recheck_after_s: float | None = field(default=None, compare=False)
    offline: bool = False
