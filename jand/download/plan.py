"""From what a JSON wishes, what lies on the disk and what a hub lists to the exact files to fetch. Pure: the same answer for the same input, and no I/O.

Nothing is ever planned over a file that is there, whatever it is: a person put it there, and `library` says what is wrong with it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from jand.download.importers import IMPORTERS
from jand.download.naming import checked_name, is_safe_name
from jand.download.recommend import Machine, Row, Use, beside_weights, recommend
from jand.download.repository import (
    HubFile,
    Listing,
    Repository,
    bad_address,
    find_hub_address,
    origin_of,
    parse_digest,
    parse_repository,
    resolve_url,
)
from jand.download.variants import Variant, projectors_of
from jand.errors import BadDigestError, BadFileNameError, HubNotFoundError, QuantizationNotFoundError
from jand.model.filenames import Source, parse_reference
from jand.model.quantisation import canonical, find_quantization, split_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jand.model.gguf import Header

ALL: Final = "all"
"""The value of `metadata.quantization` that takes every variant."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model JSON says about its binaries.

    *quantization* is what `metadata.quantization` asks for. *stem* is the JSON's own name, which may state one. *digests* maps a file's name (or "" for the only one) to a
    sha256. *kept*: the files (paths in the repository) that an earlier plan chose. *remote*: the model runs elsewhere.
    """

    origin: str
    import_format: str = "default"
    download_url: tuple[str, ...] = ()
    quantization: str | None = None
    stem: str = ""
    mmproj: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    use: Use = field(default_factory=Use)
    kept: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    remote: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """What is named beside the weights that are to be chosen, or everything where nothing is."""
        return (*self.download_url, *([self.mmproj] if self.mmproj else ()), *self.adapters)


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One file to fetch.

    *name* is relative to the model's folder. *url* is the address as people write it; *source* the one that is asked, pinned to a commit where a hub has it. *sha256* is
    None where nobody states one; *demanded*: a person stated it, so that nothing else will do. *on_hub*: served by the hub's `resolve`.
    """

    name: str
    url: str
    source: str
    size: int | None = None
    sha256: str | None = None
    demanded: bool = False
    on_hub: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """*files* are to be fetched, *present* (with their sizes) are there already; both together are what the model needs.

    *chosen* are the paths of an automatic choice, to be handed in again as `Wish.kept`; *defaults* is what a repository's own JSON offers. *remote*: the model runs
    elsewhere.
    """

    files: tuple[WantedFile, ...] = ()
    present: Mapping[str, int] = field(default_factory=dict)
    repository: str | None = None
    commit: str | None = None
    quantization: str | None = None
    chosen: tuple[str, ...] = ()
    reason: str = ""
    table: tuple[Row, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    remote: bool = False

    @property
    def bytes_to_fetch(self) -> int | None:
        """None where the size of a file is not known before it is asked for."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a plan is made against. *present* maps the names of files in the model's folder to their sizes; *header* is that of one variant, where it could be read."""

    endpoint: str
    machine: Machine
    listings: Mapping[Repository, Listing] = field(default_factory=dict)
    header: Header | None = None
    present: Mapping[str, int] = field(default_factory=dict)
    disk_free: int | None = None


def fetches(wish: Wish) -> bool:
    """Whether anything of *wish* may have to be fetched at all."""
    return not wish.remote and IMPORTERS[wish.import_format].find_variants is not None


def repositories_needed(wish: Wish, endpoint: str) -> tuple[Repository, ...]:
    """Return the repositories whose listings a plan for *wish* needs, each once."""
    if not fetches(wish):
        return ()
    needed: dict[Repository, None] = {}
    for item in wish.named:
        if (found := repository_of(item, wish, endpoint)) is not None:
            needed[found] = None
    if not wish.download_url:
        needed[parse_repository(wish.origin, endpoint)] = None
    return tuple(needed)


def repository_of(item: str, wish: Wish, endpoint: str) -> Repository | None:
    """Return the repository that has the file *item* of a JSON; None for one that no hub has."""
    reference = parse_reference(item)
    if reference.source is Source.REPOSITORY:
        return parse_repository(wish.origin, endpoint)
    if reference.source is Source.URL and (address := find_hub_address(item, endpoint)) is not None and address.path:
        return address.repository
    return None


def header_wanted(wish: Wish, surroundings: Surroundings) -> HubFile | None:
    """Return the file whose header decides what fits, where there is something to decide."""
    if wish.download_url or not fetches(wish):
        return None
    candidates = _candidates(wish, surroundings)
    if _settled(wish, candidates, surroundings) is not None:
        return None
    return min(candidates, key=lambda variant: variant.size).files[0]


def make_plan(wish: Wish, surroundings: Surroundings) -> Plan:
    """Return what to fetch. Raises the errors that say why nothing can be: names that leave the folder, files that no hub has, nothing that fits."""
    if not fetches(wish):
        return Plan(remote=True, reason="the model runs at its provider; nothing is fetched")
    if wish.download_url:
        return _plan_named(wish, surroundings)
    return _plan_chosen(wish, surroundings)


def _plan_named(wish: Wish, surroundings: Surroundings) -> Plan:
    wanted: dict[str, WantedFile] = {}
    for item in wish.named:
        for file in _named_files(item, wish, surroundings):
            wanted.setdefault(file.name, file)
    first = next(iter(surroundings.listings.values()), None)
    return _divide(
        wanted.values(),
        surroundings,
        Plan(
            repository=first.repository.name if first else None,
            commit=first.commit if first else None,
            quantization=next((found for name in wanted if (found := find_quantization(name))), None),
            reason="download_url names it",
        ),
    )


def _named_files(item: str, wish: Wish, surroundings: Surroundings) -> Iterable[WantedFile]:
    reference = parse_reference(item)
    if reference.source is Source.LOCAL:
        return ()
    if not reference.name:
        message = f"cannot use {item[:200]!r} as download_url: it leads out of the model's folder or names no file"
        raise BadFileNameError(
            message, hint="name a file of the repository, or its https:// address", param="download_url"
        )
    repository = repository_of(item, wish, surroundings.endpoint)
    if repository is None:
        return [_plain_file(name, item, wish) for name in _all_parts(item, reference.name)]
    listing = surroundings.listings[repository]
    address = find_hub_address(item, surroundings.endpoint) if reference.source is Source.URL else None
    path = address.path if address else reference.name
    return [_hub_file(_get_listed(name, listing), listing, wish, surroundings) for name in split_names(path)]


def _all_parts(url: str, name: str) -> list[str]:
    """Return the address of every part where *url* is that of one part of a split file."""
    names = split_names(name)
    if len(names) == 1:
        return [url]
    own = name.rpartition("/")[2]
    return [part.rpartition("/")[2].join(url.rsplit(own, 1)) for part in names]


def _plain_file(url: str, item: str, wish: Wish) -> WantedFile:
    if origin_of(url).partition("://")[0] not in {"http", "https"}:
        raise bad_address(item, "only https and http are fetched")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise bad_address(item, "a password in an address would be written into notes and logs")
    name = checked_name(parse_reference(url).name)
    digest = demanded_digest(name, wish)
    return WantedFile(name, url, url, sha256=digest, demanded=digest is not None)


def _get_listed(path: str, listing: Listing) -> HubFile:
    if (file := listing.find(path)) is not None:
        return file
    paths = [each.path for each in listing.files]
    near = difflib.get_close_matches(path, paths, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "look at the repository's list of files"
    message = f"cannot download {path} from {listing.repository}: there is no such file"
    raise HubNotFoundError(message, hint=hint, param="download_url", near=tuple(near))


def _hub_file(file: HubFile, listing: Listing, wish: Wish, surroundings: Surroundings) -> WantedFile:
    name = checked_name(file.path)
    repository, endpoint = listing.repository, surroundings.endpoint
    demanded = demanded_digest(name, wish)
    if demanded is not None and file.sha256 not in {None, demanded}:
        message = (
            f"cannot download {name} from {repository}: it has sha256 {file.sha256} there, the JSON demands {demanded}"
        )
        raise BadDigestError(
            message, hint="correct metadata.sha256, or pin the revision that has it", param="metadata.sha256"
        )
    return WantedFile(
        name=name,
        url=resolve_url(endpoint, repository.name, repository.revision, file.path) + "?download=true",
        source=resolve_url(endpoint, repository.name, listing.commit, file.path),
        size=file.size,
        sha256=demanded or file.sha256,
        demanded=demanded is not None,
        on_hub=True,
    )


def demanded_digest(name: str, wish: Wish) -> str | None:
    """Return the sha256 that the JSON demands of the file *name*."""
    for key in (name, name.rpartition("/")[2], ""):
        if key in wish.digests and (digest := parse_digest(wish.digests[key])) is not None:
            return digest
    return None


def _plan_chosen(wish: Wish, surroundings: Surroundings) -> Plan:
    listing = _own_listing(wish, surroundings)
    candidates = _candidates(wish, surroundings)
    projector = _projector(wish, surroundings, listing, candidates)
    table: tuple[Row, ...] = ()
    settled = _settled(wish, candidates, surroundings)
    if settled is not None:
        variants, reason = settled
    else:
        beside = beside_weights(surroundings.header, wish.use, projector.size or 0 if projector else 0)
        choice = recommend(
            candidates, surroundings.machine, beside=beside, use=wish.use, disk_free=surroundings.disk_free
        )
        variants, reason, table = (choice.variant,), choice.reason, choice.table
    paths = tuple(file.path for variant in variants for file in variant.files)
    wanted = [_hub_file(file, listing, wish, surroundings) for variant in variants for file in variant.files]
    wanted += [projector] if projector else []
    wanted += [file for item in wish.adapters for file in _named_files(item, wish, surroundings)]
    return _divide(
        wanted,
        surroundings,
        Plan(
            repository=listing.repository.name,
            commit=listing.commit,
            quantization=variants[0].quantization if len(variants) == 1 else None,
            chosen=paths,
            reason=reason,
            table=table,
        ),
    )


def _own_listing(wish: Wish, surroundings: Surroundings) -> Listing:
    return surroundings.listings[parse_repository(wish.origin, surroundings.endpoint)]


def _candidates(wish: Wish, surroundings: Surroundings) -> tuple[Variant, ...]:
    find_variants = IMPORTERS[wish.import_format].find_variants
    assert find_variants is not None
    variants = find_variants(_own_listing(wish, surroundings))
    usable = tuple(variant for variant in variants if all(is_safe_name(file.path) for file in variant.files))
    if not usable:
        checked_name(variants[0].files[0].path)
    return usable


def _settled(
    wish: Wish, candidates: Sequence[Variant], surroundings: Surroundings
) -> tuple[tuple[Variant, ...], str] | None:
    """Return the variants that are to be taken whatever the machine is, and why; None where the machine decides."""
    if wish.quantization is not None and wish.quantization.lower() == ALL:
        return tuple(candidates), 'metadata.quantization is "all"'
    if wish.quantization is not None:
        return (_get_quantized(wish.quantization, candidates, wish),), "metadata.quantization asks for it"
    for variant in candidates:
        if wish.kept and variant.files[0].path in wish.kept:
            return (variant,), "it was chosen before, and a choice is kept"
    for variant in candidates:
        if any(surroundings.present.get(file.path) == file.size for file in variant.files):
            return (variant,), "a part of it is there already"
    stated = find_quantization(wish.stem)
    named = _quantized(stated, candidates) if stated else []
    return ((named[0],), "the name of the JSON says so") if named else None


def _quantized(wanted: str, candidates: Sequence[Variant]) -> list[Variant]:
    """Return the variants of quantisation *wanted*, the smallest first; a name that says only `UD-` less counts where no other does."""
    exact = canonical(wanted)
    ordered = sorted(candidates, key=lambda variant: (variant.size, variant.files[0].path))
    return (
        [variant for variant in ordered if variant.quantization == exact]
        or [variant for variant in ordered if (variant.quantization or "").removeprefix("UD-") == exact]
        or [variant for variant in ordered if wanted.lower() in variant.files[0].path.lower()]
    )


def _get_quantized(wanted: str, candidates: Sequence[Variant], wish: Wish) -> Variant:
    if hits := _quantized(wanted, candidates):
        return hits[0]
    choices = tuple(variant.name for variant in candidates)
    message = f"cannot download {wanted} of {wish.origin}: it has only {', '.join(choices)}"
    hint = 'take one of these, or leave "quantization" out to have the one that suits this machine'
    raise QuantizationNotFoundError(message, hint=hint, param="metadata.quantization", choices=choices)


def _projector(
    wish: Wish, surroundings: Surroundings, listing: Listing, candidates: Sequence[Variant]
) -> WantedFile | None:
    if wish.mmproj:
        return next(iter(_named_files(wish.mmproj, wish, surroundings)), None)
    found = projectors_of(listing.files)
    if not found:
        return None
    # Repositories of several models keep each one's projector beside its weights.
    folder = candidates[0].files[0].path.rpartition("/")[0]
    beside = [file for file in found if file.path.rpartition("/")[0] == folder]
    return _hub_file((beside or found)[0], listing, wish, surroundings)


def _divide(wanted: Iterable[WantedFile], surroundings: Surroundings, plan: Plan) -> Plan:
    """Complete *plan*: what is there already is not fetched."""
    files = tuple(wanted)
    return replace(
        plan,
        files=tuple(file for file in files if file.name not in surroundings.present),
        present={file.name: surroundings.present[file.name] for file in files if file.name in surroundings.present},
    )
