"""What downloads can be told. Filled in by the composition root; nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jand import __version__
from jand.download.repository import HUGGING_FACE
from jand.download.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """*concurrency* files at once; *bandwidth_limit* in bytes per second for all together; *min_free* bytes are left on a disk (or 2 % of it, where that is more).

    *allow_private*: hosts in private networks that may be reached, True for all; the host of *endpoint* always may. *stall_s*: a connection on which nothing comes for so long is
    given up. *piece*: a larger file is asked for in pieces of so many bytes, since storage networks refuse to send 50 GB in one answer. *proxies* maps `http`, `https` and `no` as `urllib.request.getproxies` does.
    """

    endpoint: str = HUGGING_FACE
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    concurrency: int = 2
    bandwidth_limit: int | None = None
    allow_private: bool | frozenset[str] = frozenset()
    min_free: int = 1 << 30
    piece: int = 32 << 30
    stall_s: float = 30.0
    connect_s: float = 10.0
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    keep_partials_s: float = 86400.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    user_agent: str = f"jand/{__version__}"


def settings_from(environ: Mapping[str, str], proxies: Mapping[str, str], home: Path) -> DownloadSettings:
    """Return the settings that follow from the variables which other programs of the hub read too; *proxies* as found by `urllib.request.getproxies`.

    Reads the file with the token, where one is named or lies in its usual place below *home*.
    """
    return DownloadSettings(
        endpoint=environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUGGING_FACE,
        token=_find_token(environ, home),
        offline=any(
            environ.get(name, "").strip().upper() in {"1", "ON", "YES", "TRUE"}
            for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        ),
        proxies=dict(proxies),
    )


def _find_token(environ: Mapping[str, str], home: Path) -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := _cleaned(environ.get(name, "")):
            return token
    cache = Path(environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub_home = Path(environ.get("HF_HOME") or cache / "huggingface")
    path = Path(environ.get("HF_TOKEN_PATH") or hub_home / "token")
    try:
        with path.expanduser().open(encoding="ascii") as stream:
            return _cleaned(stream.read(4096))
    except (OSError, ValueError):
        return None


def _cleaned(token: str) -> str | None:
    """Return *token* without the line end that editors leave; None for what could not be sent in a header."""
    plain = token.strip()
    return plain if plain and plain.isascii() and plain.isprintable() and " " not in plain else None
