"""Which id a model has, and which binaries belong to its JSON: the contract's rules and nothing else.

Pure and independent of the order in which files are found, so that a restart and a rescan agree. Names here are shown ones (`filenames.printable`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from jand.model import quantisation
from jand.model.filenames import (
    binary_stem,
    composed,
    is_repository_json,
    is_temporary,
    json_stem,
    printable,
)
from jand.model.immutable import immutable
from jand.model.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "Candidate",
    "Group",
    "IdAssignment",
    "Soundness",
    "assign_ids",
    "choose_projectors",
    "choose_weights",
    "default_id",
    "group_parts",
    "is_repository_json",
    "is_side_file",
    "is_temporary",
    "json_stem",
    "own_weights",
    "printable",
]

FOLDER_JSON: Final = "model.json"
"""A JSON of this name lends its folder's name to the model."""


# Ids.


def default_id(path: str) -> str:
    """Return the id that follows from *path* alone (with `/`, ending in `.json`)."""
    folder, _, name = path.rpartition("/")
    if name.lower() == FOLDER_JSON and folder.strip("/"):
        return composed(folder.rstrip("/").rpartition("/")[2])
    return composed(json_stem(name))


@dataclass(frozen=True, slots=True)
class IdAssignment:
    """Who is called what. *ids* has every path; *aliases* only those paths that have any; *owners* has the path of every id and alias."""

    ids: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    owners: dict[str, str] = field(default_factory=dict)

    def admit(self, path: str, explicit: str | None) -> bool:
        """Take in one more path, and say so, where that changes nothing for any other; where it might, all are to be assigned anew."""
        default = default_id(path)
        wanted = explicit or default
        holder = self.owners.get(default)
        # Of two that would have the same alias the path decides, but an id is nobody's alias.
        if path in self.ids or wanted in self.owners or (holder is not None and self.ids[holder] != default):
            return False
        self.ids[path] = wanted
        self.owners[wanted] = path
        if default != wanted and holder is None:
            self.owners[default] = path
            self.aliases[path] = (default,)
        return True


def assign_ids(entries: Iterable[tuple[str, str | None]]) -> IdAssignment:
    """Give each (path, explicit id or None) its id; 10,000 of them take about 20 ms.

    A claim beats a way out: whoever had to give up the id that it wanted never takes one that another file claims for itself.
    """
    listed = [
        (path, explicit, default_id(path))
        for path, explicit in sorted(dict(entries).items(), key=lambda entry: entry[0].encode("utf-8", "surrogatepass"))
    ]
    ids: dict[str, str] = {}
    owners: dict[str, str] = {}
    losers: list[tuple[str, str]] = []
    for path, explicit, default in listed:
        wanted = explicit or default
        if owners.setdefault(wanted, path) == path:
            ids[path] = wanted
        else:
            losers.append((path, wanted))
    problems = []
    for path, wanted in losers:
        given = next(name for name in _ways_out(path) if name not in owners)
        owners[given] = path
        ids[path] = given
        problems.append(_conflict(path, wanted, owners[wanted], given))
    aliases: dict[str, tuple[str, ...]] = {}
    for path, _, alias in listed:
        if owners.setdefault(alias, path) == path and ids[path] != alias:
            aliases[path] = (alias,)
    return IdAssignment(ids, aliases, tuple(problems), owners)


def _ways_out(path: str) -> Iterator[str]:
    """Yield `<folder>/<stem>`, then longer ends of *path*, then the path itself with a growing number: one of them is free."""
    parts = json_stem(path).split("/")
    for length in range(2, len(parts) + 1):
        yield composed("/".join(parts[-length:]))
    yield path
    for number in count(2):
        yield f"{path}#{number}"


def _conflict(path: str, wanted: str, owner: str, given: str) -> Problem:
    return Problem(
        path=path,
        code="duplicate-id",
        message=f'cannot register {path} as "{wanted}": {owner} has that id, so this one is "{given}"',
        hint='rename one of the two files, or give one of them another "id"',
    )


# Binaries.


class Soundness:
    """How much a file looks like a model; where several could be meant, only the best of them count."""

    JUNK: Final = 0
    LEGACY: Final = 1
    GGUF: Final = 2


@immutable()
class Candidate:
    """One file that could belong to a JSON.

    *name* is relative to the JSON's folder. *quantization* is what its header says. *soundness* orders by content, one of `Soundness`; a file
    that cannot be read yet counts as what it promises.
    """

    name: str
    soundness: int = Soundness.GGUF
    quantization: str | None = None


@immutable()
class Group:
    """What is loaded as one: a file, or all parts of a split one; *names* in order, those that are not there included."""

    stem: str
    names: tuple[str, ...]
    present: tuple[Candidate, ...]

    @property
    def soundness(self) -> int:
        return max(part.soundness for part in self.present)

    @property
    def quantization(self) -> str | None:
        """As the names say it (a folder's included), else the header of a part."""
        stated = quantisation.find_quantization(self.names[0])
        return stated or next((part.quantization for part in self.present if part.quantization), None)


def group_parts(candidates: Sequence[Candidate]) -> list[Group]:
    """Put split parts together; the order is that of the names."""
    if not candidates:
        return []
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda one: one.name):
        part = quantisation.split_part(candidate.name)
        key = (candidate.name, 0) if part is None else (part.prefix, part.count)
        groups.setdefault(key, []).append(candidate)
    return [
        Group(
            stem=_base(binary_stem(key[0])),
            names=quantisation.split_names(present[0].name),
            present=tuple(present),
        )
        for key, present in groups.items()
    ]


def own_weights(stem: str, groups: Sequence[Group]) -> Sequence[Group]:
    """Return those weights that are called as the JSON *stem* is."""
    own = [group for group in groups if group.stem == stem] or [group for group in groups if _same(group.stem, stem)]
    return _soundest(own)


def choose_weights(stem: str, quantization: str | None, groups: Sequence[Group]) -> Sequence[Group]:
    """Choose among the weights of a folder for the JSON called *stem*: none, the one, or all that are left where the rules do not settle it.

    In the contract's order: its own stem, the one that is there, its quantisation (*quantization*: what `metadata` asks for, which goes before what the name says). What only goes
    with a model (an adapter, an importance matrix) is chosen by its own stem alone.
    """
    if not groups:
        return groups
    if own := own_weights(stem, groups):
        return own
    left = _soundest([group for group in groups if not is_side_file(group.names[0])])
    if len(left) <= 1:
        return left
    wanted = [quantization] if quantization is not None and quantization.lower() != "all" else []
    stated = quantisation.find_quantization(stem)
    if stated is not None:
        wanted.append(stated)
    for name in wanted:
        if hit := _of_quantization(name, left):
            return hit
    return left


def choose_of_all(groups: Sequence[Group]) -> Group:
    """Choose which of several quantisations of one model is loaded: `Q4_K_M`, else the next worse, else the least of the better ones."""
    usual = quantisation.quality("Q4_K_M") or 0

    def distance(group: Group) -> tuple[bool, int, str]:
        rank = quantisation.quality(group.quantization or "") or 0
        return rank < usual, abs(rank - usual), group.names[0]

    return min(groups, key=distance)


def _of_quantization(wanted: str, groups: Sequence[Group]) -> Sequence[Group]:
    """Return those of quantisation *wanted*, else those of its family (`Q5_0` for a name that says only `Q5`)."""
    canonical = quantisation.canonical(wanted)
    family = canonical.partition("_")[0]
    return _first_hit(
        groups,
        [
            lambda group: group.quantization == canonical,
            lambda group: group.quantization is not None and group.quantization.partition("_")[0] == family,
        ],
    )


def choose_projectors(
    stem: str, weights: Group | None, all_weights: Sequence[Group], projectors: Sequence[Group]
) -> Sequence[Group]:
    """Choose among the projectors of a folder for the JSON called *stem* with *weights*: none, the one, or those that are left.

    One whose name carries the model's goes before one with a name for any (`mmproj-model-f16.gguf`); one that carries the name of other weights of the folder is theirs.
    """
    words = _words(stem) | (_words(weights.names[0]) if weights else frozenset())
    others = [_words(group.names[0]) for group in all_weights if weights is None or group.names != weights.names]
    soundest = _soundest(projectors)
    return _first_hit(
        soundest,
        [
            lambda group: _binds(group) and _binds(group) <= words,
            lambda group: not _binds(group),
            lambda group: not any(_binds(group) <= other for other in others),
        ],
    )


_NO_NAME: Final = frozenset(
    {"mmproj", "model", "proj", "projector", "vision", "clip", "ggml", "gguf"}
    | {"f16", "f32", "fp16", "fp32", "bf16", "q8", "0", "q4", "k", "m"}
)


def _binds(group: Group) -> frozenset[str]:
    """Return the words by which a projector's name ties it to a model."""
    return _words(group.names[0]) - _NO_NAME


def _words(name: str) -> frozenset[str]:
    base = binary_stem(_base(name)).lower()
    return frozenset("".join(sign if sign.isalnum() else " " for sign in base).split())


def _first_hit(groups: Sequence[Group], tests: Iterable[Callable[[Group], bool | frozenset[str]]]) -> Sequence[Group]:
    for test in tests:
        if hit := [group for group in groups if test(group)]:
            return hit
    return []


def _soundest(groups: Sequence[Group]) -> Sequence[Group]:
    if len(groups) <= 1:
        return groups
    best = max(group.soundness for group in groups)
    return [group for group in groups if group.soundness == best]


_SIDE_WORDS: Final = re.compile("imatrix|mtp|eagle|dflash|dspark|lora|adapter|vocab", re.IGNORECASE)


def is_side_file(name: str) -> bool:
    """Whether *name*, that of a file which is no projector by its content, is that of something beside the weights."""
    # Ten thousand names are asked at a start, and hardly one has such a word.
    if _SIDE_WORDS.search(name) is None or quantisation.is_projector_name(name):
        return False
    return quantisation.is_side_file(name)


def _same(left: str, right: str) -> bool:
    if left.isascii() and right.isascii():
        return len(left) == len(right) and left.lower() == right.lower()
    return composed(left).casefold() == composed(right).casefold()


def _base(name: str) -> str:
    return name.rpartition("/")[2]
