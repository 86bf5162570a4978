"""`azure_openai`: the model runs in an Azure resource; there is nothing to fetch."""

from __future__ import annotations

from typing import Final

from jand.download.importers.importer import Importer

AZURE_OPENAI: Final = Importer("azure_openai", None)
