"""Prompts with images, read beside the engine: a thread of its own turns images into embeddings while the engine's goes on decoding for everybody else.

What was encoded is kept by the sha256 of the image's bytes, least lately used going first, so that the next turn of a conversation encodes nothing; it does not
even unpack those images, since their size is known.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.engine.worker import media
from jand.engine.worker.images import open_pixels
from jand.engine.worker.media import Picture, Read
from jand.engine.worker.projector import Blank
from jand.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from jand.engine.worker.content import Image
    from jand.engine.worker.projector import Part, Projector
    from jand.engine.worker.turns import Counters

KEPT_BYTES: Final = 256 << 20
"""Of embeddings: 27 images of LLaVA 1.5, whose 576 tokens of 4,096 numbers are 9.4 MB."""


class CancelledReadError(Exception):
    """Nobody waits for the prompt any more."""


class OtherFormError(Exception):
    """An image takes another number of tokens at this place in the prompt than where it was encoded, as a few models have it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An image that was encoded: its size in pixels and the embeddings of its parts."""

    width: int
    height: int
    parts: tuple[npt.NDArray[np.float32], ...]

    @property
    def size(self) -> int:
        return sum(part.nbytes for part in self.parts)


class Memory:
    """What was seen, by digest, up to *limit* bytes; for all threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, digest: str) -> Seen | None:
        with self._lock:
            if (seen := self._seen.get(digest)) is not None:
                self._seen.move_to_end(digest)
            return seen

    def keep(self, digest: str, seen: Seen) -> None:
        with self._lock:
            if (before := self._seen.pop(digest, None)) is not None:
                self._held -= before.size
            self._seen[digest] = seen
            self._held += seen.size
            while self._held > self._limit and self._seen:
                self._held -= self._seen.popitem(last=False)[1].size


class Vision:
    """Reads prompts with images for a model that sees. *most* is how many tokens fit into a conversation, *most_atomic* into one micro-batch."""

    def __init__(
        self, projector: Projector, counters: Counters, *, most: int, most_atomic: int, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self.marker = projector.marker
        self._projector = projector
        self._counters = counters
        self._most = most
        self._most_atomic = most_atomic
        self._memory = Memory(kept_bytes)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def read(self, text: str, images: Sequence[Image], *, add_special: bool) -> Read:
        """Return the prompt *text*, in which each of *images* has its marker. Cancelling ends the work after the image that is being encoded."""
        seen = {image.digest: found for image in images if (found := self._memory.find(image.digest)) is not None}
        cancelled = threading.Event()
        # With nothing to encode it need not wait behind those who have: splitting is for any thread.
        executor = None if all(image.digest in seen for image in images) else self._encoder
        loop = asyncio.get_running_loop()
        work = Reading(self._projector, self._memory, text, images, cancelled, add_special=add_special)
        try:
            try:
                read = await loop.run_in_executor(executor, work.run, self._check_room)
            except OtherFormError:
                read = await loop.run_in_executor(self._encoder, work.afresh().run, self._check_room)
        finally:
            cancelled.set()
        self._counters.images += read.images
        self._counters.images_encoded += read.encoded
        self._counters.images_s += read.seconds
        return read

    def _check_room(self, parts: Sequence[Part]) -> None:
        """Refuse what cannot be answered before seconds are spent on encoding it."""
        media.check_room(sum(len(part.tokens) + part.count for part in parts), self._most)
        if self._projector.atomic and (largest := max(part.count for part in parts)) > self._most_atomic:
            raise BadRequestError(
                f"cannot answer: an image has {largest} tokens, which this model reads at once, and a batch has room for {self._most_atomic}",
                hint="scale the image down, or raise n_batch",
                param="messages",
            )


class Reading:
    """One prompt on its way through a thread."""

    def __init__(
        self,
        projector: Projector,
        memory: Memory | None,
        text: str,
        images: Sequence[Image],
        cancelled: threading.Event,
        *,
        add_special: bool,
    ) -> None:
        self._projector = projector
        self._memory = memory
        self._text = text
        self._images = images
        self._cancelled = cancelled
        self._add_special = add_special
        self._seen: dict[str, Seen] = {}
        # Without a memory each place in the prompt has its own embeddings, also those of one image.
        self._names = [
            image.digest if memory is not None else f"{image.digest}#{number}" for number, image in enumerate(images)
        ]

    def afresh(self) -> Reading:
        """Return the same work, done without what is remembered."""
        return Reading(self._projector, None, self._text, self._images, self._cancelled, add_special=self._add_special)

    def run(self, check: Callable[[Sequence[Part]], None]) -> Read:
        """Do it, *check* looking at the parts before anything is encoded. Blocks."""
        began = time.monotonic()
        opened: dict[str, npt.NDArray[np.uint8]] = {}
        sizes: dict[str, Blank] = {}
        given = [self._open(number, opened, sizes) for number in range(len(self._images))]
        with self._projector.split(self._text, given, add_special=self._add_special) as parts:
            given.clear()
            opened.clear()
            check(parts)
            encoded = self._encode(parts, sizes)
            tokens, pictures = self._assemble(parts)
            return Read(tokens, pictures, len(self._images), encoded, time.monotonic() - began)

    def _open(
        self, number: int, opened: dict[str, npt.NDArray[np.uint8]], sizes: dict[str, Blank]
    ) -> npt.NDArray[np.uint8] | Blank:
        """Return the pixels of image *number*, or a blank where its embeddings are, or will be, at hand."""
        name = self._names[number]
        if name in sizes:
            return sizes[name]
        # It may have been encoded for another request while this one waited.
        if self._memory is not None and (found := self._memory.find(name)) is not None:
            self._seen[name] = found
            sizes[name] = Blank(found.width, found.height)
            return sizes[name]
        self._check_wanted()
        opened[name] = open_pixels(self._images[number])
        height, width, _ = opened[name].shape
        sizes[name] = Blank(width, height)
        return opened[name]

    def _encode(self, parts: Sequence[Part], sizes: Mapping[str, Blank]) -> int:
        """Encode what is not at hand, and keep it. Return how many images those were."""
        encoded = 0
        for number, name in enumerate(self._names):
            if name in self._seen:
                continue
            made = []
            for part in parts:
                if part.image == number:
                    self._check_wanted()
                    made.append(self._projector.encode(part))
            self._seen[name] = Seen(sizes[name].width, sizes[name].height, tuple(made))
            if self._memory is not None:
                self._memory.keep(name, self._seen[name])
            encoded += 1
        return encoded

    def _assemble(self, parts: Sequence[Part]) -> tuple[list[int], tuple[Picture, ...]]:
        tokens: list[int] = []
        pictures: list[Picture] = []
        used = [0] * len(self._names)
        for part in parts:
            if part.places is None:
                tokens += part.tokens
                continue
            number = used[part.image]
            used[part.image] += 1
            embeddings = self._seen[self._names[part.image]].parts[number]
            if len(embeddings) != part.count:
                raise OtherFormError
            pictures.append(Picture(len(tokens), embeddings, part.places, part.span, self._projector.atomic))
            tokens += [media.placeholder(self._images[part.image].digest, number)] * part.count
        return tokens, tuple(pictures)

    def _check_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledReadError
