"""janroot.example as people get it: all of it loads, and starting a daemon on it fetches nothing."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from jand.download.repository import parse_repository
from jand.library.findings import EntryScan, Found, Tree
from jand.library.headers import HeaderCache
from jand.library.scan import list_entries, scan_entry
from jand.model.document import parse
from jand.model.identity import default_id
from jand.settings import load
from tests.fakes import gguf_files, spec_examples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jand.model.spec import Spec

EXAMPLE: Final = Path(__file__).parents[2] / "janroot.example"
JSONS: Final = sorted(str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.json"))


def read(path: Path) -> Spec:
    document = parse(path.read_bytes(), path.name)
    assert document.spec is not None, document.problems
    assert document.problems == ()
    return document.spec


def catalog(name: str) -> Spec:
    return read(EXAMPLE / "catalog" / f"{name}.json")


def scan(models: Path) -> list[EntryScan]:
    tree = Tree(models, "models")
    return [scan_entry(tree, entry, HeaderCache(), now=time.time()) for entry in list_entries(tree)]


def models_of(scans: Iterable[EntryScan]) -> dict[str, Found]:
    return {default_id(found.path): found for each in scans for found in each.models}


@pytest.mark.parametrize("name", JSONS)
def test_every_json_loads_without_a_problem_and_explains_itself(name: str) -> None:
    text = (EXAMPLE / name).read_text()

    assert read(EXAMPLE / name).origin
    assert text.startswith("//")
    assert text.endswith("}\n")


def test_the_settings_load(tmp_path: Path) -> None:
    """As it is given, jand.toml changes nothing: every key in it is a comment with the default."""
    root = str(tmp_path)
    without = load({"root": root}, {}).settings
    shutil.copy(EXAMPLE / "jand.toml", tmp_path)

    assert load({"root": root}, {}).settings == without


def test_the_catalogue_has_the_models_of_model_specs() -> None:
    assert {path.stem for path in (EXAMPLE / "catalog").iterdir()} > {
        "model-zephyr-7B",
        "model-llava-v1.5-ggml",
        "llama2-7b-Q3",
        "openai-gpt4-turbo",
        "model-azure-openai-gpt4-turbo",
    }
    assert catalog("llama2-7b-Q3").download_url == ("llama-2-7b-chat.Q3_K_L.gguf",)
    assert catalog("openai-gpt4-turbo").is_remote


ENTRIES = sorted(path.stem for path in (EXAMPLE / "catalog").iterdir())


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_the_catalogue_says_what_it_is_and_under_which_licence_and_holds_no_key(name: str) -> None:
    spec = catalog(name)
    init = spec.parameters.init
    description = spec.metadata.description or ""

    assert spec.metadata.tags
    assert "remote" in spec.metadata.tags if spec.is_remote else find_licence(description), description
    assert spec.is_remote or parse_repository(spec.origin).name == spec.origin
    assert spec.is_remote or init.ctx_len
    assert bool(init.embedding) == ("embedding" in spec.metadata.tags) or name == "model-zephyr-7B" or spec.is_remote
    raw = (EXAMPLE / "catalog" / f"{name}.json").read_text()
    assert re.findall(r'"API-KEY": "(?!env:)', raw) == []


def find_licence(description: str) -> str | None:
    found = re.search(r"\((.*(?:licence|Apache 2\.0|MIT).*)\)$", description)
    return found[1] if found else None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model-zephyr-7B", spec_examples.ZEPHYR),
        ("model-llava-v1.5-ggml", spec_examples.LLAVA),
        ("model-azure-openai-gpt4-turbo", spec_examples.AZURE),
    ],
)
def test_the_catalogue_says_what_model_specs_says(name: str, text: str) -> None:
    written = parse(text.encode(), name).spec
    ours = catalog(name)

    assert written is not None
    assert (ours.origin, ours.import_format, ours.download_url) == (
        written.origin,
        written.import_format,
        written.download_url,
    )
    assert ours.created == written.created
    assert ours.metadata.engine is written.metadata.engine
    assert ours.parameters.runtime == written.parameters.runtime
    for name_of_field in ("ctx_len", "ngl", "pre_prompt", "user_prompt", "ai_prompt", "api_version"):
        assert getattr(ours.parameters.init, name_of_field) == getattr(written.parameters.init, name_of_field)


def test_no_key_stands_in_the_example() -> None:
    for name in JSONS:
        assert read(EXAMPLE / name).secrets() == set()


def test_the_models_register_with_the_ids_of_the_contract() -> None:
    """All layouts under "Filesystem" in model-specs.md are there."""
    models = models_of(scan(EXAMPLE / "models"))

    assert {
        "azure-openai-gpt3-5": "models/azure-openai/azure-openai-gpt3-5.json",
        "llama2-70b": "models/llama2-70b/model.json",
        "llama2-7b-gguf-Q2": "models/llama2-7b-gguf/llama2-7b-gguf-Q2.json",
        "llama2-7b-gguf-Q3_K_L": "models/llama2-7b-gguf/llama2-7b-gguf-Q3_K_L.json",
        "llava-ggml-Q5": "models/llava-ggml/llava-ggml-Q5.json",
        "llama-70b-finetune-q5": "models/llama-70b-finetune/llama-70b-finetune-q5.json",
    }.items() <= {model_id: found.path for model_id, found in models.items()}.items()
    assert models.keys() >= {"openai-gpt4-turbo", "my-model"}


def test_nothing_of_the_example_is_ever_fetched() -> None:
    """Remote models are whole as they are; local ones wait for a file of this machine, which no importer may fetch."""
    for model_id, found in models_of(scan(EXAMPLE / "models")).items():
        assert not found.missing, model_id
        assert not found.unresolved, model_id
        assert found.whole == found.spec.is_remote, model_id
        if not found.whole:
            assert found.error is not None
            assert found.error.code == "missing-binary"
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*")) < 200_000


def test_my_model_is_whole_once_any_gguf_is_copied_there(tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(EXAMPLE / "models", models)
    gguf_files.bare_header(models / "my-model" / "my-model.gguf")
    found = models_of(scan(models))["my-model"]

    assert found.whole
    assert [binary.name for binary in found.binaries] == ["my-model.gguf"]
