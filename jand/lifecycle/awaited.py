"""Which files of a download under way are still to come: a scan cannot know that a projector is on its way behind weights that are there. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.library.findings import Found


def outstanding(found: Found, awaited: Sequence[str]) -> tuple[str, ...]:
    """Return those of *awaited*, the names of all files of a plan, that are not there.

    None where something else is there: then somebody has put together what the model needs, and nothing is to be added to that.
    """
    if not awaited:
        return ()
    here = {binary.name for binary in found.binaries if binary.present}
    return tuple(name for name in awaited if name not in here) if here <= set(awaited) else ()
