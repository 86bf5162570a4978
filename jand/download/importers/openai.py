"""`openai`: the model runs at an OpenAI-compatible provider; there is nothing to fetch."""

from __future__ import annotations

from typing import Final

from jand.download.importers.importer import Importer

OPENAI: Final = Importer("openai", None)
