"""The models of model-specs.md resolve to exactly the files and addresses that its text gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jand.download.plan import Plan, Surroundings, make_plan
from jand.download.repository import HUGGING_FACE, HubFile, Listing, Repository
from jand.download.wish import wish_of
from jand.model.document import parse
from tests.fakes import spec_examples
from tests.fakes.downloading import machine
from tests.fakes.hub_files import LLAVA, ZEPHYR, llava_files, zephyr_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.model.spec import Spec
    from tests.fakes.hub_files import HubFile as Offered

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def listing_of(name: str, files: Mapping[str, Offered]) -> Listing:
    listed = tuple(HubFile(path, file.size, file.sha256 if file.lfs else None) for path, file in files.items())
    return Listing(Repository(name), COMMIT, listed)


def spec_of(text: str) -> Spec:
    spec = parse(text.encode(), "models/example/example.json").spec
    assert spec is not None
    return spec


def plan_for(text: str, memory_gb: float = 64) -> Plan:
    listings = [listing_of(ZEPHYR, zephyr_files()), listing_of(LLAVA, llava_files())]
    around = Surroundings(HUGGING_FACE, machine(memory_gb), {listing.repository: listing for listing in listings})
    return make_plan(wish_of(spec_of(text)), around)


def test_the_zephyr_example_is_one_file_at_the_address_in_its_text() -> None:
    plan = plan_for(spec_examples.ZEPHYR)
    (file,) = plan.files
    assert file.name == "zephyr-7b-beta.Q2_K.gguf"
    assert file.url == (
        "https://huggingface.co/TheBloke/zephyr-7B-beta-GGUF/resolve/main/zephyr-7b-beta.Q2_K.gguf?download=true"
    )
    assert file.size == 3_083_098_400
    assert file.sha256 == zephyr_files()["zephyr-7b-beta.Q2_K.gguf"].sha256
    assert (
        file.source == f"https://huggingface.co/TheBloke/zephyr-7B-beta-GGUF/resolve/{COMMIT}/zephyr-7b-beta.Q2_K.gguf"
    )


def test_the_llava_example_is_weights_and_projector() -> None:
    plan = plan_for(spec_examples.LLAVA)
    base = "https://huggingface.co/mys/ggml_llava-v1.5-13b/resolve/main"
    assert [file.url for file in plan.files] == [
        f"{base}/ggml-model-q4_k.gguf?download=true",
        f"{base}/mmproj-model-f16.gguf?download=true",
    ]
    assert [file.name for file in plan.files] == ["ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"]
    assert plan.bytes_to_fetch == 7_865_956_512 + 645_414_656


def test_the_azure_example_fetches_nothing() -> None:
    plan = plan_for(spec_examples.AZURE)
    assert plan.remote
    assert plan.files == ()
