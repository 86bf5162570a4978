"""The catalogue: model JSONs that wait to be registered, those of `<root>/catalog` before those that ship with jand.

Read anew at each call: a person may drop a JSON there at any time, and it is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from jand.model.document import MAX_BYTES, parse
from jand.model.identity import default_id

if TYPE_CHECKING:
    from pathlib import Path

    from jand.model.spec import Spec

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One JSON; *shipped*: it comes with jand."""

    id: str
    spec: Spec
    shipped: bool = False


class Catalog:
    """The JSONs of the directory *own* and of *shipped*; of two with one id the own counts. An entry's id is the name of its file."""

    def __init__(self, own: Path, shipped: Path) -> None:
        self._directories = (own, shipped)

    def entries(self) -> list[CatalogEntry]:
        """Read all of them, by id; what cannot be read is left out with a line in the log (blocks for disk I/O)."""
        known: dict[str, CatalogEntry] = {}
        for at, directory in enumerate(self._directories):
            for path in sorted(directory.glob("*.json")):
                try:
                    with path.open("rb") as stream:
                        document = parse(stream.read(MAX_BYTES + 1), path.name)
                except OSError as error:
                    log.warning("catalogue entry left out", path=str(path), reason=error.strerror)
                    continue
                if document.spec is None:
                    log.warning("catalogue entry left out", path=str(path), reason=document.problems[0].message)
                    continue
                name = default_id(path.name)
                known.setdefault(name, CatalogEntry(name, document.spec, shipped=at == 1))
        return [known[key] for key in sorted(known)]

    def find(self, model_id: str) -> CatalogEntry | None:
        return next((entry for entry in self.entries() if entry.id == model_id), None)
