"""One way of finding a model's binaries for each `import_format`, where its JSON names none. Pure: they judge listings, they fetch nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.download.importers.azure_openai import AZURE_OPENAI
from jand.download.importers.default import DEFAULT
from jand.download.importers.janhq import JANHQ
from jand.download.importers.openai import OPENAI
from jand.download.importers.thebloke import THEBLOKE

if TYPE_CHECKING:
    from jand.download.importers.importer import Importer

IMPORTERS: dict[str, Importer] = {each.name: each for each in (DEFAULT, THEBLOKE, JANHQ, OPENAI, AZURE_OPENAI)}
"""By the value of `import_format`."""
