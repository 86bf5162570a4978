"""The mark on a JSON that jand wrote by itself, by which one that nobody has edited is known again.

The mark is a digest over every other byte of the file, so any edit, be it of white space, makes the file a person's, which is never removed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

_DIGEST_CHARACTERS: Final = 32
UNSIGNED: Final = "0" * _DIGEST_CHARACTERS
"""What stands for the digest while it is computed; the value of `metadata.generated` in a text that goes to `sign`."""

_MARK: Final = re.compile(rb'("generated"\s*:\s*")([0-9a-f]{%d})(")' % _DIGEST_CHARACTERS)


def sign(text: str) -> bytes:
    """Put the digest into *text*, which has `"generated": UNSIGNED` exactly once."""
    raw = text.encode()
    found = _MARK.findall(raw)
    assert len(found) == 1, "a text is signed once"
    return _MARK.sub(rb"\g<1>" + _digest(raw) + rb"\g<3>", raw)


def is_unedited(raw: bytes) -> bool:
    """Whether *raw* is, byte for byte, what `sign` returned."""
    if b'"generated"' not in raw:
        return False
    found = _MARK.search(raw)
    return found is not None and found[2] == _digest(_MARK.sub(rb"\g<1>" + UNSIGNED.encode() + rb"\g<3>", raw))


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=_DIGEST_CHARACTERS // 2, person=b"jand generated").hexdigest().encode()
