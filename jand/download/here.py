"""A plan made of what this machine has already, for when the hub cannot be asked: the planner's rules, on a listing of the neighbours' files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jand.download.plan import (
    Surroundings,
    demanded_digest,
    header_wanted,
    make_plan,
    repositories_needed,
    repository_of,
)
from jand.download.repository import find_hub_address, parse_repository
from jand.download.wish import wish_of
from jand.model.filenames import parse_reference
from jand.model.quantisation import split_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jand.download.plan import Plan, Wish
    from jand.download.recommend import Machine
    from jand.download.repository import Repository
    from jand.download.reuse import Reuse
    from jand.model.spec import Spec


def plan_here(
    spec: Spec, present: Mapping[str, int], reuse: Reuse, machine: Machine, *, stem: str = "", kept: Sequence[str] = ()
) -> Plan:
    """Return what *spec* lacks, as `Downloader.plan` does, from files that other programs seem to have. Blocks for the disk.

    Raises the planner's errors where they have not all that is needed.
    """
    wish = wish_of(spec, stem=stem, kept=tuple(kept))
    endpoint = reuse.endpoint
    listings = {
        repository: reuse.offer(repository, _digests(wish, repository, endpoint))
        for repository in repositories_needed(wish, endpoint)
    }
    around = Surroundings(endpoint, machine, listings, None, present, None)
    if (file := header_wanted(wish, around)) is not None:
        own = parse_repository(wish.origin, endpoint)
        around = replace(around, header=reuse.find_header(own, file.path, file.size))
    return make_plan(wish, around)


def _digests(wish: Wish, repository: Repository, endpoint: str) -> dict[str, str]:
    """Return which digests the JSON demands of files of *repository* that it names."""
    demanded: dict[str, str] = {}
    for item in wish.named:
        if repository_of(item, wish, endpoint) == repository:
            address = find_hub_address(item, endpoint)
            for name in split_names(address.path if address else parse_reference(item).name):
                if name and (digest := demanded_digest(name, wish)) is not None:
                    demanded[name] = digest
    return demanded
