"""Beginning a download with bytes that this machine has: a model that wants what another has just fetched copies it.

The copy becomes a partial like any other, so that its transfer hashes and verifies it before it gets its name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from jand.download.partial import FileArrivedError, Notes, Partial
from jand.errors import DownloadError

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from jand.download.disk import Space
    from jand.download.plan import WantedFile

_PIECE: Final = 8 << 20


def seed(wanted: WantedFile, directory: Path, source: Path, space: Space, stop: threading.Event) -> None:
    """Copy *source*, where it is there and as long as it must be, into the partial of *wanted*, where that has nothing yet. Whatever goes wrong leaves it to the network. Blocks until *stop* is set."""
    partial = Partial(directory, wanted.name)
    try:
        partial.open()
        partial.look()
        if partial.size == 0:
            with source.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if wanted.size not in {None, size}:
                    return
                space.claim(partial.descriptor, partial, size, wanted.name)
                partial.note(Notes(wanted.source, wanted.sha256, size))
                while not stop.is_set() and (piece := stream.read(_PIECE)):
                    partial.append(piece)
    except (OSError, DownloadError, FileArrivedError):
        return
    finally:
        space.release(partial)
        partial.close()
