"""Pictures within a prompt, as plain data: where their placeholders stand, what is decoded in their place, and which position each token has.

A prompt is a list of tokens in which every embedding of a picture is one negative number, made from the picture's content with a key of this process: so prompts
that begin alike are found to, pictures included, and nobody can make two pictures that are taken for one another. A picture is reused or decoded anew as a whole.
"""

from __future__ import annotations

import hashlib
import secrets
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.errors import ContextExceededError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

_KEY: Final = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One run of embeddings from index *start* of the prompt on.

    *embeddings* is (count, width of the model), *places* the absolute positions: one row, or four for M-RoPE. *span* is by how many positions it moves what follows,
    *atomic* whether its tokens look at one another both ways and must be decoded at once.
    """

    start: int
    embeddings: npt.NDArray[np.float32]
    places: npt.NDArray[np.int32]
    span: int
    atomic: bool

    @property
    def count(self) -> int:
        return len(self.embeddings)

    @property
    def end(self) -> int:
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class Read:
    """A prompt that was read: its *tokens*, and its *pictures* in their order. *encoded* of all *images* had to be, in *seconds*."""

    tokens: list[int]
    pictures: tuple[Picture, ...] = ()
    images: int = 0
    encoded: int = 0
    seconds: float = 0.0


def placeholder(digest: str, part: int) -> int:
    """Return the number that stands for the embeddings of *part* of the image with *digest*."""
    made = hashlib.blake2b(f"{digest}:{part}".encode(), digest_size=8, key=_KEY).digest()
    return -1 - (int.from_bytes(made, "big") >> 1)


def position(pictures: Sequence[Picture], index: int) -> int:
    """Return the position of the token at *index*; the tokens of a picture before it may take fewer positions than they are."""
    return index + sum(picture.span - picture.count for picture in pictures if picture.end <= index)


def whole(pictures: Sequence[Picture], length: int) -> int:
    """Return *length*, or less where it would cut a picture in two."""
    if (picture := at(pictures, length)) is not None:
        return picture.start
    return length


def at(pictures: Sequence[Picture], index: int) -> Picture | None:
    """Return the picture that the token at *index* belongs to."""
    number = bisect_right(pictures, index, key=lambda picture: picture.start) - 1
    return pictures[number] if number >= 0 and index < pictures[number].end else None


def next_start(pictures: Sequence[Picture], index: int, end: int) -> int:
    """Return where the first picture after *index* begins, *end* where there is none."""
    number = bisect_right(pictures, index, key=lambda picture: picture.start)
    return pictures[number].start if number < len(pictures) else end


def check_room(count: int, room: int) -> None:
    """Raise ContextExceededError where a prompt of *count* tokens leaves nothing of *room* for an answer."""
    if count >= room:
        raise ContextExceededError(
            f"cannot answer: the prompt has {count} tokens, and a conversation has room for {room}, the answer included",
            hint="shorten it, or raise ctx_len",
            n_prompt_tokens=count,
            n_ctx=room,
        )
