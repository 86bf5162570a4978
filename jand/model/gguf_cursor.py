"""A place in a stream of bytes, which reads ahead in large pieces and never past the limits of a header.

It knows what a GGUF is made of (numbers, strings, arrays of both) and nothing of what they mean. `data` and `pos` are open to its caller, because unpacking in
place is what makes a header of a quarter of a million strings cost milliseconds: call `need`, then unpack at `pos` and move it on.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from jand.errors import GgufError, IncompleteGgufError

if TYPE_CHECKING:
    from typing import BinaryIO

MAX_HEADER: Final = 256 << 20
MAX_STRING: Final = 16 << 20
MAX_STRINGS: Final = 4 << 20
"""Elements of all string arrays of a header together: five times the largest vocabulary with its merges, and half a second to step over."""

_FIRST_READ: Final = 8 << 10
_READ: Final = 256 << 10
_PIECE: Final = 64 << 10
"""What is only compared is read in pieces of this size: fresh memory for a megabyte costs more than what is done with it."""
_HOLE: Final = 32
"""So many zeros, where no GGUF could have them, are taken for a part of the file that has not been written yet."""


_MANY_STRINGS: Final = 8192
_TELLING: Final = 64
_MOST_FAMILIAR: Final = 64


_KEPT_BYTES: Final = 8 << 20


class _Familiar(NamedTuple):
    """Strings that were stepped over: their bytes in all, with the lengths, and a digest of those; *content* is these bytes, of the few of which they are kept."""

    length: int
    digest: bytes
    content: bytes | None


_familiar: Final[dict[tuple[str, int, bytes], _Familiar]] = {}
"""Vocabularies and merges, by their number and first bytes: families of models share them, and to compare or digest them takes a fraction of the time of a hundred thousand steps."""

_NUMBERS: Final = {
    sign: (struct.Struct(f"{sign}I").unpack_from, struct.Struct(f"{sign}Q").unpack_from) for sign in "<>"
}


class Cursor:
    """Reads a file of *size* bytes from its beginning, where *stream* must stand; *label* is how messages call it."""

    __slots__ = (
        "_base",
        "_size",
        "_stream",
        "_strings_left",
        "byte_order",
        "data",
        "label",
        "order",
        "pos",
        "u32",
        "u64",
    )

    def __init__(self, stream: BinaryIO, size: int, label: str) -> None:
        self._stream = stream
        self._size = size
        self._base = 0
        self._strings_left = MAX_STRINGS
        self.label = label
        self.pos = 0
        self.data = self._read(_FIRST_READ)
        self.use_byte_order("little")

    def use_byte_order(self, byte_order: str) -> None:
        """Read numbers from here on as *byte_order* ("little" or "big") has them; `order` is its sign in the format of struct."""
        self.byte_order = byte_order
        self.order = ">" if byte_order == "big" else "<"
        self.u32, self.u64 = _NUMBERS[self.order]

    @property
    def position(self) -> int:
        """The offset in the file of the next byte."""
        return self._base + self.pos

    @property
    def left(self) -> int:
        """How many bytes the file has from here on."""
        return self._size - self.position

    def need(self, count: int) -> None:
        """Have the next *count* bytes in `data` from `pos` on."""
        if len(self.data) - self.pos < count:
            self._refill(count)

    def read_u32(self) -> int:
        self.need(4)
        value: int = self.u32(self.data, self.pos)[0]
        self.pos += 4
        return value

    def read_u64(self) -> int:
        self.need(8)
        value: int = self.u64(self.data, self.pos)[0]
        self.pos += 8
        return value

    def read_name(self, longest: int, what: str) -> bytes:
        """Read the name of a *what*: a string that is neither empty nor longer than *longest*."""
        data, start = self.data, self.pos + 8
        if start <= len(data):
            # Nearly always all of it is here already.
            length = self.u64(data, start - 8)[0]
            if 0 < length <= longest and start + length <= len(data):
                self.pos = start + length
                return data[start : self.pos]
        length = self.read_u64()
        if length == 0:
            self.pos -= 8
            raise self.blank(f"a {what} has no name")
        if length > longest:
            raise self.bad(f"the name of a {what} has {length:,} bytes")
        return self.take(length)

    def take(self, count: int) -> bytes:
        self.need(count)
        start = self.pos
        self.pos = start + count
        return self.data[start : self.pos]

    def skip(self, count: int) -> None:
        """Step over *count* bytes without reading those that are not here yet."""
        self.pos += count
        if self.pos > len(self.data):
            self._jump()

    def skip_strings(self, count: int) -> None:
        """Step over *count* strings, each its length in 64 bits and then its bytes."""
        if count > self._strings_left:
            raise self.bad(f"it lists more than {MAX_STRINGS:,} strings")
        self._strings_left -= count
        self.expect(8 * count)
        if count < _MANY_STRINGS or not self._skip_familiar(count):
            start, left = self.position, count
            while left:
                self.need(8)
                left = self._skip_strings_here(left)
            if count >= _MANY_STRINGS:
                self._make_familiar(count, start)

    def _skip_familiar(self, count: int) -> bool:
        """Step over strings that are, byte for byte, what was stepped over one by one in another file."""
        self.need(_TELLING)
        start = self.position
        known = _familiar.get((self.order, count, self.data[self.pos : self.pos + _TELLING]))
        if known is None or known.length > min(self.left, MAX_HEADER - start):
            return False
        if known.content is not None:
            if self._equals_next(known.content):
                return True
        elif self._digest_next(known.length) == known.digest:
            return True
        self._go_back(start)
        return False

    def _make_familiar(self, count: int, start: int) -> None:
        """Learn what the *count* strings from *start* to here are, by reading them once more."""
        end = self.position
        if end > self._size:
            return
        self._go_back(start)
        self.need(_TELLING)
        key = (self.order, count, self.data[:_TELLING])
        while len(_familiar) >= _MOST_FAMILIAR:
            _familiar.pop(next(iter(_familiar)), None)
        kept = sum(known.length for known in _familiar.copy().values() if known.content is not None)
        if end - start + kept > _KEPT_BYTES:
            _familiar[key] = _Familiar(end - start, self._digest_next(end - start), None)
        else:
            _familiar[key] = _Familiar(end - start, b"", self.take(end - start))

    def _equals_next(self, content: bytes) -> bool:
        """Step over as many bytes as *content* has, and say whether they are the same."""
        here = len(self.data) - self.pos
        if self.data[self.pos : self.pos + len(content)] != content[:here]:
            return False
        self.pos += len(content)
        if here >= len(content):
            return True
        self._base, self.pos, self.data = self.position, 0, b""
        while here < len(content):
            piece = self._stream.read(min(_PIECE, len(content) - here))
            if not piece or not content.startswith(piece, here):
                return False
            here += len(piece)
        return True

    def _digest_next(self, count: int) -> bytes:
        """Step over *count* bytes, and digest them."""
        digest = hashlib.sha256()
        while count:
            piece = min(count, _READ)
            self.need(piece)
            digest.update(memoryview(self.data)[self.pos : self.pos + piece])
            self.pos += piece
            count -= piece
        return digest.digest()

    def _go_back(self, position: int) -> None:
        self._stream.seek(position)
        self._base, self.pos, self.data = position, 0, b""

    def _skip_strings_here(self, count: int) -> int:
        """Step over those of *count* strings whose lengths are in `data`; return how many are left."""
        unpack, data, pos = self.u64, self.data, self.pos
        left = count
        with suppress(struct.error, OverflowError):  # the next length lies beyond `data`
            for left in range(count, 0, -1):  # noqa: B007
                pos += 8 + unpack(data, pos)[0]
            left = 0
        if pos - len(data) > MAX_STRING:
            raise self.bad("it lists a string that is longer than any could be")
        self.pos = pos
        if pos > len(data):
            self._jump()
        return left

    def expect(self, count: int) -> None:
        """Refuse a file that has not *count* more bytes, before any work is spent on them."""
        if count > self._size - self.position:
            raise self.ended(self.position + count)

    def bad(self, cause: str) -> GgufError:
        return GgufError(
            f"cannot use {self.label}: it is a damaged GGUF: {cause} (near byte {self.position:,})",
            hint="copy or download it again",
        )

    def blank(self, cause: str) -> GgufError:
        """Make the error for a zero at `pos` where none can be; where only zeros follow, the file is taken for one that is not written to its end."""
        rest = self.data[self.pos : self.pos + _HOLE]
        rest += self._read(_HOLE - len(rest), after=len(self.data))
        if len(rest) < _HOLE or any(rest):
            return self.bad(cause)
        return IncompleteGgufError(
            f"cannot use {self.label}: from byte {self.position:,} on, within its header, it holds zeros only",
            hint="if nothing is writing to it any more, copy or download it again",
        )

    def ended(self, needed: int) -> IncompleteGgufError:
        """Make the error for a file that ends before byte *needed* of its header."""
        return IncompleteGgufError(
            f"cannot use {self.label}: it ends within its header, at byte {self._size:,}, and needs at least {needed:,}",
            hint="if nothing is writing to it any more, copy or download it again",
            needed=needed,
        )

    def _refill(self, count: int) -> None:
        if self.position + count > MAX_HEADER:
            raise self.bad(f"its header is larger than {MAX_HEADER >> 20} MiB")
        rest = self.data[self.pos :]
        self._base += self.pos
        self.pos = 0
        self.data = rest + self._read(max(count, _READ) - len(rest), after=len(rest))
        if len(self.data) < count:
            raise self.ended(self._base + count)

    def _jump(self) -> None:
        """Go on where `pos` points to, beyond `data`."""
        position = self.position
        if position > self._size:
            raise self.ended(position)
        if position > MAX_HEADER:
            raise self.bad(f"its header is larger than {MAX_HEADER >> 20} MiB")
        self._stream.seek(position)
        self._base, self.pos, self.data = position, 0, b""

    def _read(self, count: int, after: int = 0) -> bytes:
        """Read up to *count* bytes, which follow *after* ones that are here; a raw stream may return fewer than there are."""
        count = min(count, self._size - self._base - after)
        pieces = []
        while count > 0 and (piece := self._stream.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
