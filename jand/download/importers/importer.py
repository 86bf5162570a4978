"""What an importer is, and the judgement that they share: which variants of one model a listing offers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jand.download.variants import Variant, variants_of
from jand.errors import AmbiguousBinaryError, NoBinaryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.download.repository import Listing


@dataclass(frozen=True, slots=True)
class Importer:
    """*find_variants* returns the variants of the one model that a repository offers, or raises NoBinaryError or AmbiguousBinaryError.

    It is None where the model runs elsewhere and nothing is fetched. *own_json*: a file of the repository whose values fill what the model's JSON leaves open.
    """

    name: str
    find_variants: Callable[[Listing], tuple[Variant, ...]] | None
    own_json: str | None = None


def find_one_model(listing: Listing) -> tuple[Variant, ...]:
    """Return all variants of the one model in *listing*."""
    variants = variants_of(listing.files)
    if not variants:
        raise _no_gguf(listing)
    bases = {variant.base for variant in variants}
    if len(bases) == 1:
        return variants
    named = _plain(listing.repository.name.partition("/")[2])
    meant = [base for base in bases if base and _plain(base) == named]
    if len(meant) == 1:
        return tuple(variant for variant in variants if variant.base == meant[0])
    choices = tuple(variant.files[0].path for variant in variants)
    shown = ", ".join(sorted({variant.files[0].path for variant in _one_of_each(variants)})[:8])
    message = f"cannot choose a binary of {listing.repository}: it holds {len(bases)} different models ({shown})"
    raise AmbiguousBinaryError(message, hint="name the file in download_url", choices=choices)


def _one_of_each(variants: tuple[Variant, ...]) -> list[Variant]:
    first: dict[str, Variant] = {}
    for variant in variants:
        first.setdefault(variant.base, variant)
    return list(first.values())


def _plain(name: str) -> str:
    """Bring a repository's and a file's way of writing one name together."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"[-_.]gguf$", "", name.lower()))


_OTHER_KINDS = re.compile(r"-(GGML|GPTQ|AWQ|EXL2|HQQ|MLX)$", re.IGNORECASE)


def _no_gguf(listing: Listing) -> NoBinaryError:
    repository = listing.repository
    endings = {"." + file.path.rpartition(".")[2].lower() for file in listing.files if "." in file.path}
    if other := _OTHER_KINDS.search(repository.name):
        better = repository.name[: other.start()] + "-GGUF"
        message = f"cannot run a model of {repository}: it is {other[1].upper()}, and the engine runs GGUF"
        return NoBinaryError(message, hint=f'try "origin": "{better}"')
    if any(".gguf-split-" in file.path for file in listing.files):
        message = f"cannot choose a binary of {repository}: its GGUF files are cut in a way that must be joined by hand"
        return NoBinaryError(message, hint="join the pieces with cat, or take a repository with -00001-of-... parts")
    held = (
        "safetensors, to be converted"
        if ".safetensors" in endings
        else "older GGML files"
        if ".bin" in endings
        else "none of its own"
    )
    message = f"cannot choose a binary of {repository}: it holds no whole GGUF (but {held})"
    return NoBinaryError(
        message, hint=f'look for a GGUF version: jand search "{repository.name.partition("/")[2]} GGUF"'
    )
