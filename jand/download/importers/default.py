"""`default`: one complete model of the repository, whatever its author calls the files."""

from __future__ import annotations

from typing import Final

from jand.download.importers.importer import Importer, find_one_model

DEFAULT: Final = Importer("default", find_one_model)
