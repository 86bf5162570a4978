"""Where other programs keep files: the variables they read, the names they give, and what a repository looks like in their folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from jand.download.neighbours import OLLAMA_SERVICE, Layout, Place, Sought, candidates, offer, places_from
from jand.download.repository import HubFile, Repository
from tests.fakes import neighbours

if TYPE_CHECKING:
    from pathlib import Path

REPO = Repository("some/noise-GGUF")
NAME = "noise.Q4_K_M.gguf"
DIGEST = "ab" * 32


def paths(home: Path, layout: Layout, platform: str = "linux", **environ: str) -> list[str]:
    """Return the places of *layout*, those below *home* as `~`."""
    found = places_from(environ, home, platform)
    return [str(place.path).replace(str(home), "~") for place in found if place.layout is layout]


def test_without_variables_the_usual_places_are_looked_at(tmp_path: Path) -> None:
    assert paths(tmp_path, Layout.HUB) == ["~/.cache/huggingface/hub"]
    assert paths(tmp_path, Layout.LM_STUDIO) == ["~/.lmstudio/models", "~/.cache/lm-studio/models"]
    assert paths(tmp_path, Layout.OLLAMA) == ["~/.ollama/models", str(OLLAMA_SERVICE)]
    assert paths(tmp_path, Layout.LLAMA_CPP) == ["~/.cache/llama.cpp"]
    assert paths(tmp_path, Layout.LLAMA_CPP, "darwin") == ["~/Library/Caches/llama.cpp"]


@pytest.mark.parametrize(
    ("variable", "value", "layout", "first"),
    [
        ("HF_HUB_CACHE", "/big/hub", Layout.HUB, "/big/hub"),
        ("HUGGINGFACE_HUB_CACHE", "/big/hub", Layout.HUB, "/big/hub"),
        ("HF_HOME", "~/hf", Layout.HUB, "~/hf/hub"),
        ("XDG_CACHE_HOME", "/cache", Layout.HUB, "/cache/huggingface/hub"),
        ("XDG_CACHE_HOME", "/cache", Layout.LLAMA_CPP, "/cache/llama.cpp"),
        ("OLLAMA_MODELS", "/big/ollama", Layout.OLLAMA, "/big/ollama"),
        ("LLAMA_CACHE", "/big/llama", Layout.LLAMA_CPP, "/big/llama"),
    ],
)
def test_the_variables_of_each_program_come_first(
    tmp_path: Path, variable: str, value: str, layout: Layout, first: str
) -> None:
    assert paths(tmp_path, layout, **{variable: value})[0] == first


def test_llama_cpp_keeps_either_layout_in_its_own_cache(tmp_path: Path) -> None:
    assert "/big/llama" in paths(tmp_path, Layout.HUB, LLAMA_CACHE="/big/llama")


@pytest.mark.parametrize("value", ["", "  ", "relative/hub"])
def test_a_variable_that_names_no_absolute_path_says_nothing(tmp_path: Path, value: str) -> None:
    assert paths(tmp_path, Layout.HUB, HF_HUB_CACHE=value) == ["~/.cache/huggingface/hub"]


def test_lm_studio_says_in_files_that_its_folder_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "studio").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path}/studio\n")
    (tmp_path / "studio" / "settings.json").write_text(json.dumps({"downloadsFolder": "/big/models"}))

    assert paths(tmp_path, Layout.LM_STUDIO)[:2] == ["/big/models", "~/studio/models"]


@pytest.mark.parametrize("content", [b"", b"relative", b"/a\0b", b"\xff\xfe", b"[" * 60_000])
def test_files_of_lm_studio_that_make_no_sense_are_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lmstudio").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_bytes(content)
    (tmp_path / ".lmstudio" / "settings.json").write_bytes(content)

    assert paths(tmp_path, Layout.LM_STUDIO) == ["~/.lmstudio/models", "~/.cache/lm-studio/models"]


# One file.


def found(home: Path, sought: Sought) -> list[str]:
    return [
        str(candidate.path.relative_to(home))
        for candidate in candidates(places_from({}, home, "linux"), sought)
        if candidate.path.is_relative_to(home) and candidate.path.exists()
    ]


@pytest.mark.parametrize("layout", neighbours.LAYOUTS)
def test_a_file_with_size_and_digest_is_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    neighbours.LAYOUTS[layout](tmp_path, REPO.name, NAME, source)

    assert found(tmp_path, Sought(NAME, REPO, neighbours.COMMIT, 7, neighbours.digest_of(source)))


def test_the_cache_of_another_repository_is_searched_by_digest(tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    blob = neighbours.hub_cache(tmp_path, "mirror/noise", "x.gguf", source)

    assert found(tmp_path, Sought(NAME, REPO, sha256=blob.name)) == [str(blob.relative_to(tmp_path))]
    assert not found(tmp_path, Sought(NAME, REPO, sha256=DIGEST))


def test_without_a_digest_only_the_wanted_revision_counts(tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    neighbours.hub_cache(tmp_path, REPO.name, NAME, source, commit="a" * 40, revision="old")
    neighbours.lm_studio(tmp_path, REPO.name, NAME, source)
    old, other = Repository(REPO.name, "old"), Repository(REPO.name, "other")

    assert len(found(tmp_path, Sought(NAME, old, size=7))) == 1
    assert "snapshots" in found(tmp_path, Sought(NAME, old, size=7))[0]
    assert found(tmp_path, Sought(NAME, other, size=7)) == []
    assert ".lmstudio" in found(tmp_path, Sought(NAME, REPO, size=7))[0], "it has no revisions: what it has is main"
    assert len(found(tmp_path, Sought(NAME, other, size=7, sha256=DIGEST))) == 2


def test_a_commit_is_a_revision(tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    neighbours.hub_cache(tmp_path, REPO.name, NAME, source, revision="unrelated")

    assert found(tmp_path, Sought(NAME, Repository(REPO.name, neighbours.COMMIT)))
    assert found(tmp_path, Sought(NAME, REPO, neighbours.COMMIT))
    assert not found(tmp_path, Sought(NAME, REPO, "b" * 40))


def test_a_name_that_two_repositories_can_share_counts_only_with_more_to_hold_it_to(tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    neighbours.llama_cpp(tmp_path, REPO.name, NAME, source)

    assert not found(tmp_path, Sought(NAME, REPO))
    assert found(tmp_path, Sought(NAME, REPO, size=7))


def test_lm_studio_has_no_folders_below_a_repositorys(tmp_path: Path) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    neighbours.lm_studio(tmp_path, REPO.name, NAME, source)

    assert found(tmp_path, Sought(f"Q4_K_M/{NAME}", REPO))


@pytest.mark.parametrize("content", ["", "no commit", "../../../../etc", "a" * 39])
def test_a_ref_that_names_no_commit_leads_nowhere(tmp_path: Path, content: str) -> None:
    (source := tmp_path / "source").write_bytes(b"content")
    blob = neighbours.hub_cache(tmp_path, REPO.name, NAME, source)
    (blob.parents[1] / "refs" / "main").write_text(content)

    assert not found(tmp_path, Sought(NAME, REPO, size=7))


# A repository.


def test_what_is_here_is_listed_as_a_hub_would(tmp_path: Path) -> None:
    (cached := tmp_path / "cached").write_bytes(b"cached")
    (studio := tmp_path / "studio").write_bytes(b"in the studio")
    (demanded := tmp_path / "demanded").write_bytes(b"by digest")
    blob = neighbours.hub_cache(tmp_path, REPO.name, f"Q4_K_M/{NAME}", cached)
    neighbours.lm_studio(tmp_path, REPO.name, "other.gguf", studio)
    digest = neighbours.digest_of(neighbours.ollama(tmp_path, "", "", demanded))
    listing = offer(places_from({}, tmp_path), REPO, {"demanded.gguf": digest, "absent.gguf": DIGEST})

    assert listing.commit == neighbours.COMMIT
    assert listing.files == (
        HubFile(f"Q4_K_M/{NAME}", 6, blob.name),
        HubFile("demanded.gguf", 9, digest),
        HubFile("other.gguf", 13),
    )


def test_a_repository_that_is_not_here_has_no_files(tmp_path: Path) -> None:
    places = [Place(tmp_path / "nowhere", layout) for layout in Layout]

    assert offer(places, REPO, {}).files == ()
