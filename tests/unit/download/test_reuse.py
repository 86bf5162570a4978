"""Which files of other programs are used, with what proof, and how they are linked."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from jand.download.neighbours import Layout, Place
from jand.download.plan import WantedFile
from jand.download.repository import HUGGING_FACE, resolve_url
from jand.download.reuse import QUIET_S, Reuse, find_dead
from jand.errors import BadFileNameError
from jand.library.probe import has_writer
from tests.fakes import gguf_files, neighbours
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from pathlib import Path

    from jand.download.reuse import Taken

REPO = "some/noise-GGUF"
NAME = "noise.Q4_K_M.gguf"
SIZE = 100_000


class Case:
    """LM Studio's folder in *home*, with one file as REPO's, and a model's folder that lacks it."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.place = Place(home / ".lmstudio" / "models", Layout.LM_STUDIO)
        self.source = gguf_files.bare_header(folder.parent / "source.gguf", size=SIZE)
        self.theirs = neighbours.lm_studio(home, REPO, NAME, self.source)
        self.digest = neighbours.digest_of(self.source)
        self.writer: bool | None = False
        self.checked: list[int] = []
        self.stop = threading.Event()
        self.reuse = Reuse([self.place], HUGGING_FACE, lambda _: self.writer)

    def wanted(self, *, name: str = NAME, size: int | None = SIZE, sha256: str | None = None) -> WantedFile:
        url = resolve_url(HUGGING_FACE, REPO, "main", name)
        source = resolve_url(HUGGING_FACE, REPO, neighbours.COMMIT, name)
        return WantedFile(name, url, source, size, sha256, on_hub=True)

    def take(self, *, name: str = NAME, size: int | None = SIZE, sha256: str | None = None) -> Taken | None:
        wanted = self.wanted(name=name, size=size, sha256=sha256)
        return self.reuse.take(wanted, self.folder, stop=self.stop, on_bytes=self.checked.append)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, tmp_path / "model")


def test_a_file_with_the_digest_is_linked_under_the_name_that_is_wanted(case: Case) -> None:
    taken = case.take(sha256=case.digest)

    assert taken is not None
    assert (taken.source, taken.place) == (case.theirs, case.place.path)
    assert (case.folder / NAME).samefile(case.theirs)
    assert not (case.folder / NAME).is_symlink()
    assert case.checked[-1] == SIZE


def test_where_nobody_states_a_digest_repository_path_and_size_are_enough(case: Case) -> None:
    assert case.take() is not None
    assert case.checked == []


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_another_size_is_another_file(case: Case, size: int) -> None:
    assert case.take(size=size, sha256=case.digest) is None
    assert not (case.folder / NAME).exists()


def test_one_wrong_byte_is_another_file(case: Case) -> None:
    with case.theirs.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")

    assert case.take(sha256=case.digest) is None
    assert not (case.folder / NAME).exists()


def test_a_blob_whose_name_lies_about_its_content_is_not_used_even_where_nobody_else_states_a_digest(
    case: Case, tmp_path: Path
) -> None:
    blob = neighbours.hub_cache(tmp_path, REPO, NAME, case.source)
    with blob.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\1")
    case.reuse = Reuse([Place(tmp_path / ".cache" / "huggingface" / "hub", Layout.HUB)], HUGGING_FACE, has_writer)

    assert case.take() is None
    assert case.take(sha256=blob.name) is None


def test_a_file_that_its_header_calls_longer_is_not_used_and_neither_is_what_is_no_model(case: Case) -> None:
    os.truncate(case.theirs, SIZE - 1)
    assert case.take(size=SIZE - 1) is None
    case.theirs.write_text("<html>")
    assert case.take(size=6) is None


def test_what_was_hashed_is_not_hashed_again_until_it_changes(case: Case) -> None:
    wrong = "ab" * 32
    assert case.take(sha256=wrong) is None
    hashed = len(case.checked)
    assert case.take(sha256=wrong) is None
    assert len(case.checked) == hashed
    os.utime(case.theirs)
    assert case.take(sha256=wrong) is None
    assert len(case.checked) == 2 * hashed


def test_a_file_that_somebody_writes_is_not_used(case: Case) -> None:
    case.reuse = Reuse([case.place], HUGGING_FACE, has_writer)
    with case.theirs.open("ab"):
        assert case.take() is None
    assert case.take() is not None


def test_where_nobody_can_tell_a_file_must_have_rested(case: Case) -> None:
    case.writer = None
    assert case.take() is None
    rested = until_sync(case.take, QUIET_S + 2, what="the file to have rested")
    assert rested is not None


def test_a_file_whose_download_has_a_control_file_is_not_used(case: Case) -> None:
    case.theirs.with_name(NAME + ".aria2").touch()

    assert case.take() is None


@pytest.mark.parametrize("mode", [0o646, 0o602])
def test_a_file_that_anybody_may_write_is_not_used(case: Case, mode: int) -> None:
    case.theirs.chmod(mode)

    assert case.take() is None


def test_a_folder_in_which_anybody_may_replace_the_file_is_not_used(case: Case) -> None:
    case.theirs.parent.chmod(0o777)
    assert case.take() is None
    case.theirs.parent.chmod(0o1777)
    assert case.take() is not None


def test_a_group_with_others_in_it_may_not_write_the_file(case: Case) -> None:
    strangers = next(gid for gid in range(60_000, 2**16) if gid not in os.getgroups())
    case.theirs.chmod(0o664)
    assert case.take() is not None, "the group of this user alone"
    (case.folder / NAME).unlink()
    if os.geteuid() == 0:
        os.chown(case.theirs, -1, strangers)
        assert case.take() is None


@pytest.mark.parametrize("service", [False, True])
def test_a_file_of_another_user_is_used_only_where_root_set_up_that_users_program(case: Case, *, service: bool) -> None:
    case.reuse = Reuse([Place(case.place.path, Layout.LM_STUDIO, service=service)], HUGGING_FACE, has_writer)
    assert case.take() is not None
    (case.folder / NAME).unlink()
    if os.geteuid() == 0:  # nobody else can give a file away
        for path in (case.place.path, case.theirs.parent.parent, case.theirs.parent, case.theirs):
            os.chown(path, 60_001, -1)
        assert (case.take() is not None) is service
        os.chown(case.theirs, 60_002, -1)
        (case.folder / NAME).unlink(missing_ok=True)
        assert case.take() is None


def test_a_link_that_leads_out_of_the_programs_folder_is_not_followed(case: Case, tmp_path: Path) -> None:
    case.theirs.unlink()
    case.theirs.symlink_to(case.source)
    assert case.take() is None
    case.theirs.unlink()
    case.theirs.symlink_to(gguf_files.bare_header(case.theirs.with_name("real.gguf"), size=SIZE))
    assert case.take() is not None


@pytest.mark.parametrize("kind", ["directory", "pipe", "device"])
def test_what_is_no_regular_file_is_not_opened_for_good(case: Case, kind: str) -> None:
    case.theirs.unlink()
    if kind == "directory":
        case.theirs.mkdir()
    elif kind == "pipe":
        os.mkfifo(case.theirs)
    else:
        case.theirs.symlink_to("/dev/zero")

    assert case.take() is None


def test_over_file_systems_the_link_is_symbolic(case: Case, other_file_system: Path) -> None:
    case.folder = other_file_system
    taken = case.take()

    assert taken is not None
    assert (case.folder / NAME).readlink() == case.theirs


def test_a_sub_folder_of_the_repository_is_kept(case: Case) -> None:
    taken = case.take(name=f"Q4_K_M/{NAME}")

    assert taken is not None
    assert (case.folder / "Q4_K_M" / NAME).samefile(case.theirs)


@pytest.mark.parametrize("there", ["file", "dangling link"])
def test_nothing_is_ever_linked_over(case: Case, there: str) -> None:
    if there == "file":
        (case.folder / NAME).write_text("mine")
    else:
        (case.folder / NAME).symlink_to("nowhere")
    before = (case.folder / NAME).lstat()

    assert case.take() is None
    assert (case.folder / NAME).lstat() == before


def test_a_folder_that_is_reached_through_a_link_is_not_written_to(case: Case, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(case.folder)
    case.folder = tmp_path / "link"

    assert case.take() is None
    assert list(case.folder.iterdir()) == []


def test_what_a_download_had_begun_goes(case: Case) -> None:
    partial = case.folder / ".jand-part"
    partial.mkdir()
    (partial / f"{NAME}.part").write_bytes(b"begun")
    assert case.take() is not None

    assert not partial.exists()


def test_it_gives_up_when_it_is_not_wanted_any_more(case: Case) -> None:
    case.stop.set()

    assert case.take(sha256=case.digest) is None
    assert not (case.folder / NAME).exists()


def test_a_name_that_leaves_the_folder_is_refused_although_the_file_is_there(case: Case) -> None:
    with pytest.raises(BadFileNameError):
        case.take(name=f"../{NAME}")
    assert [path.name for path in case.folder.parent.iterdir() if path.suffix == ".gguf"] == ["source.gguf"]


def test_a_link_is_dead_only_where_its_program_deleted_the_file(case: Case, other_file_system: Path) -> None:
    case.folder = other_file_system
    taken = case.take()
    assert taken is not None
    link = case.folder / NAME

    assert not find_dead(link, taken)
    case.theirs.unlink()
    assert find_dead(link, taken)
    case.place.path.parent.rename(case.place.path.parent.with_name("unmounted"))
    assert not find_dead(link, taken)
    link.unlink()
    link.symlink_to("/somebody/elses/choice")
    assert not find_dead(link, taken)
