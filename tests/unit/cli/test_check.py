"""`jand check DIR`: offline, and nothing is changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from jand.cli.program import run
from tests.fakes import gguf_files

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {"origin": "tests/tiny"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "models"
    folder.mkdir(parents=True)
    return folder


def put(folder: Path, name: str, content: dict[str, Any] | str, *, weights: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    if weights:
        gguf_files.bare_header(folder / f"{name}.gguf")


def checked(directory: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = run(["check", str(directory), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_what_is_whole_is_complete_and_the_status_is_0(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "tiny", "tiny", GOOD)
    put(models / "remote", "gpt4", {"origin": "https://api.openai.com/v1", "import_format": "openai"}, weights=False)

    status, found = checked(models.parent, capsys)

    assert (status, found["ok"], found["problems"]) == (0, True, [])
    assert {model["id"]: model["verdict"] for model in found["models"]} == {"tiny": "complete", "gpt4": "complete"}


def test_a_root_a_models_folder_and_the_folder_of_one_model_give_the_same_id(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(models / "tiny", "model", GOOD)

    for directory in (models.parent, models, models / "tiny"):
        assert [model["id"] for model in checked(directory, capsys)[1]["models"]] == ["tiny"], directory


def test_a_broken_json_is_located_and_the_status_is_1(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "tiny", "tiny", GOOD)
    put(models / "bad", "bad", '{\n "origin": "a/b"\n "id": "x"\n}')

    status, found = checked(models, capsys)

    assert (status, found["ok"]) == (1, False)
    (problem,) = (
        problem for problem in found["problems"] if problem["severity"] == "error" and "bad.json" in problem["path"]
    )
    assert problem["line"] in {2, 3}
    assert [model["id"] for model in found["models"]] == ["tiny"], "one bad entry never hides another"


def test_a_truncated_binary_is_wrong(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "tiny", "tiny", GOOD)
    weights = models / "tiny" / "tiny.gguf"
    weights.write_bytes(weights.read_bytes()[:-10])

    status, found = checked(models, capsys)

    assert status == 1
    assert found["models"][0]["verdict"] == "incomplete-binary"
    assert sum(problem["code"] == "incomplete-binary" for problem in found["problems"]) == 1


def test_what_would_be_fetched_is_not_wrong(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "tiny", "tiny", {**GOOD, "download_url": "weights.gguf"}, weights=False)

    status, found = checked(models, capsys)

    assert status == 0
    assert found["models"][0]["verdict"] == "would fetch weights.gguf"


def test_two_files_that_claim_one_id_are_wrong(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "a", "same", GOOD)
    put(models / "b", "same", GOOD)

    status, found = checked(models, capsys)

    assert status == 1
    assert {model["id"] for model in found["models"]} == {"same", "b/same"}
    assert [problem["code"] for problem in found["problems"]] == ["duplicate-id"]


def test_an_unknown_field_is_a_warning_and_does_not_fail(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(models / "tiny", "tiny", {**GOOD, "orign": "x"})

    status, found = checked(models, capsys)

    assert status == 0
    assert [problem["severity"] for problem in found["problems"]] == ["warning"]


def test_for_people_each_problem_has_its_place_and_the_end_counts_them(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(models / "bad", "bad", '{"origin": }')

    assert run(["check", str(models)]) == 1

    out = capsys.readouterr().out
    assert "bad.json:1:" in out
    assert out.splitlines()[-1] == "0 models, 1 wrong, 0 warnings"


def test_a_bare_gguf_is_left_as_it_is(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "bare").mkdir()
    gguf_files.bare_header(models / "bare" / "weights.gguf")
    before = sorted(models.parent.rglob("*"))

    assert checked(models, capsys)[0] == 0
    assert sorted(models.parent.rglob("*")) == before


def test_a_directory_that_is_not_there_has_a_status_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(tmp_path / "none")]) == 66
    assert "it is no directory" in capsys.readouterr().err
