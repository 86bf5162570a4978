"""A bare GGUF gets its JSON: complete, honest, never over another file, and gone again when a person's JSON comes."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from jand import atomic
from jand.library import adopt, generated
from jand.library.findings import LOOSE
from jand.model import document
from tests.fakes import gguf_files
from tests.fakes.gguf_bytes import text, u32
from tests.fakes.models_tree import LATER_S, ModelsTree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jand.library.findings import BareBinary
    from tests.fakes.gguf_bytes import Value


@pytest.fixture
def models(tmp_path: Path) -> ModelsTree:
    return ModelsTree(tmp_path / "models")


def adopt_all(models: ModelsTree) -> list[Path]:
    return [path for bare in models.bare() if (path := adopt.adopt(bare)) is not None]


def content(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_an_adopted_gguf_is_a_whole_model_and_nothing_is_bare_any_more(models: ModelsTree) -> None:
    models.gguf("x/Ada-7B.Q4_K_M.gguf", name="Ada", context_length=2048, chat_template="{{ x }}")

    (path,) = adopt_all(models)

    assert path == models.path / "x/Ada-7B.Q4_K_M.json"
    found = models.only("x")
    assert (found.path, found.whole, found.generated) == ("models/x/Ada-7B.Q4_K_M.json", True, True)
    assert [binary.name for binary in found.binaries] == ["Ada-7B.Q4_K_M.gguf"]
    assert (models.bare(), models.problems()) == ([], [])
    assert models.listed("x") == ["Ada-7B.Q4_K_M.gguf", "Ada-7B.Q4_K_M.json"]


def test_the_json_says_what_the_header_says(models: ModelsTree) -> None:
    models.gguf("ada.gguf", name="Ada", context_length=2048, chat_template="{{ x }}")

    written = content(*adopt_all(models))

    assert written["origin"] == "local"
    assert written["download_url"] == "./ada.gguf"
    assert written["parameters"] == {"init": {"ctx_len": 2048}, "runtime": {}}
    assert written["metadata"]["quantization"] == "Q4_K_M"
    assert "Ada" in written["metadata"]["description"]
    assert "its own chat template" in written["metadata"]["description"]
    assert document.parse(json.dumps(written).encode(), "x").problems == ()


def test_a_header_without_a_template_is_told_and_so_is_an_embedding_model(models: ModelsTree) -> None:
    models.gguf("base.gguf")
    models.gguf("embed.gguf", architecture="bert", keys=[("bert.pooling_type", u32(1))])

    written = {path.name: content(path) for path in adopt_all(models)}

    assert "no chat template" in written["base.json"]["metadata"]["description"]
    assert written["embed.json"]["parameters"]["init"]["embedding"] is True


SHAPE = [
    ("llama.block_count", u32(32)),
    ("llama.embedding_length", u32(4096)),
    ("llama.attention.head_count", u32(32)),
    ("llama.attention.head_count_kv", u32(8)),
]
"""Llama 3 8B: 128 KiB of KV cache for each token."""


@pytest.mark.parametrize(
    ("keys", "trained", "expected"),
    [
        ([], 2048, 2048),
        ([], 8192, 8192),
        ([], 131_072, 8192),
        (SHAPE, 8192, 8192),
        (SHAPE, 131_072, 8192),
        ([*SHAPE[:3], ("llama.attention.head_count_kv", u32(32))], 131_072, 4096),
        (SHAPE[:2], 131_072, 8192),
    ],
)
def test_the_context_is_the_trained_one_as_far_as_a_usual_machine_can_hold_it(
    models: ModelsTree, keys: Sequence[tuple[str, Value]], trained: int, expected: int
) -> None:
    models.gguf("m.gguf", context_length=trained, keys=keys)

    assert content(*adopt_all(models))["parameters"]["init"]["ctx_len"] == expected


def test_the_owner_is_the_organisation_of_the_header(models: ModelsTree) -> None:
    models.gguf("m.gguf", keys=[("general.organization", text("Ada Labs"))])

    assert content(*adopt_all(models))["owned_by"] == "Ada Labs"


def test_a_real_model_is_adopted_and_registers(models: ModelsTree) -> None:
    models.at("SmolLM2.gguf").symlink_to(gguf_files.smollm2())

    (path,) = adopt_all(models)

    written = content(path)
    assert written["parameters"]["init"]["ctx_len"] == 8192
    assert written["metadata"]["quantization"] == "Q4_1"
    assert models.only(LOOSE).whole


def test_parts_and_projector_are_grouped(models: ModelsTree) -> None:
    models.gguf("x/m-00001-of-00002.gguf", split=(1, 2))
    models.gguf("x/m-00002-of-00002.gguf", split=(2, 2))
    models.projector("x/mmproj-m.gguf")

    (path,) = adopt_all(models)

    written = content(path)
    assert path.name == "m.json"
    assert written["download_url"] == ["./m-00001-of-00002.gguf", "./m-00002-of-00002.gguf"]
    assert written["metadata"]["mmproj"] == "./mmproj-m.gguf"
    found = models.only("x")
    assert (found.whole, len(found.binaries)) == (True, 3)


@pytest.mark.parametrize(
    "raw", [b".gguf", b"bad\xff.gguf", b"new\nline.gguf", "模型.gguf".encode(), b"y" * 250 + b".gguf"]
)
def test_a_gguf_of_any_name_is_adopted(models: ModelsTree, raw: bytes) -> None:
    models.gguf(os.fsdecode(b"x/" + raw))

    (path,) = adopt_all(models)

    assert path.parent == models.path / "x"
    found = models.only("x")
    assert (found.whole, found.generated, models.bare()) == (True, True, [])


def test_a_binary_whose_name_would_give_a_json_that_is_left_out_gets_another(models: ModelsTree) -> None:
    models.gguf("x/config.gguf")

    (path,) = adopt_all(models)

    assert path.name == "config.gguf.json"
    assert models.only("x").whole


def test_a_json_is_never_written_over_another_file(models: ModelsTree) -> None:
    models.spec("x/foo.json", download_url="bar.gguf")
    mine = (models.path / "x/foo.json").read_bytes()
    models.gguf("x/foo.gguf")
    (models.path / "x/foo.gguf.json").symlink_to("nowhere")

    (path,) = adopt_all(models)

    assert path.name == "foo-2.json"
    assert (models.path / "x/foo.json").read_bytes() == mine
    assert (models.path / "x/foo.gguf.json").is_symlink()


def test_a_json_that_lands_at_the_last_moment_wins(models: ModelsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    models.gguf("x/foo.gguf")
    (bare,) = models.bare()
    link = os.link

    def late(source: str, target: str, **how: Any) -> None:
        models.spec("x/foo.json", id="mine")
        link(source, target, **how)

    monkeypatch.setattr(os, "link", late)

    assert adopt.adopt(bare) is None
    assert models.only("x").spec.id == "mine"
    assert models.listed("x") == ["foo.gguf", "foo.json"]


def refusing(code: int) -> Any:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_file_system_without_hard_links_takes_the_json_too(
    models: ModelsTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.gguf("x/foo.gguf")
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))

    (path,) = adopt_all(models)

    assert adopt.is_unedited(path)
    assert models.listed("x") == ["foo.gguf", "foo.json"]


def test_a_disk_that_takes_no_writes_is_no_failure(models: ModelsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    models.gguf("x/foo.gguf")
    monkeypatch.setattr(os, "link", refusing(errno.EROFS))

    assert adopt_all(models) == []
    assert models.listed("x") == ["foo.gguf"]


def one_bare(models: ModelsTree) -> BareBinary:
    (bare,) = models.bare()
    return bare


def test_nothing_is_written_beside_what_is_not_whole_or_reached_through_a_link(
    models: ModelsTree, tmp_path: Path
) -> None:
    models.gguf("half/m-00001-of-00002.gguf", split=(1, 2))
    assert adopt.adopt(one_bare(models)) is None
    assert len(models.listed("half")) == 1
    (models.path / "half/m-00001-of-00002.gguf").unlink()

    outside = tmp_path / "outside"
    outside.mkdir()
    gguf_files.bare_header(outside / "foo.gguf")
    (models.path / "link").symlink_to(outside)
    assert adopt.adopt(one_bare(models)) is None
    assert [path.name for path in outside.iterdir()] == ["foo.gguf"]


def test_a_bare_binary_of_a_tree_that_is_never_written_to_can_be_a_model_all_the_same(models: ModelsTree) -> None:
    models.writable = False
    models.gguf("x/foo.gguf", context_length=1024)

    found = adopt.as_found(one_bare(models))

    assert found is not None
    assert (found.path, found.whole, found.generated) == ("models/x/foo.json", True, True)
    assert found.spec.parameters.init.ctx_len == 1024
    assert models.listed("x") == ["foo.gguf"]


# A generated JSON and a person's.


def test_a_persons_json_for_the_binary_supersedes_the_generated_one(models: ModelsTree) -> None:
    models.gguf("x/foo.gguf")
    (path,) = adopt_all(models)
    assert adopt.find_superseded(models.scan("x")) == []

    models.spec("x/mine.json", download_url="foo.gguf")

    assert adopt.find_superseded(models.scan("x")) == [path]


def test_a_persons_json_that_names_nothing_supersedes_it_too(models: ModelsTree) -> None:
    models.gguf("x/foo.gguf")
    (path,) = adopt_all(models)

    models.spec("x/model.json")

    scan = models.scan("x")
    assert adopt.find_superseded(scan) == [path]
    assert all(found.whole for found in scan.models)


@pytest.mark.parametrize("edit", [lambda raw: raw + b"\n", lambda raw: raw.replace(b"2048", b"1024")])
def test_a_generated_json_that_somebody_edited_stays(models: ModelsTree, edit: Any) -> None:
    models.gguf("x/foo.gguf")
    (path,) = adopt_all(models)
    path.write_bytes(edit(path.read_bytes()))
    models.spec("x/mine.json", download_url="foo.gguf")

    scan = models.scan("x", later_s=LATER_S)

    assert not adopt.is_unedited(path)
    assert not any(found.generated for found in scan.models)
    assert adopt.find_superseded(scan) == []


def test_a_generated_json_whose_binary_was_taken_away_has_served_its_time(models: ModelsTree) -> None:
    models.gguf("x/foo.gguf")
    (path,) = adopt_all(models)
    (models.path / "x/foo.gguf").rename(models.path / "x/renamed.gguf")

    scan = models.scan("x")

    assert adopt.find_superseded(scan) == [path]
    assert [bare.binaries[0].name for bare in scan.bare] == ["renamed.gguf"]


def test_a_generated_json_stays_while_the_disk_of_its_link_is_away(models: ModelsTree, tmp_path: Path) -> None:
    disk = gguf_files.bare_header(tmp_path / "disk.gguf")
    models.at("x/foo.gguf").symlink_to(disk)
    adopt_all(models)
    disk.unlink()

    assert adopt.find_superseded(models.scan("x")) == []


def test_nothing_is_superseded_where_nothing_may_be_removed(models: ModelsTree) -> None:
    models.gguf("x/foo.gguf")
    adopt_all(models)
    models.spec("x/mine.json", download_url="foo.gguf")
    models.writable = False

    assert adopt.find_superseded(models.scan("x")) == []


def test_a_copied_mark_makes_nobodys_file_generated() -> None:
    signed = generated.sign(f'{{"metadata": {{"generated": "{generated.UNSIGNED}"}}}}')

    assert generated.is_unedited(signed)
    assert not generated.is_unedited(signed.replace(b"{", b"{ ", 1))
    assert not generated.is_unedited(b'{"origin": "x", ' + signed[1:])
    assert not generated.is_unedited(b'{"generated": true}')
    assert not generated.is_unedited(b"")


def test_the_write_leaves_nothing_behind_when_it_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "taken.json"
    target.write_text("mine")

    with pytest.raises(FileExistsError):
        atomic.write(target, b"other")
    assert list(tmp_path.iterdir()) == [target]
