"""What must never be written: the secrets that the daemon knows, and the keys under which values are secrets whatever they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK: Final = "***"
SECRET_KEYS: Final = frozenset({"api_key", "api-key", "apikey", "authorization", "token", "password", "secret"})
SHORTEST_PART: Final = 6
"""A shorter secret is masked only where it is a whole value: replacing "ab" inside words would ruin every line."""


class Secrets:
    """Texts that must not be written. Grows while models come in; is read by whatever thread logs."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    def add(self, texts: Iterable[str]) -> None:
        self._known = self._known | {text for text in texts if text}

    def masked(self, value: object) -> object:
        """Return *value* with every known secret in it replaced, at any depth."""
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, bytes):
            return self._masked_text(value.decode(errors="backslashreplace"))
        if isinstance(value, dict):
            return {self.masked(key): self.masked_item(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.masked(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._masked_text(str(value))

    def masked_item(self, key: str, value: object) -> object:
        return MASK if key.lower() in SECRET_KEYS and value else self.masked(value)

    def _masked_text(self, text: str) -> str:
        if text in self._known:
            return MASK
        for secret in self._known:
            if len(secret) >= SHORTEST_PART and secret in text:
                text = text.replace(secret, MASK)
        return text


SECRETS: Final = Secrets()
"""The process's own: whoever learns a secret adds it here before it can be logged."""
