"""A plan without the hub: the planner's rules on what this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jand.download.here import plan_here
from jand.download.neighbours import places_from
from jand.download.repository import HUGGING_FACE
from jand.download.reuse import Reuse
from jand.errors import BadDigestError, HubNotFoundError, NoBinaryError, NothingFitsError, QuantizationNotFoundError
from jand.library.probe import has_writer
from tests.fakes import gguf_files, neighbours
from tests.fakes.downloading import machine, spec_of

if TYPE_CHECKING:
    from pathlib import Path

    from jand.download.plan import Plan

REPO = "somebody/noise-GGUF"


def put(home: Path, file: str, **facts: Any) -> Path:
    (home / "sources").mkdir(exist_ok=True)
    source = gguf_files.bare_header(home / "sources" / file, size=100_000, **facts)
    return neighbours.hub_cache(home, REPO, file, source)


def plan(home: Path, *, memory_gb: float = 64, **fields: Any) -> Plan:
    reuse = Reuse(places_from({}, home), HUGGING_FACE, has_writer)
    return plan_here(spec_of(**fields), {}, reuse, machine(memory_gb))


def test_the_named_file_with_all_its_parts(tmp_path: Path) -> None:
    names = [f"noise-Q4_K_M-0000{part}-of-00002.gguf" for part in (1, 2)]
    blobs = [put(tmp_path, name, split=(part, 2)) for part, name in enumerate(names, 1)]
    planned = plan(tmp_path, download_url=names[0])

    assert [(file.name, file.sha256) for file in planned.files] == [
        (name, blob.name) for name, blob in zip(names, blobs, strict=True)
    ]


def test_of_what_is_here_the_importer_chooses_as_ever(tmp_path: Path) -> None:
    for quantization in ("Q2_K", "Q4_K_M", "Q8_0"):
        put(tmp_path, f"noise.{quantization}.gguf", name=quantization)
    put(tmp_path, "mmproj-noise-f16.gguf", architecture="clip")

    assert [file.name for file in plan(tmp_path).files] == ["noise.Q4_K_M.gguf", "mmproj-noise-f16.gguf"]
    assert plan(tmp_path, metadata={"quantization": "Q2_K"}).quantization == "Q2_K"
    with pytest.raises(QuantizationNotFoundError):
        plan(tmp_path, metadata={"quantization": "Q5_K_M"})


def test_the_header_of_the_file_here_decides_what_fits(tmp_path: Path) -> None:
    put(tmp_path, "noise.Q4_K_M.gguf")

    with pytest.raises(NothingFitsError):
        plan(tmp_path, memory_gb=0.00001)


def test_a_digest_that_is_demanded_is_held_against_the_name_of_the_blob(tmp_path: Path) -> None:
    blob = put(tmp_path, "noise.gguf")

    assert plan(tmp_path, download_url="noise.gguf", metadata={"sha256": blob.name}).files[0].demanded
    with pytest.raises(BadDigestError):
        plan(tmp_path, download_url="noise.gguf", metadata={"sha256": "ab" * 32})


@pytest.mark.parametrize("url", ["noise.gguf", f"{HUGGING_FACE}/{REPO}/resolve/main/noise.gguf"])
def test_a_file_that_only_a_digest_names_here_is_found_by_the_one_that_the_json_demands(
    tmp_path: Path, url: str
) -> None:
    source = gguf_files.bare_header(tmp_path / "source.gguf")
    neighbours.ollama(tmp_path, "", "", source)
    digest = neighbours.digest_of(source)
    planned = plan(tmp_path, download_url=url, metadata={"sha256": {"noise.gguf": digest}})

    assert [(file.name, file.sha256) for file in planned.files] == [("noise.gguf", digest)]


def test_what_is_not_here_is_said_as_of_a_hub_that_has_it_not(tmp_path: Path) -> None:
    with pytest.raises(NoBinaryError):
        plan(tmp_path)
    with pytest.raises(HubNotFoundError):
        plan(tmp_path, download_url="noise.gguf")
