"""From wishes, listings and what is there to exact files: every way of naming them, and every way of choosing."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from jand.download.plan import Plan, Surroundings, Wish, header_wanted, make_plan, repositories_needed
from jand.download.repository import HUGGING_FACE, HubFile, Listing, Repository
from jand.errors import (
    AmbiguousBinaryError,
    BadDigestError,
    BadFileNameError,
    BadOriginError,
    HubNotFoundError,
    NoBinaryError,
    NothingFitsError,
    QuantizationNotFoundError,
    UnsafeAddressError,
)
from jand.model.gguf import read_header
from tests.fakes.downloading import machine
from tests.fakes.hub_files import LLAVA, MISTRAL_7B, ZEPHYR, ZEPHYR_SIZES, gguf_header, llava_files, zephyr_files

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMIT = "c" * 40
BASE = "https://huggingface.co"
MB = 10**6


def listing(name: str, files: Mapping[str, int]) -> Listing:
    found = tuple(HubFile(path, size, f"{number:064x}") for number, (path, size) in enumerate(files.items()))
    return Listing(Repository(name), COMMIT, found)


def sizes(files: Mapping[str, Any]) -> dict[str, int]:
    return {path: file.size for path, file in files.items()}


def plan_for(
    wish: Wish, *listings: Listing, memory_gb: float = 64, gpu_gb: float = 0, present: Mapping[str, int] | None = None
) -> Plan:
    raw = gguf_header(32, MISTRAL_7B) + bytes(32)
    header = read_header(io.BytesIO(raw), len(raw))
    around = Surroundings(
        HUGGING_FACE, machine(memory_gb, gpu_gb), {each.repository: each for each in listings}, header, present or {}
    )
    assert set(repositories_needed(wish, HUGGING_FACE)) <= set(around.listings)
    return make_plan(wish, around)


def names(plan: Plan) -> list[str]:
    return [file.name for file in plan.files]


SPLIT = {f"Q4_K_M/big-Q4_K_M-0000{number}-of-00003.gguf": 100 * MB for number in (1, 2, 3)}
ONE = listing("u/r", {"m-Q2_K.gguf": 300 * MB, "m-Q4_K_M.gguf": 400 * MB, "m-Q8_0.gguf": 800 * MB, "README.md": 10})


def test_a_name_a_list_and_an_address_are_the_same_to_a_plan() -> None:
    for named in (
        "m-Q2_K.gguf",
        f"{BASE}/u/r/resolve/main/m-Q2_K.gguf",
        f"{BASE}/u/r/blob/main/m-Q2_K.gguf?download=true",
    ):
        plan = plan_for(Wish("u/r", download_url=(named,)), ONE)
        assert [file.url for file in plan.files] == [f"{BASE}/u/r/resolve/main/m-Q2_K.gguf?download=true"]
        assert plan.files[0].on_hub
        assert plan.files[0].source == f"{BASE}/u/r/resolve/{COMMIT}/m-Q2_K.gguf"
    assert names(plan_for(Wish("u/r", download_url=("m-Q2_K.gguf", "m-Q8_0.gguf")), ONE)) == [
        "m-Q2_K.gguf",
        "m-Q8_0.gguf",
    ]


def test_a_file_named_twice_is_fetched_once() -> None:
    wish = Wish("u/r", download_url=("m-Q2_K.gguf", f"{BASE}/u/r/resolve/main/m-Q2_K.gguf"))
    assert names(plan_for(wish, ONE)) == ["m-Q2_K.gguf"]


def test_an_address_in_another_repository_is_listed_there() -> None:
    other = listing("v/s", {"sub/x-Q4_K_M.gguf": 5 * MB})
    wish = Wish("u/r", download_url=(f"{BASE}/v/s/resolve/main/sub/x-Q4_K_M.gguf",))
    assert repositories_needed(wish, HUGGING_FACE) == (Repository("v/s"),)
    assert names(plan_for(wish, other)) == ["sub/x-Q4_K_M.gguf"]


def test_a_plain_address_needs_no_hub_and_no_repository() -> None:
    wish = Wish("somewhere", download_url=("https://example.com/models/x.gguf?key=1",), digests={"x.gguf": "AB" * 32})
    plan = plan_for(wish)
    (file,) = plan.files
    assert (file.name, file.source, file.size) == ("x.gguf", "https://example.com/models/x.gguf?key=1", None)
    assert file.sha256 == "ab" * 32
    assert file.demanded
    assert plan.bytes_to_fetch is None


def test_a_part_of_a_split_file_stands_for_all() -> None:
    wish = Wish("u/r", download_url=("Q4_K_M/big-Q4_K_M-00001-of-00003.gguf",))
    assert names(plan_for(wish, listing("u/r", SPLIT))) == list(SPLIT)
    plain = plan_for(Wish("x", download_url=("https://example.com/a/big-00002-of-00003.gguf?k=1",)))
    assert [file.source for file in plain.files] == [
        f"https://example.com/a/big-0000{number}-of-00003.gguf?k=1" for number in (1, 2, 3)
    ]


def test_what_is_there_is_never_planned_over() -> None:
    """Whatever its size: a person put it there."""
    plan = plan_for(Wish("u/r", download_url=("m-Q2_K.gguf", "m-Q8_0.gguf")), ONE, present={"m-Q2_K.gguf": 7})
    assert names(plan) == ["m-Q8_0.gguf"]
    assert plan.present == {"m-Q2_K.gguf": 7}


@pytest.mark.parametrize("local", ["/srv/x.gguf", "~/x.gguf", "./x.gguf", "../x.gguf", "file:///srv/x.gguf"])
def test_local_binaries_are_not_fetched(local: str) -> None:
    assert plan_for(Wish("u/r", download_url=(local,))).files == ()


def test_a_file_that_is_not_listed_is_answered_with_near_names() -> None:
    with pytest.raises(HubNotFoundError) as caught:
        plan_for(Wish("u/r", download_url=("m-Q4_KM.gguf",)), ONE)
    assert caught.value.hint.startswith("did you mean m-Q4_K_M.gguf")


@pytest.mark.parametrize(
    "named", ["a/../../x.gguf", "a\\b.gguf", "https://example.com/..%2fx.gguf", "https://example.com/"]
)
def test_a_name_that_leaves_the_folder_is_refused(named: str) -> None:
    with pytest.raises(BadFileNameError):
        plan_for(Wish("u/r", download_url=(named,)), ONE)


@pytest.mark.parametrize(
    "address", ["ftp://example.com/x.gguf", "gopher://example.com/x.gguf", "https://me:pw@example.com/x.gguf"]
)
def test_other_schemes_and_passwords_are_refused(address: str) -> None:
    with pytest.raises(UnsafeAddressError):
        plan_for(Wish("u/r", download_url=(address,)), ONE)


def test_a_demanded_digest_is_held_against_the_listing() -> None:
    right = ONE.files[0].sha256
    assert right is not None
    assert plan_for(Wish("u/r", download_url=("m-Q2_K.gguf",), digests={"": right}), ONE).files[0].demanded
    with pytest.raises(BadDigestError):
        plan_for(Wish("u/r", download_url=("m-Q2_K.gguf",), digests={"m-Q2_K.gguf": "f" * 64}), ONE)


def test_thebloke_takes_the_recommended_quantisation_and_nothing_else() -> None:
    plan = plan_for(Wish(ZEPHYR, "thebloke"), listing(ZEPHYR, sizes(zephyr_files())), memory_gb=16)
    assert names(plan) == ["zephyr-7b-beta.Q4_K_M.gguf"]
    assert plan.quantization == "Q4_K_M"
    assert plan.chosen == ("zephyr-7b-beta.Q4_K_M.gguf",)
    assert len(plan.table) == 12


def test_default_takes_one_of_alternatives_and_not_55_gb() -> None:
    plan = plan_for(Wish(ZEPHYR), listing(ZEPHYR, sizes(zephyr_files())), memory_gb=16)
    assert plan.bytes_to_fetch == ZEPHYR_SIZES["Q4_K_M"]


def test_default_takes_the_whole_thing_when_asked_to() -> None:
    plan = plan_for(Wish(ZEPHYR, quantization="all"), listing(ZEPHYR, sizes(zephyr_files())))
    assert plan.bytes_to_fetch == sum(ZEPHYR_SIZES.values())


def test_a_projector_comes_with_its_weights() -> None:
    plan = plan_for(Wish(LLAVA), listing(LLAVA, sizes(llava_files())))
    assert names(plan) == ["ggml-model-q4_k.gguf", "mmproj-model-f16.gguf"]
    named = replace(Wish(LLAVA), mmproj="https://example.com/better-mmproj.gguf")
    assert names(plan_for(named, listing(LLAVA, sizes(llava_files())))) == [
        "ggml-model-q4_k.gguf",
        "better-mmproj.gguf",
    ]


def test_a_projector_of_the_json_comes_with_named_weights() -> None:
    wish = Wish("u/r", download_url=("m-Q2_K.gguf",), mmproj="m-Q8_0.gguf")
    assert names(plan_for(wish, ONE)) == ["m-Q2_K.gguf", "m-Q8_0.gguf"]


def test_adapters_are_fetched_too() -> None:
    with_lora = listing("u/r", {"m-Q4_K_M.gguf": MB, "lora-x.gguf": MB})
    assert names(plan_for(Wish("u/r", adapters=("lora-x.gguf", "/srv/mine.gguf")), with_lora)) == [
        "m-Q4_K_M.gguf",
        "lora-x.gguf",
    ]


def test_all_parts_of_a_split_choice_are_fetched() -> None:
    assert names(plan_for(Wish("u/r"), listing("u/r", SPLIT))) == list(SPLIT)


@pytest.mark.parametrize("wanted", ["Q2_K", "q2_k", "Q2", "m-Q2"])
def test_metadata_quantization_decides(wanted: str) -> None:
    assert names(plan_for(Wish("u/r", quantization=wanted), ONE)) == ["m-Q2_K.gguf"]


def test_an_asked_for_quantisation_is_fetched_even_where_it_does_not_fit() -> None:
    assert names(plan_for(Wish("u/r", quantization="Q8_0"), ONE, memory_gb=1)) == ["m-Q8_0.gguf"]


def test_a_quantisation_that_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(QuantizationNotFoundError, match="Q2_K, Q4_K_M, Q8_0"):
        plan_for(Wish("u/r", quantization="Q6_K"), ONE)


def test_the_name_of_the_json_may_state_a_quantisation() -> None:
    assert names(plan_for(Wish("u/r", stem="mine-Q8_0"), ONE)) == ["m-Q8_0.gguf"]
    assert names(plan_for(Wish("u/r", stem="mine-Q6_K"), ONE)) == ["m-Q4_K_M.gguf"]


def test_a_choice_is_kept_when_the_machine_changes() -> None:
    assert names(plan_for(Wish("u/r", kept=("m-Q8_0.gguf",)), ONE, memory_gb=1)) == ["m-Q8_0.gguf"]
    assert names(plan_for(Wish("u/r", kept=("gone-Q8_0.gguf",)), ONE)) == ["m-Q4_K_M.gguf"]


def test_a_part_that_is_there_already_decides() -> None:
    wish = Wish("u/r")
    whole = listing("u/r", {**SPLIT, "big-Q8_0.gguf": 900 * MB, "big-Q2_K.gguf": 50 * MB})
    first = next(iter(SPLIT))
    plan = plan_for(replace(wish, stem="x"), whole, present={first: 100 * MB}, memory_gb=0.1)
    assert names(plan) == list(SPLIT)[1:]


def test_nothing_is_planned_where_nothing_fits() -> None:
    with pytest.raises(NothingFitsError):
        plan_for(Wish(ZEPHYR, "thebloke"), listing(ZEPHYR, sizes(zephyr_files())), memory_gb=4)


def test_a_header_is_wanted_only_where_there_is_something_to_decide() -> None:
    around = Surroundings(HUGGING_FACE, machine(16), {ONE.repository: ONE})
    assert header_wanted(Wish("u/r"), around) == ONE.files[0]
    for settled in (
        Wish("u/r", download_url=("m-Q2_K.gguf",)),
        Wish("u/r", quantization="Q2_K"),
        Wish("u/r", kept=("m-Q2_K.gguf",)),
        Wish("x", "openai", remote=True),
    ):
        assert header_wanted(settled, around) is None


@pytest.mark.parametrize("import_format", ["openai", "azure_openai"])
def test_remote_formats_fetch_nothing(import_format: str) -> None:
    wish = Wish("https://api.openai.com/v1", import_format)
    assert repositories_needed(wish, HUGGING_FACE) == ()
    assert plan_for(wish).remote
    assert plan_for(Wish("https://api.example.com", remote=True)).remote


def test_several_models_in_one_repository_are_told_apart_or_listed() -> None:
    mixed = listing("u/small-GGUF", {"small-Q4_K_M.gguf": MB, "large-Q4_K_M.gguf": 2 * MB})
    assert names(plan_for(Wish("u/small-GGUF"), mixed)) == ["small-Q4_K_M.gguf"]
    with pytest.raises(AmbiguousBinaryError) as caught:
        plan_for(Wish("u/r"), replace(mixed, repository=Repository("u/r")))
    assert caught.value.facts["choices"] == ("large-Q4_K_M.gguf", "small-Q4_K_M.gguf")


def test_thebloke_falls_back_where_files_do_not_follow_his_scheme() -> None:
    assert names(plan_for(Wish("u/r", "thebloke"), ONE)) == ["m-Q4_K_M.gguf"]


def test_thebloke_leaves_out_what_does_not_follow_his_scheme() -> None:
    mixed = listing(ZEPHYR, {**sizes(zephyr_files()), "another-model.Q4_K_M.gguf": MB})
    assert names(plan_for(Wish(ZEPHYR, "thebloke"), mixed)) == ["zephyr-7b-beta.Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("TheBloke/zephyr-7B-beta-GPTQ", {"model.safetensors": MB}, "GPTQ"),
        ("TheBloke/llama-2-7B-GGML", {"llama.ggmlv3.q4_0.bin": MB}, "GGML"),
        ("u/r", {"model.safetensors": MB}, "safetensors"),
        ("u/r", {"ggml-model-q4_0.bin": MB}, "older GGML"),
        ("u/r", {"big.Q6_K.gguf-split-a": MB}, "joined by hand"),
        ("u/r", {"README.md": 1}, "no whole GGUF"),
        ("u/r", dict(list(SPLIT.items())[:2]), "no whole GGUF"),
    ],
)
def test_a_repository_without_a_model_that_runs_here_says_why(name: str, files: dict[str, int], said: str) -> None:
    with pytest.raises(NoBinaryError, match=said) as caught:
        plan_for(Wish(name, "thebloke" if "Bloke" in name else "default"), listing(name, files))
    assert caught.value.hint


def test_an_origin_that_is_no_repository_is_said_to_be_none() -> None:
    with pytest.raises(BadOriginError):
        repositories_needed(Wish("just words"), HUGGING_FACE)


def test_a_mirror_is_asked_in_the_hubs_place() -> None:
    around = Surroundings("https://mirror.example", machine(16), {ONE.repository: ONE})
    for named in ("m-Q2_K.gguf", f"{BASE}/u/r/resolve/main/m-Q2_K.gguf"):
        (file,) = make_plan(Wish("u/r", download_url=(named,)), around).files
        assert file.source.startswith("https://mirror.example/u/r/resolve/")


def test_a_revision_is_in_the_address() -> None:
    pinned = replace(ONE, repository=Repository("u/r", "v1"))
    (file,) = plan_for(Wish("u/r@v1", download_url=("m-Q2_K.gguf",)), pinned).files
    assert file.url == f"{BASE}/u/r/resolve/v1/m-Q2_K.gguf?download=true"
