"""The contract's rules on ids and on which binary belongs to which JSON."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.model import identity
from jand.model.identity import Candidate, Soundness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.model.identity import Group

segment = st.sampled_from(["a", "b", "model", "x#2", "é", "e\u0301"])
paths = st.lists(segment, min_size=1, max_size=4).map(lambda parts: "models/" + "/".join(parts) + ".json")
claims = st.dictionaries(paths, st.none() | st.sampled_from(["a", "b", "a/b", "model", "models/a"]), max_size=12)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("models/azure-openai/azure-openai-gpt3-5.json", "azure-openai-gpt3-5"),
        ("models/llama2-70b/model.json", "llama2-70b"),
        ("models/llama2-7b-gguf/llama2-7b-gguf-Q3_K_L.json", "llama2-7b-gguf-Q3_K_L"),
        ("models/zephyr.Q2_K.json", "zephyr.Q2_K"),
        ("models/a/b/MODEL.JSON", "b"),
        ("models/model.json", "models"),
        ("/mnt/llm/x/model.json", "x"),
        ("models/cafe\u0301.json", "caf\u00e9"),
    ],
)
def test_the_id_is_the_name_of_the_file_or_of_the_folder(path: str, expected: str) -> None:
    assert identity.default_id(path) == expected


def test_an_explicit_id_goes_before_the_name_which_stays_an_alias() -> None:
    given_ids = identity.assign_ids([("models/gpt4/azure.json", "/openai.azure.com/docs-test-001/gpt4-turbo")])

    assert given_ids.ids == {"models/gpt4/azure.json": "/openai.azure.com/docs-test-001/gpt4-turbo"}
    assert given_ids.aliases == {"models/gpt4/azure.json": ("azure",)}
    assert given_ids.problems == ()


def test_of_two_files_with_one_id_the_first_by_bytes_keeps_it_and_a_problem_says_so() -> None:
    given_ids = identity.assign_ids([("models/b/x.json", None), ("models/a/y.json", "x"), ("models/Z/x.json", None)])

    assert given_ids.ids == {"models/Z/x.json": "x", "models/a/y.json": "a/y", "models/b/x.json": "b/x"}
    assert given_ids.aliases == {"models/a/y.json": ("y",)}
    assert {(each.path, each.code) for each in given_ids.problems} == {
        ("models/a/y.json", "duplicate-id"),
        ("models/b/x.json", "duplicate-id"),
    }


def test_bytes_decide_and_not_the_alphabet_of_anybody() -> None:
    given_ids = identity.assign_ids([("models/é/x.json", None), ("models/z/x.json", None)])

    assert given_ids.ids["models/z/x.json"] == "x"


def test_a_way_out_never_takes_an_id_that_somebody_claims() -> None:
    given_ids = identity.assign_ids(
        [("models/a/x.json", None), ("models/b/x.json", None), ("models/c/other.json", "b/x")]
    )

    assert given_ids.ids == {"models/a/x.json": "x", "models/b/x.json": "models/b/x", "models/c/other.json": "b/x"}


@given(claims, st.integers())
def test_ids_are_unique_and_do_not_depend_on_the_order(wanted: dict[str, str | None], seed: int) -> None:
    entries = list(wanted.items())
    first = identity.assign_ids(entries)
    random.Random(seed).shuffle(entries)

    assert identity.assign_ids(entries) == first
    assert first.ids.keys() == wanted.keys()
    assert len(set(first.ids.values())) == len(wanted)
    names = [*first.ids.values(), *(alias for aliases in first.aliases.values() for alias in aliases)]
    assert len(set(names)) == len(names), "no alias is another model's name"
    assert {problem.path for problem in first.problems} == {
        path for path, explicit in wanted.items() if first.ids[path] != (explicit or identity.default_id(path))
    }


@given(claims, claims)
def test_whoever_is_admitted_has_what_assigning_anew_would_give_and_takes_nothing_from_others(
    known: dict[str, str | None], new: dict[str, str | None]
) -> None:
    assignment = identity.assign_ids(known.items())
    present = dict(known)

    for path, explicit in new.items():
        if assignment.admit(path, explicit):
            present[path] = explicit
        assert assignment == identity.assign_ids(present.items())


def test_a_newcomer_with_a_name_of_its_own_is_admitted() -> None:
    assignment = identity.assign_ids([("models/a/a.json", None)])

    assert assignment.admit("models/b/b.json", "other")
    assert not assignment.admit("models/c/a.json", None)
    assert (assignment.ids["models/b/b.json"], assignment.aliases["models/b/b.json"]) == ("other", ("b",))


@given(claims)
def test_whoever_comes_first_by_bytes_keeps_the_id(wanted: dict[str, str | None]) -> None:
    given_ids = identity.assign_ids(wanted.items())

    for path, explicit in wanted.items():
        claimed = explicit or identity.default_id(path)
        rivals = [other for other, id_ in wanted.items() if (id_ or identity.default_id(other)) == claimed]
        if path == min(rivals, key=str.encode):
            assert given_ids.ids[path] == claimed


def groups(*names: str, junk: Sequence[str] = ()) -> list[Group]:
    sound = [Candidate(name) for name in names]
    return identity.group_parts([*sound, *(Candidate(name, Soundness.JUNK) for name in junk)])


def chosen(stem: str, names: list[Group], quantization: str | None = None) -> list[str]:
    return [group.names[0] for group in identity.choose_weights(stem, quantization, names)]


def test_a_binary_of_the_same_name_goes_before_all_others() -> None:
    assert chosen("foo", groups("foo.gguf", "bar.gguf")) == ["foo.gguf"]
    assert chosen("Foo", groups("foo.gguf", "bar.gguf")) == ["foo.gguf"]
    assert chosen("zephyr.Q2_K", groups("zephyr.Q2_K.gguf", "zephyr.Q3_K.gguf")) == ["zephyr.Q2_K.gguf"]
    assert chosen("caf\u00e9", groups("cafe\u0301.gguf", "bar.gguf")) == ["cafe\u0301.gguf"]


def test_a_split_model_is_one_binary_with_all_its_parts() -> None:
    (split,) = groups("foo-00003-of-00003.gguf", "foo-00001-of-00003.gguf")

    assert split.names == ("foo-00001-of-00003.gguf", "foo-00002-of-00003.gguf", "foo-00003-of-00003.gguf")
    assert [part.name for part in split.present] == ["foo-00001-of-00003.gguf", "foo-00003-of-00003.gguf"]
    assert chosen("foo", [split, *groups("bar.gguf")]) == ["foo-00001-of-00003.gguf"]
    assert chosen("other", [split]) == ["foo-00001-of-00003.gguf"]


def test_the_one_weights_file_of_the_folder_belongs_to_its_jsons() -> None:
    assert chosen("llama-70b-finetune-q5", groups(".bin")) == [".bin"]
    assert chosen("anything", groups("zephyr.Q2_K.gguf")) == ["zephyr.Q2_K.gguf"]
    assert chosen("anything", []) == []


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("llama2-7b-Q3_K_L", ["llama.Q3_K_L.gguf"]),
        ("llama2-7b-q3_k_l", ["llama.Q3_K_L.gguf"]),
        ("llama2-7b-Q2", ["llama.Q2_K.gguf"]),
        ("llama2-7b-Q5", ["llama.Q5_0.gguf"]),
        ("llama2-7b-F16", ["llama.Q2_K.gguf", "llama.Q3_K_L.gguf", "llama.Q5_0.gguf"]),
        ("llama2-7b", ["llama.Q2_K.gguf", "llama.Q3_K_L.gguf", "llama.Q5_0.gguf"]),
    ],
)
def test_else_the_quantisation_in_the_name_decides_and_what_is_left_is_listed(stem: str, expected: list[str]) -> None:
    assert chosen(stem, groups("llama.Q2_K.gguf", "llama.Q3_K_L.gguf", "llama.Q5_0.gguf")) == expected


def test_the_quantisation_that_metadata_asks_for_goes_before_that_in_the_name() -> None:
    assert chosen("x-Q2_K", groups("a.Q2_K.gguf", "a.Q8_0.gguf"), "q8_0") == ["a.Q8_0.gguf"]
    assert chosen("x-Q2_K", groups("a.Q2_K.gguf", "a.Q8_0.gguf"), "IQ1_S") == ["a.Q2_K.gguf"]


def test_the_quantisation_in_a_header_counts_where_the_name_says_none() -> None:
    names = identity.group_parts(
        [Candidate("one.gguf", quantization="Q2_K"), Candidate("two.gguf", quantization="Q6_K")]
    )

    assert chosen("x-Q6_K", names) == ["two.gguf"]


def test_what_is_no_model_by_its_content_stands_back() -> None:
    assert chosen("x", groups("real.gguf", junk=["training_args.bin"])) == ["real.gguf"]
    assert chosen("x", groups(junk=["page.gguf"])) == ["page.gguf"]
    assert chosen("page", groups("real.gguf", junk=["page.gguf"])) == ["page.gguf"]


def test_what_only_goes_with_a_model_is_not_taken_for_one() -> None:
    assert chosen("x", groups("real.gguf", "mtp-real.gguf", "real-lora.gguf")) == ["real.gguf"]
    assert chosen("x", groups("mtp-real.gguf")) == []


def test_of_all_quantisations_the_usual_one_is_loaded() -> None:
    assert identity.choose_of_all(groups("a.Q8_0.gguf", "a.Q4_K_M.gguf", "a.Q2_K.gguf")).stem == "a.Q4_K_M"
    assert identity.choose_of_all(groups("a.Q8_0.gguf", "a.Q3_K_M.gguf", "a.Q2_K.gguf")).stem == "a.Q3_K_M"
    assert identity.choose_of_all(groups("a.Q8_0.gguf", "a.Q6_K.gguf")).stem == "a.Q6_K"


def projectors(stem: str, weights: list[Group], *names: str) -> list[str]:
    mine = next((group for group in weights if group.stem == stem), None)
    return [group.names[0] for group in identity.choose_projectors(stem, mine, weights, groups(*names))]


def test_a_projector_goes_with_the_models_of_its_folder() -> None:
    assert projectors("a", groups("a.gguf"), "mmproj-model-f16.gguf") == ["mmproj-model-f16.gguf"]
    assert projectors("a", groups("a.gguf", "b.gguf"), ".proj") == [".proj"]
    assert projectors("a", groups("a.gguf"), "mmproj-llava-f16.gguf") == ["mmproj-llava-f16.gguf"]
    assert projectors("a", groups("a.gguf")) == []


def test_a_projector_that_carries_the_name_of_a_model_is_its_own() -> None:
    weights = groups("llava-7b-Q4.gguf", "qwen-vl-Q4.gguf")

    assert projectors("llava-7b-Q4", weights, "llava-7b-mmproj-f16.gguf", "qwen-vl-mmproj-f16.gguf") == [
        "llava-7b-mmproj-f16.gguf"
    ]
    assert projectors("qwen-vl-Q4", weights, "llava-7b-mmproj-f16.gguf") == []


def test_projectors_that_nothing_tells_apart_are_listed() -> None:
    assert projectors("a", groups("a.gguf"), "mmproj-f16.gguf", "mmproj-bf16.gguf") == [
        "mmproj-bf16.gguf",
        "mmproj-f16.gguf",
    ]
