"""What was chosen and learned, in `.jand/state.json`: small facts that make the next start better and whose loss costs nothing.

Anybody may delete the file at any time, and a damaged one counts as none.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import structlog

from jand import atomic

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)


class Notes:
    """A mapping of sections to JSON values by key, written through to *path* at each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sections: dict[str, dict[str, Any]] = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("state file ignored", path=str(self._path), reason=str(error))
            return {}
        if not isinstance(content, dict):
            return {}
        return {name: section for name, section in content.items() if isinstance(section, dict)}

    def find(self, section: str, key: str) -> Any:
        """Return the value noted under *key*, or None."""
        return self._sections.get(section, {}).get(key)

    def note(self, section: str, key: str, value: Any) -> None:
        """Keep *value* (None forgets it). A disk that takes no writes costs the note, never the caller."""
        known = self._sections.setdefault(section, {})
        if known.get(key) == value:
            return
        if value is None:
            known.pop(key, None)
        else:
            known[key] = value
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            atomic.write(self._path, json.dumps(self._sections, indent=1).encode(), replace=True)
        except OSError as error:
            log.warning("state file not written", path=str(self._path), reason=os.strerror(error.errno or 0))
