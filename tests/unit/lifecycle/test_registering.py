"""The JSON that is written on somebody's behalf: what it says, where it goes, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jand.errors import BadRequestError, ModelExistsError, ModelNotFoundError, NotPossibleError
from jand.library import generated
from jand.library.findings import Binary, Found, Role, Stamp
from jand.lifecycle import registering
from jand.lifecycle.catalog import Catalog
from jand.lifecycle.registering import Draft, compose, compose_copy, make_a_persons, merge, validate, write
from jand.model.document import parse, to_json
from tests.fakes.records import make_found

HUB = "https://huggingface.co"
ENTRY = {"origin": "user/listed", "id": "own/id", "parameters": {"init": {"ctx_len": 8}}, "metadata": {"tags": ["x"]}}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    folder = tmp_path / "catalog"
    folder.mkdir()
    (folder / "listed.json").write_text(json.dumps(ENTRY))
    (folder / "zephyr-7b.json").write_text('{"origin": "user/zephyr"}')
    return Catalog(folder, tmp_path / "none")


def draft_of(catalog: Catalog, body: dict[str, Any], endpoint: str = HUB) -> Draft:
    return compose(body, Path("/root/models"), catalog, endpoint)


@pytest.mark.parametrize(
    ("body", "path", "data"),
    [
        (
            {"origin": "user/repo"},
            "repo/repo.json",
            {"origin": "user/repo"},
        ),
        (
            {"origin": "user/My.Repo-7B-GGUF", "quantization": "Q4_K_M"},
            "My.Repo-7B-Q4_K_M/My.Repo-7B-Q4_K_M.json",
            {"origin": "user/My.Repo-7B-GGUF", "metadata": {"quantization": "Q4_K_M"}},
        ),
        (
            {"origin": "user/repo", "quantization": "all"},
            "repo/repo.json",
            {"origin": "user/repo", "metadata": {"quantization": "all"}},
        ),
        (
            {"origin": "hf.co/user/repo@v2:q5_k_m", "id": "mine"},
            "mine/mine.json",
            {"origin": "user/repo@v2", "id": "mine", "metadata": {"quantization": "q5_k_m"}},
        ),
        (
            {"origin": "https://huggingface.co/user/repo-GGUF/tree/main"},
            "repo/repo.json",
            {"origin": "user/repo-GGUF"},
        ),
        (
            {"origin": "https://huggingface.co/user/repo/blob/main/sub/tiny.Q2_K.gguf"},
            "tiny.Q2_K/tiny.Q2_K.json",
            {"origin": "user/repo", "download_url": "sub/tiny.Q2_K.gguf"},
        ),
        (
            {"download_url": "https://huggingface.co/user/repo/resolve/v1/big-00001-of-00003.gguf?download=true"},
            "big/big.json",
            {"origin": "user/repo@v1", "download_url": "big-00001-of-00003.gguf"},
        ),
        (
            {"download_url": "https://example.com/a/b/some.gguf?x=1"},
            "some/some.json",
            {"origin": "https://example.com/a/b", "download_url": "https://example.com/a/b/some.gguf?x=1"},
        ),
        (
            {"origin": "TheBloke/zephyr-7B-beta-GGUF"},
            "zephyr-7B-beta/zephyr-7B-beta.json",
            {"origin": "TheBloke/zephyr-7B-beta-GGUF", "import_format": "thebloke"},
        ),
        (
            {"origin": "janhq/repo", "import_format": "default"},
            "repo/repo.json",
            {"origin": "janhq/repo", "import_format": "default"},
        ),
        (
            {"origin": "local", "folder": "there", "id": "a b/c"},
            "there/a-b-c.json",
            {"origin": "local", "id": "a b/c"},
        ),
        (
            {"import_format": "openai", "id": "gpt"},
            "gpt/gpt.json",
            {"import_format": "openai", "id": "gpt"},
        ),
        (
            {"origin": "https://me.openai.azure.com/", "import_format": "azure_openai"},
            "me.openai.azure.com/me.openai.azure.com.json",
            {"origin": "https://me.openai.azure.com/", "import_format": "azure_openai"},
        ),
        (
            {"catalog": "zephyr-7b", "quantization": "Q8_0"},
            "zephyr-7b/zephyr-7b.json",
            {"origin": "user/zephyr", "metadata": {"engine": "llamacpp", "quantization": "Q8_0"}},
        ),
        (
            {"origin": "user/repo", "owned_by": None, "tags": ["kept"]},
            "repo/repo.json",
            {"origin": "user/repo", "tags": ["kept"]},
        ),
    ],
)
def test_each_kind_of_body_becomes_a_json_in_a_folder_of_its_own(
    catalog: Catalog, body: dict[str, Any], path: str, data: dict[str, Any]
) -> None:
    draft = draft_of(catalog, body)

    assert draft.path == f"models/{path}"
    assert draft.directory == Path("/root/models") / Path(path).parent
    assert data.items() <= draft.data.items()
    assert draft.data.keys() - data.keys() <= {"import_format", "object", "parameters", "metadata"}
    validate(draft)


def test_the_id_is_the_explicit_one_else_what_the_file_gives(catalog: Catalog) -> None:
    assert draft_of(catalog, {"origin": "user/repo", "id": "a/b"}).model_id == "a/b"
    assert draft_of(catalog, {"origin": "user/repo", "folder": "there"}).model_id == "there"
    assert draft_of(catalog, {"catalog": "listed"}).model_id == "own/id"


def test_a_catalogue_entry_goes_under_the_name_of_its_file_and_what_the_body_says_goes_over_it(
    catalog: Catalog,
) -> None:
    draft = draft_of(
        catalog, {"catalog": "listed", "id": None, "parameters": {"init": {"ngl": 3}}, "metadata": {"tags": ["y"]}}
    )

    assert draft.path == "models/listed/listed.json"
    assert draft.data["parameters"]["init"] == {"ctx_len": 8, "ngl": 3}
    assert draft.data["metadata"]["tags"] == ["y"]


def test_a_mirror_s_addresses_are_those_of_its_repositories(catalog: Catalog) -> None:
    body = {"download_url": "http://127.0.0.1:9/user/repo/resolve/main/x.gguf"}

    assert draft_of(catalog, body, "http://127.0.0.1:9").data["origin"] == "user/repo"


def test_an_unknown_entry_names_the_near_one(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFoundError, match='"zephir-7b"') as raised:
        draft_of(catalog, {"catalog": "zephir-7b"})

    assert (raised.value.hint, raised.value.param) == ("did you mean zephyr-7b?", "catalog")


@pytest.mark.parametrize("entry", ["../listed", "../../etc/passwd", "listed.json", "", "catalog/listed"])
def test_a_catalogue_id_is_looked_up_and_never_a_path(catalog: Catalog, entry: str) -> None:
    with pytest.raises(ModelNotFoundError):
        draft_of(catalog, {"catalog": entry})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"origin": "user/repo", "folder": "../x"}, "folder"),
        ({"origin": "user/repo", "folder": ".."}, "folder"),
        ({"origin": "user/repo", "folder": "a/b"}, "folder"),
        ({"origin": "user/repo", "folder": "a\n"}, "folder"),
        ({"origin": "user/repo", "folder": ".hidden"}, "folder"),
        ({"origin": "user/repo", "folder": 5}, "folder"),
        ({"origin": "user/repo", "id": "///"}, "id"),
        ({"origin": "user/repo", "id": ""}, "id"),
        ({"origin": "user/repo", "id": 7}, "id"),
        ({"origin": "user/repo", "id": "x" * 200}, "id"),
        ({"origin": "user/repo", "folder": "x.tmp"}, "id"),
        ({"origin": "user/repo", "folder": "there", "id": "config"}, "id"),
        ({}, "origin"),
    ],
)
def test_what_makes_no_file_name_that_scans_look_at_is_refused(
    catalog: Catalog, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as raised:
        validate(draft_of(catalog, body))

    assert raised.value.param == param
    assert raised.value.hint


def test_a_name_that_belongs_to_repositories_becomes_the_folder_s(catalog: Catalog) -> None:
    """`config.json` is never read as a model's."""
    draft = draft_of(catalog, {"origin": "user/repo", "id": "config"})

    assert (draft.path, draft.model_id) == ("models/config/model.json", "config")


@pytest.mark.parametrize("id_", ["../../evil", "a/../b", "a\\b", "C:x", "a\0b", "-x", "ä", "x" * 128])
def test_whatever_the_id_the_file_stays_in_one_folder_below_models(catalog: Catalog, id_: str) -> None:
    try:
        draft = draft_of(catalog, {"origin": "user/repo", "id": id_})
    except BadRequestError:
        return
    assert draft.directory.parent == Path("/root/models")
    assert draft.directory.name not in {"", ".", ".."}
    assert Path(draft.name).name == draft.name


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"parameters": {"init": {"ctx_len": -1}}}, "parameters.init.ctx_len"),
        ({"parameters": {}}, "parameters.init"),
        ({"import_format": "floppy"}, "import_format"),
        ({"object": "assistant"}, "object"),
        ({"metadata": {"quantization": 4}}, "metadata.quantization"),
        ({"origin": " "}, "origin"),
    ],
)
def test_what_is_no_model_is_refused_by_the_name_of_its_field(
    catalog: Catalog, changes: dict[str, Any], param: str
) -> None:
    with pytest.raises(BadRequestError) as raised:
        validate(draft_of(catalog, {"origin": "user/repo", **changes}))

    assert raised.value.param == param


def test_what_json_cannot_hold_is_refused(catalog: Catalog) -> None:
    for value in (float("nan"), 2**70, "half \ud800"):
        with pytest.raises(BadRequestError):
            validate(draft_of(catalog, {"origin": "user/repo", "note": value}))


# What is written.


def made(directory: Path, **data: Any) -> Draft:
    return Draft(directory, f"models/{directory.name}", "m.json", {"origin": "user/repo", **data})


def test_a_draft_is_written_as_a_json_that_reads_back_without_complaint(tmp_path: Path) -> None:
    draft = made(tmp_path / "m", id="m")
    write(draft)

    document = parse((tmp_path / "m" / "m.json").read_bytes(), "m.json")
    assert document.problems == ()
    assert document.spec is not None
    assert document.spec.id == "m"
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["m.json"]


@pytest.mark.parametrize(("key", "mode"), [("sk-0123456789abcdef", 0o600), ("env:OPENAI_API_KEY", 0o644)])
def test_a_json_with_a_key_in_it_is_for_its_owner_alone(tmp_path: Path, key: str, mode: int) -> None:
    before = os.umask(0o022)
    try:
        write(made(tmp_path / "m", parameters={"init": {"API-KEY": key}}))
    finally:
        os.umask(before)

    assert (tmp_path / "m" / "m.json").stat().st_mode & 0o777 == mode


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "m.json").write_text("theirs")

    with pytest.raises(ModelExistsError):
        write(made(tmp_path / "m"))
    assert (tmp_path / "m" / "m.json").read_text() == "theirs"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NotPossibleError, match="link"):
        write(made(tmp_path / "m"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_disk_that_refuses_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NotPossibleError, match="no such file or directory"):
        write(made(tmp_path / "gone" / "m"))
    (tmp_path / "m").write_text("a file in the folder's place")
    with pytest.raises(NotPossibleError):
        write(made(tmp_path / "m"))

    long = Draft(tmp_path / "new", "models/new", "x" * 300 + ".json", {"origin": "user/repo"})
    with pytest.raises(NotPossibleError, match="too long"):
        write(long)
    assert not (tmp_path / "new").exists()


# Copies.


def test_a_copy_is_bound_to_the_binaries_of_its_original(tmp_path: Path) -> None:
    found = make_found(
        "models/a/a.json", directory=tmp_path, parameters={"init": {"ctx_len": 8, "ngl": 1}}, owned_by="me"
    )
    draft = compose_copy(found, {"id": "b c", "parameters": {"init": {"ctx_len": 16}}, "owned_by": None}, ())

    assert draft.path == "models/a/b-c.json"
    assert draft.directory == tmp_path
    assert draft.data["id"] == "b c"
    assert draft.data["download_url"] == "weights.gguf"
    assert draft.data["parameters"]["init"] == {"ctx_len": 16, "ngl": 1}
    assert "owned_by" not in draft.data


def test_a_copy_keeps_what_the_original_names_and_takes_what_the_body_says(tmp_path: Path) -> None:
    named = make_found(directory=tmp_path, download_url="./weights.gguf")

    assert compose_copy(named, {"id": "b"}, ("x",)).data["download_url"] == "./weights.gguf"
    assert compose_copy(named, {"id": "b", "download_url": "other.gguf"}, ()).data["download_url"] == "other.gguf"


def test_a_copy_of_what_is_still_coming_waits_for_the_same_files(tmp_path: Path) -> None:
    found = Found(
        "models/a/a.json", "models/a", str(tmp_path), make_found().spec, Stamp(1, 1, 1, 1, 1), unresolved=True
    )

    draft = compose_copy(found, {"id": "b"}, ("x-00001-of-00002.gguf", "x-00002-of-00002.gguf"))

    assert draft.data["download_url"] == ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"]
    assert "download_url" not in compose_copy(found, {"id": "b"}, ()).data


def test_a_copy_of_a_remote_model_has_no_binaries(tmp_path: Path) -> None:
    remote = make_found(directory=tmp_path, import_format="openai", origin="https://api.openai.com/v1")

    assert "download_url" not in compose_copy(remote, {"id": "b"}, ()).data


@pytest.mark.parametrize("id_", [None, 5, "", "..", "config", "x.tmp"])
def test_a_copy_needs_an_id_that_makes_a_file(tmp_path: Path, id_: object) -> None:
    if id_ == "x.tmp":
        # Its JSON is called x.tmp.json, which scans do look at.
        assert compose_copy(make_found(directory=tmp_path), {"id": id_}, ()).name == "x.tmp.json"
        return
    with pytest.raises(BadRequestError) as raised:
        compose_copy(make_found(directory=tmp_path), {"id": id_}, ())

    assert raised.value.param == "id"


def test_the_json_that_jand_made_becomes_a_person_s_when_somebody_builds_on_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_bytes(generated.sign(to_json({"origin": "local", "metadata": {"generated": generated.UNSIGNED}})))
    edited = tmp_path / "edited.json"
    edited.write_bytes(mine.read_bytes() + b"\n")
    before = edited.read_bytes()
    for file in (mine, edited, tmp_path / "none.json"):
        make_a_persons(file)

    spec = parse(mine.read_bytes(), "mine.json").spec
    assert spec is not None
    assert (spec.origin, spec.metadata.generated) == ("local", None)
    assert edited.read_bytes() == before
    assert not (tmp_path / "none.json").exists()


def test_merging_goes_into_objects_and_null_takes_away() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [1], "e": "x"}

    assert merge(base, {"a": {"b": None, "f": {"g": None, "h": 3}}, "d": [2], "e": {"i": None}, "j": 4}) == {
        "a": {"c": 2, "f": {"h": 3}},
        "d": [2],
        "e": {},
        "j": 4,
    }
    assert base == {"a": {"b": 1, "c": 2}, "d": [1], "e": "x"}


def test_binaries_of_other_roles_are_not_named_by_a_copy(tmp_path: Path) -> None:
    """A projector goes with whatever weights are named in its folder."""
    found = make_found(directory=tmp_path)
    projector = Binary("mmproj.gguf", str(tmp_path / "mmproj.gguf"), Role.PROJECTOR, stamp=Stamp(1, 2, 3, 4, 5))
    both = Found(found.path, found.folder, found.place, found.spec, found.stamp, (*found.binaries, projector))

    assert registering.compose_copy(both, {"id": "b"}, ()).data["download_url"] == "weights.gguf"
