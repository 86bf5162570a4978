"""Files laid out as other programs keep them below a home directory; each function returns the file that holds the bytes."""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def digest_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def hub_cache(home: Path, repo: str, path: str, source: Path, *, commit: str = COMMIT, revision: str = "main") -> Path:
    """Put *source* into the cache of Hugging Face's libraries, as the file *path* of *repo*."""
    folder = home / ".cache" / "huggingface" / "hub" / f"models--{repo.replace('/', '--')}"
    blob = _copy(source, folder / "blobs" / digest_of(source))
    named = folder / "snapshots" / commit / path
    named.parent.mkdir(parents=True, exist_ok=True)
    named.symlink_to("../" * (path.count("/") + 2) + f"blobs/{blob.name}")
    ref = folder / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)
    return blob


def lm_studio(home: Path, repo: str, path: str, source: Path) -> Path:
    return _copy(source, home / ".lmstudio" / "models" / repo / path)


def ollama(home: Path, repo: str, path: str, source: Path) -> Path:
    return _copy(source, home / ".ollama" / "models" / "blobs" / f"sha256-{digest_of(source)}")


def llama_cpp(home: Path, repo: str, path: str, source: Path) -> Path:
    return _copy(source, home / ".cache" / "llama.cpp" / f"{repo}_{path}".replace("/", "_"))


LAYOUTS = {"hub-cache": hub_cache, "lm-studio": lm_studio, "ollama": ollama, "llama-cpp": llama_cpp}
