"""Where other programs of this machine keep models, and under which names: the layouts of the hub's cache, LM Studio, Ollama and llama.cpp.

Only says where a file would lie. Whether what lies there may be used is for `reuse` to find out: a name is never trusted here for a content.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand.download.repository import DEFAULT_REVISION, HubFile, Listing, parse_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jand.download.repository import Repository

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LARGEST_POINTER: Final = 64 << 10
_DEEPEST: Final = 6
_MOST_FILES: Final = 10_000

OLLAMA_SERVICE: Final = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama's installer for Linux lets its service, an account of its own, keep models."""


class Layout(StrEnum):
    """How the files of a place are named."""

    HUB = "hub"
    """`models--user--repo/snapshots/COMMIT/path`, links to `blobs/SHA256`: Hugging Face's libraries, and llama.cpp since 2026 (its pull request 20775)."""
    LM_STUDIO = "lm-studio"
    """`user/repo/file`."""
    OLLAMA = "ollama"
    """`blobs/sha256-HEX`."""
    LLAMA_CPP = "llama.cpp"
    """`user_repo_path_of_file`, flat."""


@dataclass(frozen=True, slots=True)
class Place:
    """One directory of another program; it need not exist. *service*: an account that root set up for that program owns it."""

    path: Path
    layout: Layout
    service: bool = False


@dataclass(frozen=True, slots=True)
class Sought:
    """One file that is wanted: *path* in *repository* (None for what no hub has), which is at *commit* now. What is not known is None."""

    path: str
    repository: Repository | None = None
    commit: str | None = None
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be the one sought. *sha256* is what its name says that it has."""

    path: Path
    place: Place
    sha256: str | None = None


def places_from(environ: Mapping[str, str], home: Path, platform: str = sys.platform) -> tuple[Place, ...]:
    """Return the places in the order in which they are looked at. Reads the small files by which LM Studio says that its folder is elsewhere."""

    def named(*names: str, below: str = "") -> list[Path]:
        values = [environ.get(name, "").strip() for name in names]
        paths = [home / value[2:] if value.startswith("~/") else Path(value) for value in values if value]
        return [path / below for path in paths if path.is_absolute()]

    caches = [*named("XDG_CACHE_HOME"), home / ".cache"]
    hubs = [*named("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), *named("HF_HOME", below="hub")]
    hubs += [cache / "huggingface" / "hub" for cache in caches]
    flat = [home / "Library" / "Caches"] if platform == "darwin" else caches
    by_layout = {
        Layout.HUB: [*hubs, *named("LLAMA_CACHE")],
        Layout.LM_STUDIO: _lm_studio_folders(home),
        Layout.OLLAMA: [*named("OLLAMA_MODELS"), home / ".ollama" / "models", OLLAMA_SERVICE],
        Layout.LLAMA_CPP: [*named("LLAMA_CACHE"), *(cache / "llama.cpp" for cache in flat)],
    }
    places = [
        Place(path, layout, service=path == OLLAMA_SERVICE) for layout, paths in by_layout.items() for path in paths
    ]
    return tuple(dict.fromkeys(places))


def _lm_studio_folders(home: Path) -> list[Path]:
    pointer = _read_text(home / ".lmstudio-home-pointer").strip()
    named = [Path(pointer)] if _is_absolute(pointer) else []
    folders: list[Path] = []
    for base in (*named, home / ".lmstudio", home / ".cache" / "lm-studio"):
        folders += [*_downloads_folder(base), base / "models"]
    return folders


def _downloads_folder(base: Path) -> list[Path]:
    try:
        settings = json.loads(_read_text(base / "settings.json") or "{}")
    except (ValueError, RecursionError):
        return []
    folder = settings.get("downloadsFolder") if isinstance(settings, dict) else None
    return [Path(folder)] if isinstance(folder, str) and _is_absolute(folder) else []


def _is_absolute(path: str) -> bool:
    return path.startswith("/") and "\0" not in path


def _read_text(path: Path) -> str:
    """Read a small text file; "" for one that is not there, is something else, or cannot be understood."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        return os.read(descriptor, _LARGEST_POINTER).decode()
    except (OSError, ValueError):
        return ""
    finally:
        os.close(descriptor)


# Looking for one file.


def candidates(places: Sequence[Place], sought: Sought) -> Iterator[Candidate]:
    """Yield what may be *sought*, the likeliest first: by digest, else by repository and path. Blocks for a few looks at the disk.

    Without a digest to hold it to, only the revision that is wanted counts, and no name that two repositories can share.
    """
    seen: set[Path] = set()
    for find in (_by_digest, _by_name):
        for place in places:
            for candidate in find(place, sought):
                if candidate.path not in seen:
                    seen.add(candidate.path)
                    yield candidate


def _by_digest(place: Place, sought: Sought) -> Iterator[Candidate]:
    if sought.sha256 is None:
        return
    if place.layout is Layout.OLLAMA:
        yield Candidate(place.path / "blobs" / f"sha256-{sought.sha256}", place, sought.sha256)
    elif place.layout is Layout.HUB:
        for name in _names_in(place.path):
            if name.startswith("models--"):
                yield Candidate(place.path / name / "blobs" / sought.sha256, place, sought.sha256)


def _by_name(place: Place, sought: Sought) -> Iterator[Candidate]:
    repository = sought.repository
    if repository is None:
        return
    known = sought.sha256 is not None
    if place.layout is Layout.HUB:
        folder = _hub_folder(place, repository)
        commits = [_find_commit(folder, repository.revision), *([sought.commit] if sought.commit else [])]
        commits += _names_in(folder / "snapshots") if known else []
        for commit in dict.fromkeys(filter(None, commits)):
            yield _in_snapshot(place, folder, commit, sought.path)
    elif place.layout is Layout.LM_STUDIO and (known or repository.revision == DEFAULT_REVISION):
        # It has no folders below a repository's, whatever the repository has.
        for name in dict.fromkeys((sought.path, sought.path.rpartition("/")[2])):
            yield Candidate(place.path / repository.name / name, place)
    elif place.layout is Layout.LLAMA_CPP and (known or sought.size is not None):
        yield Candidate(place.path / f"{repository.name}_{sought.path}".replace("/", "_"), place)


def _hub_folder(place: Place, repository: Repository) -> Path:
    return place.path / f"models--{repository.name.replace('/', '--')}"


def _find_commit(folder: Path, revision: str) -> str | None:
    """Find the commit that *revision*, a branch, a tag or a commit, means in this cache."""
    if _COMMIT.fullmatch(revision):
        return revision
    if ".." in revision:
        return None
    commit = _read_text(folder / "refs" / revision).strip()
    return commit if _COMMIT.fullmatch(commit) else None


def _in_snapshot(place: Place, folder: Path, commit: str, path: str) -> Candidate:
    named = folder / "snapshots" / commit / path
    try:
        blob = named.readlink().name
    except OSError:
        blob = ""
    return Candidate(named, place, parse_digest(blob))


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:
        return []


# What this machine has of a repository, where no hub can be asked.


def offer(places: Sequence[Place], repository: Repository, digests: Mapping[str, str]) -> Listing:
    """Return the files of *repository* that seem to be here, as a hub would list them. Blocks for a few directory listings.

    *digests* maps files that a JSON names to the sha256 that it demands: those may lie where only digests are names.
    """
    found: dict[str, HubFile] = {}
    commit = None
    for place in places:
        if place.layout is Layout.HUB:
            folder = _hub_folder(place, repository)
            here = _find_commit(folder, repository.revision)
            if here is not None and commit in {None, here}:
                listed = _files_below(folder / "snapshots" / here)
                commit = here if listed else commit
                for path, size in listed:
                    named = _in_snapshot(place, folder, here, path)
                    found.setdefault(path, HubFile(path, size, named.sha256))
        elif place.layout is Layout.LM_STUDIO and repository.revision == DEFAULT_REVISION:
            for path, size in _files_below(place.path / repository.name):
                found.setdefault(path, HubFile(path, size))
    for path, digest in digests.items():
        if path in found:
            continue
        size_here = _size_of_any(candidates(places, Sought(path, sha256=digest)))
        if size_here is not None:
            found[path] = HubFile(path, size_here, digest)
    return Listing(repository, commit or repository.revision, tuple(found[path] for path in sorted(found)))


def _files_below(top: Path) -> list[tuple[str, int]]:
    """Return the files below *top*, by their paths from it, with their sizes; links to files are followed, links to folders are not."""
    found: list[tuple[str, int]] = []
    for folder, below, names in os.walk(top):
        inner = Path(folder).relative_to(top)
        if len(inner.parts) >= _DEEPEST or len(found) + len(names) > _MOST_FILES:
            below.clear()
            continue
        for name in names:
            try:
                size = (Path(folder) / name).stat().st_size
                found.append(((inner / name).as_posix(), size))
            except OSError:
                continue
    return found


def _size_of_any(found: Iterable[Candidate]) -> int | None:
    for candidate in found:
        try:
            return candidate.path.stat().st_size
        except OSError:
            continue
    return None
