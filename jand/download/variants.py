"""Groups the files of a listing: which are one model in several quantisations, which are parts of one file, which only go with a model. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.model.quantisation import find_quantization, is_projector_name, is_side_file, quality, split_names, split_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jand.download.repository import HubFile

_CUT = re.compile(r"(?<=[A-Za-z0-9])(?=[-._ ])")

PROJECTOR_PREFERENCE: Final = ("F16", "BF16", "Q8_0", "F32")
"""A projector is small and its quality counts, so that llama.cpp's own page advises against less than 8 bits."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The weights of one model in one quantisation: one file, or all parts of a split one, the first first.

    *base* is the same for all quantisations of the same weights.
    """

    base: str
    quantization: str | None
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def name(self) -> str:
        """What a person calls it: the quantisation, or the file where it says none."""
        return self.quantization or self.files[0].path

    @property
    def rank(self) -> int | None:
        """0 is the best quality, larger is worse; None where the name does not tell."""
        return None if self.quantization is None else quality(self.quantization)


def variants_of(files: Iterable[HubFile]) -> tuple[Variant, ...]:
    """Return every whole set of weights among *files*, by name; a split set that lacks a part is left out."""
    by_path = {file.path: file for file in files if file.path.lower().endswith(".gguf")}
    found = []
    for path, file in sorted(by_path.items()):
        part = split_part(path)
        if is_side_file(path) or is_projector_name(path) or (part is not None and part.no != 1):
            continue
        names = split_names(path)
        if all(name in by_path for name in names):
            parts = tuple(by_path[name] for name in names) if len(names) > 1 else (file,)
            found.append(Variant(base_of(path), find_quantization(path), parts))
    return tuple(found)


def base_of(path: str) -> str:
    """Return the part of a file's name that its siblings in other quantisations share, lower case, without folder."""
    part = split_part(path)
    stem = (part.prefix if part else path.removesuffix(".gguf")).rpartition("/")[2]
    quantization = find_quantization(stem)
    if quantization is None:
        return stem.lower()
    cuts = [match.start() for match in _CUT.finditer(stem)]
    base = next((stem[:cut] for cut in reversed(cuts) if find_quantization(stem[cut:]) == quantization), "")
    return base.lower()


def projectors_of(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Return the projectors among *files*, the one to take first: nearest to the top of the repository, then by quality, then the smallest."""
    found = [file for file in files if is_projector_name(file.path)]
    return tuple(sorted(found, key=_projector_order))


def _projector_order(file: HubFile) -> tuple[int, int, int, str]:
    quantization = find_quantization(file.path)
    order = (
        PROJECTOR_PREFERENCE.index(quantization) if quantization in PROJECTOR_PREFERENCE else len(PROJECTOR_PREFERENCE)
    )
    return file.path.count("/"), order, file.size, file.path
