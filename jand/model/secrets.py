"""Which texts of a model JSON are secrets: keys by the names of their fields, passwords and signatures inside addresses.

A reference (`env:NAME`, `file:NAME`, `credential:NAME`) says where a secret is and is none itself. A secret that is known is blotted out wherever else it
stands: people note a key a second time, and put one into an address.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK: Final = "***"

SHORTEST: Final = 12
"""Characters from which on a secret is looked for in other texts: shorter ones, such as "ollama" and "not-needed", are words like others, and protect nothing."""

_SHOWN: Final = 200
"""No message shows more of a value; the pattern is quadratic on hostile texts."""

_NAME = re.compile(
    r"(api|access|secret|private|subscription)?(key|secret|password|passwd|credentials?|authorization|bearer)$"
)
_TOKEN = re.compile(r"(api|access|auth|bearer|refresh|hf|hub)?token$")
_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|hf|gsk|xai|key)[-_][\w-]{6,}|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{32,})",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"(env|file|credential):\S+")
_IN_ADDRESS = re.compile(
    r"""(?<=://)[^/?\#@\s]+(?=@)                       # user:password@
    | (?<=[?&])(?:[\w-]*(?:key|token|sig|signature|secret|password|credential)=)([^&\#\s]+)""",
    re.VERBOSE | re.IGNORECASE,
)


def is_secret_name(name: object) -> bool:
    """Whether a field of that name holds a secret, however it is spelled: API-KEY, apiKey, hf_token."""
    text = name if isinstance(name, str) else str(name)
    return _is_known_secret(text) if len(text) <= _SHOWN else _is_secret(text)


@lru_cache(maxsize=4096)
def _is_known_secret(name: str) -> bool:
    """Decide once for each name: every list asks for the few that all models have."""
    return _is_secret(name)


def _is_secret(name: str) -> bool:
    plain = re.sub(r"[^a-z]", "", name.lower())
    return _NAME.search(plain) is not None or _TOKEN.fullmatch(plain) is not None


def looks_secret(text: str) -> bool:
    """Whether *text* has the shape of a key, wherever it stands: for words about a value that ended up in the wrong place."""
    return _SHAPE.search(text[:_SHOWN]) is not None


def find(data: object) -> Iterator[str]:
    """Every secret in JSON-like *data*."""
    for name, text in _texts(None, data):
        if is_secret_name(name):
            if not _REFERENCE.fullmatch(text):
                yield text
        elif "://" in text:
            yield from (match[1] or match[0] for match in _IN_ADDRESS.finditer(text))


def mask(data: Any, name: object = None) -> Any:
    """Make a copy of JSON-like *data*, secrets as `***`, also where they stand in texts that are none themselves."""
    return blot(_mask(data, name), find(data))


def blot(data: Any, known: Iterable[str]) -> Any:
    """Make a copy of JSON-like *data* with `***` for every secret of *known* in any text or name of it."""
    # The longest first: one may be the beginning of another.
    texts = sorted({text for text in known if len(text) >= SHORTEST}, key=len, reverse=True)
    return _blot(data, texts) if texts else data


def _blot(data: Any, texts: list[str]) -> Any:
    if isinstance(data, dict):
        return {_blot(key, texts): _blot(value, texts) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_blot(item, texts) for item in data]
    if isinstance(data, str):
        for text in texts:
            data = data.replace(text, MASK)
    return data


def _mask(data: Any, name: object) -> Any:
    if isinstance(data, dict):
        return {key: _mask(value, key) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_mask(item, name) for item in data]
    if not isinstance(data, str):
        return data
    if is_secret_name(name):
        return data if _REFERENCE.fullmatch(data) else MASK
    if "://" not in data:
        return data
    return _IN_ADDRESS.sub(lambda match: match[0].replace(match[1], MASK) if match[1] else MASK, data)


def _texts(name: object, data: object) -> Iterator[tuple[object, str]]:
    if isinstance(data, str):
        yield name, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(key, value)
    elif isinstance(data, (list, tuple)):
        for item in data:
            yield from _texts(name, item)
