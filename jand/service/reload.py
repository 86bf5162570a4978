"""Reading the settings again while the daemon runs: what can change at once does, and the rest is named.

One reload at a time; a file that cannot be used changes nothing at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from jand.errors import SettingsError
from jand.settings import known_settings, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jand.settings import Loaded, Settings

    Apply = Callable[[Settings], None]
    Refresh = Callable[[Settings], Callable[[], None]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that was given another value; *before* and *after* are shown to people, secrets masked."""

    key: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Reloaded:
    """*applied* counts from now on, *restart_needed* from the next start on."""

    applied: tuple[Change, ...] = ()
    restart_needed: tuple[Change, ...] = ()


class Reloader:
    """Reads again what *loaded* was read from.

    *live* says for each setting that can change how that is done; a group of settings may share one. *refresh* reads, in a thread, what lies behind the settings in force (a certificate, a
    token's file) and returns what puts that in force; it raises SettingsError where it cannot be used.
    """

    def __init__(self, loaded: Loaded, live: Mapping[str, Apply], refresh: Refresh) -> None:
        self._loaded = loaded
        self._live = live
        self._refresh = refresh
        self._in_force = values_of(loaded.settings)
        self._turn = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Read, compare, apply; return what that did. Raises SettingsError where they cannot be used: then all stay as they were."""
        async with self._turn:
            try:
                loaded = await asyncio.to_thread(self._loaded.again)
                put_in_force = await asyncio.to_thread(self._refresh, loaded.settings)
            except SettingsError as error:
                raise SettingsError(
                    error.message,
                    hint=f"{error.hint or 'correct it'}; until then the old settings stay in force",
                    param=error.param,
                ) from error
            outcome = self._compare(loaded)
            put_in_force()
            return outcome

    def _compare(self, loaded: Loaded) -> Reloaded:
        after = values_of(loaded.settings)
        changed = [key for key, value in after.items() if value != self._in_force[key]]
        applied = [key for key in changed if key in self._live]
        for apply in dict.fromkeys(self._live[key] for key in applied):
            apply(loaded.settings)
        outcome = Reloaded(
            tuple(self._change(key, after) for key in applied),
            tuple(self._change(key, after) for key in changed if key not in self._live),
        )
        self._in_force.update((key, after[key]) for key in applied)
        self._loaded = loaded
        return outcome

    def _change(self, key: str, after: Mapping[str, object]) -> Change:
        return Change(key, shown(key, self._in_force[key]), shown(key, after[key]))


def values_of(settings: Settings) -> dict[str, object]:
    """Return every value by its dotted key; a table whose names the user chooses is one value."""
    values: dict[str, object] = {}
    for known in known_settings():
        value: object = settings
        for part in known.key.split("."):
            value = getattr(value, part)
        values[known.key] = value
    return values


def log_outcome(outcome: Reloaded, reason: str) -> None:
    """Say what a reload did, a line for each change."""
    log.info(
        "settings read again", reason=reason, applied=len(outcome.applied), restart_needed=len(outcome.restart_needed)
    )
    for change in outcome.applied:
        log.info("setting applied", key=change.key, before=change.before, after=change.after)
    for change in outcome.restart_needed:
        log.warning("setting needs a restart", key=change.key, before=change.before, after=change.after)
