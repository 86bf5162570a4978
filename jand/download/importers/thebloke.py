"""`thebloke`: repositories `NAME-GGUF` whose files are `name.QUANTISATION.gguf`, at the top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.download.importers.importer import Importer, find_one_model
from jand.download.variants import Variant, variants_of

if TYPE_CHECKING:
    from jand.download.repository import Listing


def find_by_scheme(listing: Listing) -> tuple[Variant, ...]:
    """Return the files that follow the scheme; where none does, judge the repository as any other."""
    model = listing.repository.name.partition("/")[2].lower().removesuffix("-gguf")
    files = [file for file in listing.files if "/" not in file.path and file.path.lower().startswith(f"{model}.")]
    return tuple(variant for variant in variants_of(files) if variant.quantization) or find_one_model(listing)


THEBLOKE: Final = Importer("thebloke", find_by_scheme)
