"""What lies on the disk becomes findings: which models, whole or not, and what is wrong."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jand.errors import RootOfflineError
from jand.library.findings import FILE_ERRORS, LOOSE, Role, Tree
from jand.library.headers import HeaderCache
from jand.library.scan import list_entries, scan_entry
from jand.model.identity import assign_ids
from jand.model.problem import Severity
from tests.fakes import gguf_bytes, gguf_files, gguf_mutations, json_mutations
from tests.fakes.models_tree import LATER_S, ModelsTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jand.library.findings import EntryScan, Found

NOBODY = 65534


@pytest.fixture
def models(tmp_path: Path) -> ModelsTree:
    return ModelsTree(tmp_path / "models")


def names(found: Found) -> list[str]:
    return [binary.name for binary in found.binaries]


def codes(scan: EntryScan) -> list[str]:
    return [problem.code for problem in scan.problems]


# The layouts of model-specs.md.


def test_every_layout_of_the_specs_registers_with_its_id(models: ModelsTree) -> None:
    models.text(
        "azure-openai/azure-openai-gpt3-5.json",
        '{"origin": "https://docs-test-001.openai.azure.com/", "import_format": "azure_openai", "parameters": {"init": {}}}',
    )
    models.spec("llama2-70b/model.json")
    models.gguf("llama2-70b/.gguf")
    models.spec("llama2-7b-gguf/llama2-7b-gguf-Q2.json")
    models.spec("llama2-7b-gguf/llama2-7b-gguf-Q3_K_L.json")
    models.gguf("llama2-7b-gguf/.bin")
    models.spec("llava-ggml/llava-ggml-Q5.json")
    models.projector("llava-ggml/.proj")
    models.gguf("llava-ggml/ggml")
    models.spec("llama-70b-finetune/llama-70b-finetune-q5.json")
    models.gguf("llama-70b-finetune/.bin")

    found = models.models()

    assert all(model.whole for model in found.values())
    assert models.problems() == []
    ids = assign_ids((path, model.spec.id) for path, model in found.items())
    assert {ids.ids[path]: names(model) for path, model in found.items()} == {
        "azure-openai-gpt3-5": [],
        "llama2-70b": [".gguf"],
        "llama2-7b-gguf-Q2": [".bin"],
        "llama2-7b-gguf-Q3_K_L": [".bin"],
        "llava-ggml-Q5": ["ggml", ".proj"],
        "llama-70b-finetune-q5": [".bin"],
    }
    assert [binary.role for binary in found["models/llava-ggml/llava-ggml-Q5.json"].binaries] == [
        Role.WEIGHTS,
        Role.PROJECTOR,
    ]


def test_a_json_and_a_binary_directly_in_the_tree_are_a_model(models: ModelsTree) -> None:
    models.spec("zephyr.json")
    models.gguf("zephyr.gguf")

    found = models.only()

    assert (found.path, found.folder, found.directory, found.file) == (
        "models/zephyr.json",
        "models",
        models.path,
        models.path / "zephyr.json",
    )
    assert found.whole
    assert list_entries(models.tree) == [LOOSE]


def test_a_model_may_lie_several_folders_deep(models: ModelsTree) -> None:
    models.spec("a/b/c/model.json")
    models.gguf("a/b/c/weights.gguf")

    found = models.only("a")

    assert (found.path, found.whole) == ("models/a/b/c/model.json", True)


def test_what_a_repository_brings_along_is_left_out(models: ModelsTree) -> None:
    models.spec("x/model.json")
    models.gguf("x/model.gguf")
    for name in ("config.json", "tokenizer.json", "generation_config.json", "special_tokens_map.json", "README.md"):
        models.text(f"x/{name}", "{}")
    models.text("x/LICENSE", "free")
    models.spec("x/.git/model.json")
    models.spec("x/.jand-part/model.json")
    models.text("x/model.gguf.part", "half")

    scan = models.scan("x")

    assert [found.path for found in scan.models] == ["models/x/model.json"]
    assert (scan.problems, scan.bare) == ((), ())


# Which binary belongs to which JSON.


def test_download_url_names_the_binary_by_base_name_sub_path_or_address(models: ModelsTree) -> None:
    models.spec("a/a.json", download_url="zephyr.Q2_K.gguf")
    models.gguf("a/zephyr.Q2_K.gguf")
    models.gguf("a/zephyr.Q3_K_M.gguf")
    models.spec(
        "b/b.json", download_url="https://hub.example/u/r/resolve/main/Q4_K_M/m-00001-of-00002.gguf?download=true"
    )
    models.gguf("b/Q4_K_M/m-00001-of-00002.gguf", split=(1, 2))
    models.spec("c/c.json", download_url=["w.gguf", "mm.gguf"])
    models.gguf("c/w.gguf")

    found = models.models()

    assert names(found["models/a/a.json"]) == ["zephyr.Q2_K.gguf"]
    assert found["models/a/a.json"].whole
    split = found["models/b/b.json"]
    assert (names(split), split.missing) == (["Q4_K_M/m-00001-of-00002.gguf"], ("Q4_K_M/m-00002-of-00002.gguf",))
    assert not split.whole
    assert (names(found["models/c/c.json"]), found["models/c/c.json"].missing) == (["w.gguf"], ("mm.gguf",))


def test_a_binary_elsewhere_is_used_in_place_and_not_owned(models: ModelsTree, tmp_path: Path) -> None:
    elsewhere = gguf_files.bare_header(tmp_path / "else where.gguf")
    models.gguf("shared/one.gguf")
    models.spec("abs/abs.json", download_url=str(elsewhere))
    models.spec("url/url.json", download_url=elsewhere.as_uri())
    models.spec("up/up.json", download_url="../shared/one.gguf")
    models.spec("here/here.json", download_url="./sub/two.gguf")
    models.gguf("here/sub/two.gguf")

    found = models.models()

    assert {path: (names(model), model.whole, model.binaries[0].owned) for path, model in found.items()} == {
        "models/abs/abs.json": ([str(elsewhere)], True, False),
        "models/url/url.json": ([str(elsewhere)], True, False),
        "models/up/up.json": ([str(models.path / "shared/one.gguf")], True, False),
        "models/here/here.json": (["sub/two.gguf"], True, True),
    }


def test_a_local_binary_that_is_not_there_is_an_error_and_nothing_to_fetch(models: ModelsTree) -> None:
    models.spec("x/x.json", download_url="/nowhere/m.gguf")

    scan = models.scan("x")
    (found,) = scan.models

    assert (found.missing, found.unresolved, found.whole) == ((), False, False)
    assert found.error is not None
    assert found.error.code == "missing-binary"
    assert [(problem.path, problem.code) for problem in scan.problems] == [("models/x/x.json", "missing-binary")]


@pytest.mark.parametrize(
    "name", ["sub/../../secret.gguf", "https://hub.example/u/r/resolve/main/..%2Fsecret.gguf", "./"]
)
def test_a_name_that_leads_out_of_the_folder_or_to_no_file_is_a_problem(models: ModelsTree, name: str) -> None:
    models.gguf("secret.gguf")
    models.spec("x/x.json", download_url=name)

    scan = models.scan("x", later_s=LATER_S)

    assert not any(binary.present for found in scan.models for binary in found.binaries)
    assert not any(found.whole or found.unresolved for found in scan.models)
    assert [problem.severity for problem in scan.problems] == [Severity.ERROR]


def test_a_name_in_the_json_finds_the_same_name_spelled_otherwise_on_the_disk(models: ModelsTree) -> None:
    models.spec("x/x.json", download_url="caf\u00e9.gguf")
    models.gguf("x/cafe\u0301.gguf")

    assert models.only("x").whole


def test_nothing_named_and_nothing_there_is_for_the_importer(models: ModelsTree) -> None:
    models.spec("x/x.json", import_format="thebloke")

    scan = models.scan("x")

    assert (scan.models[0].unresolved, scan.models[0].whole, scan.problems) == (True, False, ())


def test_all_parts_of_a_split_model_are_needed(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.gguf("x/m-00001-of-00003.gguf", split=(1, 3))
    models.gguf("x/m-00003-of-00003.gguf", split=(3, 3))

    before = models.only("x")
    models.gguf("x/m-00002-of-00003.gguf", split=(2, 3))
    after = models.only("x")

    assert (before.missing, before.whole) == (("m-00002-of-00003.gguf",), False)
    assert (names(after), after.whole) == ([f"m-0000{part}-of-00003.gguf" for part in (1, 2, 3)], True)


@pytest.mark.parametrize(
    ("name", "split"), [("m-00001-of-00002.gguf", (1, 3)), ("m-00001-of-00001.gguf", (2, 2)), ("m.gguf", (1, 2))]
)
def test_a_part_whose_name_and_header_disagree_is_bad(models: ModelsTree, name: str, split: tuple[int, int]) -> None:
    models.spec("x/x.json")
    models.gguf(f"x/{name}", split=split)

    scan = models.scan("x")

    assert scan.models[0].error is not None
    assert (scan.models[0].error.code, codes(scan)) == ("bad-binary", ["bad-binary"])


def test_where_several_binaries_could_be_meant_the_problem_lists_them_and_none_is_adopted(models: ModelsTree) -> None:
    models.spec("x/model.json")
    models.gguf("x/one.Q2_K.gguf")
    models.gguf("x/two.Q3_K_M.gguf")

    scan = models.scan("x")
    (found,) = scan.models

    assert found.error is not None
    assert (found.error.code, found.whole, found.unresolved) == ("ambiguous-binary", False, False)
    assert all(name in found.error.message for name in ("one.Q2_K.gguf", "two.Q3_K_M.gguf"))
    assert [(problem.path, problem.code) for problem in scan.problems] == [("models/x/model.json", "ambiguous-binary")]
    assert scan.bare == ()


def test_each_json_gets_the_quantisation_of_its_name(models: ModelsTree) -> None:
    for quantization in ("Q2_K", "Q3_K_L"):
        models.spec(f"x/llama2-{quantization}.json")
        models.gguf(f"x/weights.{quantization}.gguf")

    found = models.models()

    assert names(found["models/x/llama2-Q2_K.json"]) == ["weights.Q2_K.gguf"]
    assert names(found["models/x/llama2-Q3_K_L.json"]) == ["weights.Q3_K_L.gguf"]


def test_another_models_binary_is_not_guessed_at_but_a_second_json_of_the_same_model_shares_it(
    models: ModelsTree,
) -> None:
    models.spec("a.json")
    models.gguf("a.gguf")
    models.spec("a-custom.json")
    models.spec("zephyr.json", origin="TheBloke/zephyr-7B-beta-GGUF", import_format="thebloke")

    found = models.models()

    assert names(found["models/a-custom.json"]) == ["a.gguf"]
    assert (names(found["models/zephyr.json"]), found["models/zephyr.json"].unresolved) == ([], True)


def test_the_files_of_a_repositorys_quantisation_folder_belong_to_the_json_above(models: ModelsTree) -> None:
    models.spec("x/model.json")
    models.gguf("x/Q4_K_M/m.gguf")
    models.spec("y/model.json")
    models.gguf("y/other-model/m.gguf")

    found = models.models()

    assert (names(found["models/x/model.json"]), found["models/x/model.json"].whole) == (["Q4_K_M/m.gguf"], True)
    assert found["models/y/model.json"].unresolved
    assert [bare.folder for bare in models.bare()] == ["models/y/other-model"]


def test_all_quantisations_belong_to_a_model_that_asks_for_all_and_one_is_loaded(models: ModelsTree) -> None:
    models.spec("x/model.json", metadata={"quantization": "all"})
    for quantization in ("Q2_K", "Q4_K_M", "Q8_0"):
        models.gguf(f"x/m.{quantization}.gguf")

    found = models.only("x")

    assert found.whole
    assert {binary.name: binary.role for binary in found.binaries} == {
        "m.Q4_K_M.gguf": Role.WEIGHTS,
        "m.Q2_K.gguf": Role.OTHER,
        "m.Q8_0.gguf": Role.OTHER,
    }


def test_a_projector_goes_with_the_model_and_metadata_may_name_it(models: ModelsTree) -> None:
    models.spec("x/x.json", metadata={"mmproj": "second-mmproj.gguf"})
    models.spec("x/y.json", download_url="x.gguf", metadata={"mmproj": "absent.gguf"})
    models.gguf("x/x.gguf")
    models.projector("x/first-mmproj.gguf")
    models.projector("x/second-mmproj.gguf")

    found = models.models()

    assert names(found["models/x/x.json"]) == ["x.gguf", "second-mmproj.gguf"]
    assert found["models/x/x.json"].whole
    assert (names(found["models/x/y.json"]), found["models/x/y.json"].missing) == (["x.gguf"], ("absent.gguf",))


def test_an_adapter_is_no_weights(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.gguf("x/m.gguf")
    models.gguf("x/style.gguf", kind="adapter")

    scan = models.scan("x")

    assert names(scan.models[0]) == ["m.gguf"]
    assert (scan.bare, scan.problems) == ((), ())


def test_adapters_that_init_names_are_needed_and_not_loaded_as_weights(models: ModelsTree) -> None:
    models.spec(
        "x/x.json",
        download_url=["m.gguf", "style.gguf"],
        parameters={"init": {"lora": ["style.gguf", "./own.gguf", "absent.gguf"]}},
    )
    models.gguf("x/m.gguf")
    models.gguf("x/style.gguf", kind="adapter")
    models.gguf("x/own.gguf", kind="adapter")

    found = models.only("x")

    assert {binary.name: binary.role for binary in found.binaries} == {
        "m.gguf": Role.WEIGHTS,
        "style.gguf": Role.ADAPTER,
        "own.gguf": Role.ADAPTER,
    }
    assert (found.missing, found.whole) == (("absent.gguf",), False)


def test_a_list_may_name_every_part_of_a_split_model(models: ModelsTree) -> None:
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    models.spec("x/x.json", download_url=parts)
    models.gguf(f"x/{parts[0]}", split=(1, 2))

    before = models.only("x")
    models.gguf(f"x/{parts[1]}", split=(2, 2))

    assert (names(before), before.missing) == (parts[:1], (parts[1],))
    assert (names(models.only("x")), models.only("x").whole) == (parts, True)


# Whole, arriving, bad.


def test_a_binary_is_whole_with_its_last_byte_and_not_before(models: ModelsTree) -> None:
    whole = models.gguf("whole.gguf").read_bytes()
    models.spec("x/x.json")
    target = models.at("x/x.gguf")

    for size in range(len(whole)):
        target.write_bytes(whole[:size])
        found = models.only("x", later_s=0.0)
        assert not found.whole
        assert (found.error, found.binaries[0].size) == (None, size)
    target.write_bytes(whole)

    found = models.only("x", later_s=0.0)
    assert found.whole
    assert (found.binaries[0].needed, found.binaries[0].owned) == (len(whole), True)


def test_a_binary_that_somebody_has_open_for_writing_is_not_whole(models: ModelsTree) -> None:
    models.spec("x/x.json")
    path = models.gguf("x/x.gguf")
    models.let_age()

    with path.open("r+b"):
        scan = models.scan("x", later_s=LATER_S)

    assert (scan.models[0].whole, scan.models[0].binaries[0].writing, scan.problems) == (False, True, ())
    assert scan.recheck_after_s is not None
    assert models.scan("x").models[0].whole


def test_a_download_with_a_control_file_is_not_whole(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.gguf("x/x.gguf")
    control = models.text("x/x.gguf.aria2", "")

    assert not models.only("x").whole
    control.unlink()
    assert models.only("x").whole


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (b"GGUF", "incomplete-binary", ""),
        (b"", "incomplete-binary", "empty"),
        (bytes(4096), "incomplete-binary", "zeros"),
        (b"<!DOCTYPE html><html>Sign in</html>", "bad-binary", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 98362432\n", "bad-binary", "Git LFS"),
        (b"tjgg" + bytes(60), "legacy-ggml", ""),
    ],
)
def test_a_binary_that_is_none_keeps_its_model_waiting_and_is_a_problem_once_it_lies_still(
    models: ModelsTree, content: bytes, code: str, word: str
) -> None:
    models.spec("x/x.json")
    models.at("x/x.gguf").write_bytes(content)

    at_once = models.scan("x")
    later = models.scan("x", later_s=3.1)

    assert (at_once.problems, at_once.models[0].error, at_once.models[0].whole) == ((), None, False)
    assert at_once.recheck_after_s is not None
    assert at_once.recheck_after_s <= 3.0
    (problem,) = later.problems
    assert (problem.path, problem.code) == ("models/x/x.gguf", code)
    assert word in problem.message
    assert problem.hint
    error = later.models[0].error
    assert error is not None
    assert (error.code, later.models[0].whole, later.models[0].unresolved) == (code, False, False)
    assert later.recheck_after_s is None
    assert error.code in FILE_ERRORS


def test_what_is_no_model_and_claimed_by_nobody_is_a_problem_only_where_it_says_that_it_is_one(
    models: ModelsTree,
) -> None:
    models.at("x/broken.gguf").write_bytes(b"<html>")
    models.at("x/old").write_bytes(b"lmgg" + bytes(60))
    models.at("x/training_args.bin").write_bytes(b"PK\x03\x04" + bytes(60))
    models.at("x/notes").write_bytes(b"GG")

    scan = models.scan("x", later_s=LATER_S)

    assert [(problem.path, problem.code) for problem in scan.problems] == [
        ("models/x/broken.gguf", "bad-binary"),
        ("models/x/old", "legacy-ggml"),
    ]
    assert (scan.models, scan.bare) == ((), ())


def test_a_binary_is_told_by_its_bytes_whatever_it_is_called(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.gguf("x/sha256-0123abc")
    models.spec("y/y.json")
    models.gguf("y/weights.proj")

    assert models.only("x").whole
    assert [binary.role for binary in models.only("y").binaries] == [Role.WEIGHTS]


# The JSON itself.


def test_a_json_that_cannot_be_parsed_is_a_problem_with_its_place_once_it_lies_still(models: ModelsTree) -> None:
    models.text("x/x.json", '{\n  "origin": "a/b"\n  "id": "x"\n}')

    at_once = models.scan("x")
    later = models.scan("x", later_s=2.1)

    assert (at_once.problems, at_once.models) == ((), ())
    assert at_once.recheck_after_s is not None
    assert at_once.recheck_after_s <= 2.0
    (problem,) = later.problems
    assert (problem.path, problem.line, problem.severity) == ("models/x/x.json", 2, Severity.ERROR)
    assert later.recheck_after_s is None


@pytest.mark.parametrize("text", ["", " \n", '{"origin": "a'])
def test_a_json_that_is_empty_or_cut_is_arriving_and_a_problem_within_five_seconds(
    models: ModelsTree, text: str
) -> None:
    path = models.text("x/x.json", text)

    with path.open("r+b"):
        open_for_long = [models.scan("x", later_s=seconds) for seconds in (0.0, 3.0, 4.1)]

    assert [len(scan.problems) for scan in open_for_long] == [0, 0, 1]
    assert open_for_long[1].recheck_after_s is not None


def test_a_json_that_is_being_written_again_keeps_its_model_until_it_lies_still(models: ModelsTree) -> None:
    path = models.spec("x/x.json", id="mine")
    models.gguf("x/x.gguf")
    before = models.only("x", later_s=0.0)

    path.write_text('{"origin": "us')
    during = models.scan("x")
    after = models.scan("x", later_s=2.1)

    assert during.models == (before,)
    assert during.recheck_after_s is not None
    assert (after.models, len(after.problems)) == ((), 1)


def test_what_a_json_said_before_it_was_deleted_does_not_come_back(models: ModelsTree) -> None:
    path = models.spec("x/x.json")
    assert models.scan("x").models
    path.unlink()
    assert not models.scan("x").models

    path.write_text('{"origin": ')

    assert not models.scan("x").models


def test_a_changed_json_is_read_again_even_where_size_and_time_are_the_same(models: ModelsTree) -> None:
    path = models.spec("x/x.json", id="one")
    models.let_age()
    before = path.stat()
    assert models.only("x").spec.id == "one"

    models.spec("x/x.json", id="two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert models.only("x").spec.id == "two"


def test_warnings_of_a_good_json_are_problems_and_the_model_is_there(models: ModelsTree) -> None:
    models.spec("x/x.json", colour="blue")

    scan = models.scan("x")

    assert len(scan.models) == 1
    assert [(problem.code, problem.severity) for problem in scan.problems] == [("unknown-field", Severity.WARNING)]


def test_one_bad_entry_hides_no_good_one_in_its_folder(models: ModelsTree) -> None:
    models.spec("x/good.json")
    models.gguf("x/good.gguf")
    models.text("x/bad.json", "{")
    models.text("x/worse.gguf", "no")

    scan = models.scan("x", later_s=LATER_S)

    assert [found.path for found in scan.models if found.whole] == ["models/x/good.json"]
    assert {problem.path for problem in scan.problems} == {"models/x/bad.json", "models/x/worse.gguf"}


def test_among_a_thousand_broken_files_every_one_is_a_problem_and_every_good_model_is_there(
    models: ModelsTree, soak: bool
) -> None:
    count = 1_000 if soak else 200
    for name, raw in gguf_mutations.mutations(7, count):
        models.at(f"x/{name}.gguf").write_bytes(raw)
    for name, raw in json_mutations.mutations(7, count):
        models.at(f"x/{name}.json").write_bytes(raw)
    for number in range(10):
        models.spec(f"x/good-{number}.json")
        models.gguf(f"x/good-{number}.gguf")

    scan = models.scan("x", later_s=LATER_S)

    troubled = {problem.path for problem in scan.problems if problem.severity is Severity.ERROR}
    listed = {found.path: found for found in scan.models}
    assert all(listed[f"models/x/good-{number}.json"].whole for number in range(10))
    for name, _ in gguf_mutations.mutations(7, count):
        assert f"models/x/{name}.gguf" in troubled
    for name, _ in json_mutations.mutations(7, count):
        assert f"models/x/{name}.json" in troubled | listed.keys()
    assert scan.bare == ()


def test_the_header_of_a_file_that_is_being_copied_is_read_once(models: ModelsTree) -> None:
    """A vocabulary takes milliseconds to step over, and a large file is looked at many times on its way."""
    models.spec("x/x.json")
    raw = models.gguf("whole.gguf", size=20_000, keys=[("pad", gguf_bytes.text("x" * 10_000))]).read_bytes()
    reads: list[int] = []

    with models.at("x/x.gguf").open("wb", buffering=0) as stream:
        stream.write(raw[:12_000])
        for at in range(12_000, 20_000, 1_000):
            stream.write(raw[at : at + 1_000])
            before = read_bytes()
            found = models.only("x")
            reads.append(read_bytes() - before)
            assert (found.whole, found.binaries[0].needed) == (False, 20_000)

    assert min(reads[1:]) < 5_000 <= reads[0]
    assert models.only("x").whole


def read_bytes() -> int:
    """Return how many bytes this process has read."""
    counters = Path("/proc/self/io").read_text().split()
    return int(counters[counters.index("rchar:") + 1])


# Bare binaries.


def test_a_bare_gguf_is_found_with_its_parts_and_its_projector(models: ModelsTree) -> None:
    models.gguf("x/m-00002-of-00002.gguf", split=(2, 2))
    models.gguf("x/m-00001-of-00002.gguf", split=(1, 2))
    models.projector("x/mmproj-f16.gguf")

    (bare,) = models.bare()

    assert [binary.name for binary in bare.binaries] == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
        "mmproj-f16.gguf",
    ]
    assert (bare.folder, bare.directory, bare.whole) == ("models/x", models.path / "x", True)


def test_a_bare_gguf_with_a_part_missing_is_not_whole(models: ModelsTree) -> None:
    models.gguf("x/m-00001-of-00002.gguf", split=(1, 2))

    (bare,) = models.bare()

    assert not bare.whole


def test_a_gguf_beside_a_json_for_another_is_bare(models: ModelsTree) -> None:
    models.spec("x/foo.json")
    models.gguf("x/foo.gguf")
    models.gguf("x/bar.gguf")

    assert [binary.name for bare in models.bare() for binary in bare.binaries] == ["bar.gguf"]


@pytest.mark.parametrize("name", ["foo.json", "model.json"])
def test_a_gguf_whose_json_is_broken_waits_for_it(models: ModelsTree, name: str) -> None:
    models.text(f"x/{name}", "{oops")
    models.gguf("x/foo.gguf")

    assert models.bare() == []


def test_a_gguf_is_not_bare_while_any_json_of_its_folder_is_arriving(models: ModelsTree) -> None:
    models.text("x/other.json", "")
    models.gguf("x/foo.gguf")

    assert models.scan("x").bare == ()
    assert len(models.scan("x", later_s=LATER_S).bare) == 1


def test_a_projector_alone_is_a_warning(models: ModelsTree) -> None:
    models.projector("x/mmproj.gguf")

    scan = models.scan("x")

    assert [(problem.code, problem.severity) for problem in scan.problems] == [("stray-projector", Severity.WARNING)]
    assert scan.bare == ()


# Links, odd names, odd things.


def test_links_are_followed_for_reading_and_what_they_lead_to_is_not_owned(models: ModelsTree, tmp_path: Path) -> None:
    outside = ModelsTree(tmp_path / "outside")
    outside.spec("m/m.json")
    outside.gguf("m/m.gguf")
    (models.path / "linked").symlink_to(outside.path / "m")
    models.spec("own/own.json")
    models.at("own/own.gguf").symlink_to(outside.path / "m/m.gguf")

    found = models.models()

    assert {path: (model.whole, model.linked) for path, model in found.items()} == {
        "models/linked/m.json": (True, True),
        "models/own/own.json": (True, False),
    }
    assert not any(binary.owned for model in found.values() for binary in model.binaries)


def test_nothing_in_a_tree_that_is_not_writable_is_owned(models: ModelsTree) -> None:
    models.writable = False
    models.spec("x/x.json")
    models.gguf("x/x.gguf")

    assert not models.only("x").binaries[0].owned


def test_loops_of_links_end(models: ModelsTree) -> None:
    models.spec("a/a.json")
    models.spec("b/b.json")
    models.at("a/up").symlink_to("..")
    models.at("a/self").symlink_to(".")
    models.at("a/loop").symlink_to("loop")
    models.at("a/sub/back").symlink_to("../../a")

    scan = models.scan("a")

    assert [found.path for found in scan.models] == ["models/a/a.json"]


def test_a_folder_reached_twice_is_found_once_by_its_real_name(models: ModelsTree) -> None:
    models.spec("x/z-real/m.json")
    models.at("x/a-link").symlink_to("z-real")

    assert models.only("x").path == "models/x/z-real/m.json"


def test_a_tree_without_end_is_cut(models: ModelsTree) -> None:
    deep = models.path / "x"
    for _ in range(20):
        deep /= "d"
    deep.mkdir(parents=True)
    models.spec("x/x.json")

    scan = models.scan("x")

    assert (len(scan.models), codes(scan)) == (1, ["too-deep"])


def test_a_binarys_link_that_leads_nowhere_holds_its_place(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.at("x/x.gguf").symlink_to("/nowhere/x.gguf")

    scan = models.scan("x")
    (found,) = scan.models

    assert (found.unresolved, found.missing, names(found)) == (False, (), ["x.gguf"])
    assert found.error is not None
    assert found.error.code == "missing-binary"
    assert [(problem.path, problem.code) for problem in scan.problems] == [("models/x/x.gguf", "missing-binary")]


def test_an_entry_whose_link_leads_nowhere_is_offline_and_not_gone(models: ModelsTree, tmp_path: Path) -> None:
    (models.path / "disk").symlink_to(tmp_path / "unmounted")

    scan = models.scan("disk")

    assert list_entries(models.tree) == [LOOSE, "disk"]
    assert (scan.exists, scan.offline, codes(scan)) == (True, True, ["broken-link"])
    assert models.scan(LOOSE).problems == ()


def test_an_entry_that_is_gone_holds_nothing(models: ModelsTree) -> None:
    scan = models.scan("never-there")

    assert (scan.exists, scan.offline, scan.models, scan.problems) == (False, False, (), ())


def test_a_tree_that_is_gone_is_offline(models: ModelsTree) -> None:
    models.path.rmdir()

    assert [(scan.exists, scan.offline) for scan in (models.scan(LOOSE), models.scan("x"))] == [(True, True)] * 2
    with pytest.raises(RootOfflineError, match="cannot list"):
        list_entries(models.tree)


def test_pipes_and_folders_with_the_names_of_files_stop_nobody(models: ModelsTree) -> None:
    os.mkfifo(models.at("x/pipe.json"))
    os.mkfifo(models.at("x/pipe.gguf"))
    models.at("x/folder.json").mkdir()
    models.at("x/folder.gguf").mkdir()
    models.spec("x/x.json", download_url=["./folder.gguf"])

    scan = models.scan("x")

    assert [(problem.path, problem.code) for problem in scan.problems] == [
        ("models/x/folder.gguf", "unreadable"),
        ("models/x/pipe.gguf", "not-a-file"),
        ("models/x/pipe.json", "not-a-file"),
    ]
    assert scan.models[0].error is not None
    assert scan.models[0].error.code == "unreadable"


@pytest.mark.parametrize("name", ["zero", "zero.json", "x/zero", "x/zero.json"])
def test_a_link_to_a_device_is_told_from_one_to_nowhere(models: ModelsTree, name: str) -> None:
    """It is there, and will never be a model; there is no disk to mount."""
    models.at(name).symlink_to("/dev/zero")

    (problem,) = models.problems()

    assert (problem.path, problem.code) == (f"models/{name}", "not-a-file")
    assert problem.message.endswith("/dev/zero is neither a file nor a folder")
    assert [entry for entry in list_entries(models.tree) if entry] == (["x"] if "/" in name else [])


def test_a_binary_that_is_a_link_to_a_device_is_never_read_and_keeps_its_place(models: ModelsTree) -> None:
    models.spec("x/x.json")
    models.at("x/x.gguf").symlink_to("/dev/zero")

    found = models.only("x")

    assert (found.missing, found.unresolved) == ((), False)
    assert found.error is not None
    assert (found.error.code, found.error.hint) == ("unreadable", "put a file in its place, or remove it")
    assert found.error.message == "cannot read models/x/x.gguf: it is no regular file"


@pytest.mark.parametrize(
    "raw",
    [b"with space", b"new\nline", "模型-é".encode(), b"bad\xff\xfeutf8", b"quote\"'\\", b"x" * 240, b"-rf", b"%2F"],
)
def test_any_name_is_scanned_and_shown_as_valid_text(models: ModelsTree, raw: bytes) -> None:
    name = os.fsdecode(raw)
    models.spec(f"{name}/{name}.json")
    models.gguf(f"{name}/{name}.gguf")

    (found,) = models.models().values()

    assert found.whole
    assert found.file == models.path / name / f"{name}.json"
    assert found.binaries[0].path.read_bytes().startswith(b"GGUF")
    for shown in (found.path, found.folder, found.binaries[0].name):
        shown.encode()
    assert len(list_entries(models.tree)) == 2


# Rights.


@pytest.fixture
def as_nobody() -> Iterator[ModelsTree]:
    """Make a tree that belongs to root, looked at by another; where the tests are not run by root, rights bind anyway."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    tree = ModelsTree(folder / "models")
    try:
        tree.spec("open/open.json")
        tree.gguf("open/open.gguf")
        tree.spec("shut/a/shut.json")
        tree.spec("file/file.json")
        tree.gguf("file/file.gguf").chmod(0)
        tree.spec("json/json.json").chmod(0)
        (tree.path / "shut/a").chmod(0)
        if root:
            os.seteuid(NOBODY)
        yield tree
    finally:
        if root:
            os.seteuid(0)
        (tree.path / "shut/a").chmod(0o700)
        shutil.rmtree(folder)


def test_what_may_not_be_read_is_a_problem_with_a_hint_and_hides_nothing_else(as_nobody: ModelsTree) -> None:
    found = as_nobody.models()
    problems = {problem.path: problem for problem in as_nobody.problems()}

    assert set(found) == {"models/open/open.json", "models/file/file.json"}
    assert {path: problem.code for path, problem in problems.items()} == {
        "models/shut/a": "unreadable",
        "models/file/file.gguf": "unreadable",
        "models/json/json.json": "unreadable",
    }
    assert all("chmod" in problem.hint for problem in problems.values())
    error = found["models/file/file.json"].error
    assert error is not None
    assert (error.code, found["models/file/file.json"].unresolved) == ("unreadable", False)


def test_where_nobody_can_tell_about_writers_a_quiet_time_decides(as_nobody: ModelsTree) -> None:
    """The kernel tells only the owner of a file whether somebody writes to it."""
    scans = [
        scan_entry(as_nobody.tree, "open", HeaderCache(), now=as_nobody.changed_at("open/open.gguf") + age)
        for age in (0.1, 0.6)
    ]

    assert [scan.models[0].whole for scan in scans] == [False, True]
    assert scans[0].recheck_after_s == pytest.approx(0.4, abs=0.01)
    assert scans[1].recheck_after_s is None


# What it costs.


class Opened:
    """Counts which files of a tree are opened; audit hooks stay, so this one can be switched off."""

    def __init__(self) -> None:
        self.root = ""
        self.paths: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open" and self.root and str(args[0]).startswith(self.root):
            self.paths.append(str(args[0]))


@pytest.fixture(scope="module")
def audit() -> Opened:
    return Opened()


@pytest.fixture
def opened(audit: Opened, models: ModelsTree) -> Iterator[Opened]:
    audit.root, audit.paths = str(models.path), []
    yield audit
    audit.root = ""


def test_a_folder_of_junk_costs_a_listing_and_a_second_scan_opens_nothing(
    models: ModelsTree, opened: Opened, soak: bool
) -> None:
    models.spec("x/x.json")
    models.gguf("x/x.gguf")
    for number in range(20_000 if soak else 1_000):
        models.at(f"x/junk-{number}.txt").touch()
        models.at(f"x/junk-{number}").touch()
    models.let_age()
    opened.paths.clear()

    first = models.scan("x")
    opened_first = sorted(opened.paths)
    opened.paths.clear()
    second = models.scan("x")

    assert opened_first == [str(models.path / "x/x.gguf"), str(models.path / "x/x.json")]
    assert opened.paths == []
    assert first == second
    assert first.models[0].whole


# Whatever lies there.

file_names = st.sampled_from(
    [
        *("model.json", "x.json", "x.Q2_K.json", "config.json", "a.gguf", "x.gguf", ".gguf", ".bin", "x.bin", "ggml"),
        *(
            "x-00001-of-00002.gguf",
            "x-00002-of-00002.gguf",
            "mmproj.gguf",
            ".proj",
            "junk",
            "x.gguf.part",
            "x.gguf.aria2",
        ),
        *("README.md", "bad\udcff.json", "bad\udcff.gguf", "new\nline.gguf", "Q4_K_M"),
    ]
)
contents = st.sampled_from(
    ["good", "split", "projector", "cut", "html", "empty", "zeros", "json", "api", "broken", "local"]
)
things = st.one_of(contents, st.sampled_from(["folder", "pipe", "dangling", "loop", "to-parent"]))
trees = st.recursive(
    st.dictionaries(file_names, things, max_size=6),
    lambda inner: st.dictionaries(file_names, st.one_of(things, inner), max_size=5),
    max_leaves=12,
)


def build(folder: Path, tree: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    for name, what in tree.items():
        path = folder / name
        if isinstance(what, dict):
            build(path, what)
        else:
            make(path, str(what))


def make(path: Path, what: str) -> None:
    texts = {
        "html": "<html>",
        "empty": "",
        "zeros": "\0" * 100,
        "json": '{"origin": "a/b"}',
        "api": '{"origin": "https://x.openai.azure.com", "import_format": "azure_openai"}',
        "broken": '{"origin": ',
        "local": '{"origin": "a/b", "download_url": ["./x.gguf", "../a.gguf", "/nowhere", "~nobody-here/x", "sub/y.gguf"]}',
    }
    if what in texts:
        path.write_text(texts[what])
    elif what in {"good", "split", "projector", "cut"}:
        gguf_files.bare_header(
            path,
            architecture="clip" if what == "projector" else "llama",
            split=(1, 2) if what == "split" else None,
        )
        if what == "cut":
            os.truncate(path, 100)
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"dangling": "/nowhere/at/all", "loop": path.name, "to-parent": ".."}[what])


@settings(max_examples=60, deadline=None)
@given(trees)
def test_whatever_lies_there_is_scanned_without_an_exception_and_alike_every_time(tree: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        models = ModelsTree(Path(scratch, "models"))
        build(models.path / "entry", tree)
        build(models.path, {name: what for name, what in tree.items() if not isinstance(what, dict)})

        first = models.scan_all()

        assert models.scan_all() == first
        assert ModelsTree(models.path).scan_all() == first, "what is remembered changes nothing"
        for scan in first:
            assert scan.exists
            for found in scan.models:
                assert found.error is None or found.error.code in FILE_ERRORS
                assert not (found.unresolved and found.missing)
                assert found.whole or found.error or found.missing or found.unresolved or scan.recheck_after_s
            claimed = {binary.path for found in scan.models for binary in found.binaries}
            assert claimed.isdisjoint(binary.path for bare in scan.bare for binary in bare.binaries[:1])


def test_a_scan_of_a_tree_that_changes_under_its_hands_raises_nothing(tmp_path: Path, soak: bool) -> None:
    """Files come, go and change kind between the listing and the look."""
    import threading

    models = ModelsTree(tmp_path / "models")
    whole = models.gguf("x/x.gguf").read_bytes()
    stop = threading.Event()

    def churn() -> None:
        path, json = models.at("x/x.gguf"), models.at("x/x.json")
        while not stop.is_set():
            json.write_text('{"origin": "a/b"}')
            path.write_bytes(whole)
            json.unlink()
            path.unlink()
            path.mkdir()
            path.rmdir()
            shutil.rmtree(models.path / "x", ignore_errors=True)
            models.at("x/x.json")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        deadline = time.monotonic() + (20 if soak else 1)
        while time.monotonic() < deadline:
            scan = scan_entry(Tree(models.path, "models"), "x", HeaderCache(), now=time.time())
            assert all(binary.size == len(whole) for found in scan.models for binary in found.binaries if binary.whole)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("target", ["/", "/proc", "above"])
def test_a_link_that_leads_everywhere_is_a_problem_and_not_walked(tmp_path: Path, target: str, nested: bool) -> None:
    models = tmp_path / "root" / "models"
    folder = models / "a" if nested else models
    folder.mkdir(parents=True)
    (folder / "wide").symlink_to(tmp_path / "root" if target == "above" else target)
    scan = scan_entry(Tree(models, "models"), "a" if nested else "wide", HeaderCache(), now=time.time())

    assert [problem.code for problem in scan.problems] == ["wide-link"]
    assert scan.models == ()
