"""Every way in which a model can arrive, change and go is seen, by events alone: sweeps do not come within these tests."""

from __future__ import annotations

import asyncio
import functools
import os
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.gguf_files import bare_header
from tests.fakes.library import add_model, watching
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from jand.library.findings import Found
    from tests.fakes.library import Watched

MODELS = ("models/phi/deep/er/tuned.json", "models/phi/model.json")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    return root


@pytest.fixture
async def watched(root: Path) -> AsyncIterator[Watched]:
    async with watching(root) as watched:
        yield watched


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return tmp_path / "outside"


@pytest.fixture
def source(outside: Path) -> Path:
    return make_source(outside)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """Give a directory on another file system than the tree's."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def make_source(above: Path) -> Path:
    """Make a model's folder with a folder below it that holds another model."""
    folder = above / "phi"
    add_model(folder)
    add_model(folder / "deep" / "er", "tuned.json")
    bare_header(folder / "phi.gguf")
    return folder


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


def by_python(source: Path, root: Path) -> None:
    shutil.copytree(source, root / "phi")


def by_cp(source: Path, root: Path) -> None:
    subprocess.run(["cp", "-r", source, root], check=True)


def by_cp_keeping_times(source: Path, root: Path) -> None:
    os.utime(source / "model.json", (1_000_000_000, 1_000_000_000))
    subprocess.run(["cp", "-a", source, root], check=True)


def by_mv(source: Path, root: Path) -> None:
    subprocess.run(["mv", source, root], check=True)


def by_hard_links(source: Path, root: Path) -> None:
    subprocess.run(["cp", "-al", source, root], check=True)


def by_ln(source: Path, root: Path) -> None:
    (root / "phi" / "deep" / "er").mkdir(parents=True)
    for name in ("model.json", "phi.gguf", "deep/er/tuned.json"):
        subprocess.run(["ln", source / name, root / "phi" / name], check=True)


def by_link_to_the_folder(source: Path, root: Path) -> None:
    subprocess.run(["ln", "-s", source, root], check=True)


def by_links_to_the_files(source: Path, root: Path) -> None:
    (root / "phi" / "deep" / "er").mkdir(parents=True)
    for name in ("model.json", "phi.gguf", "deep/er/tuned.json"):
        subprocess.run(["ln", "-s", source / name, root / "phi" / name], check=True)


def by_tar(source: Path, root: Path) -> None:
    archive = source.parent / "phi.tar"
    with tarfile.open(archive, "w") as stream:
        stream.add(source, "phi")
    subprocess.run(["tar", "-xf", archive, "-C", root], check=True)


def by_zipfile(source: Path, root: Path) -> None:
    archive = source.parent / "phi.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in source.rglob("*"):
            stream.write(path, path.relative_to(source.parent))
    with zipfile.ZipFile(archive) as stream:
        stream.extractall(root)


def by_drag_and_drop(source: Path, root: Path) -> None:
    """As file managers do: each file under a temporary name, then renamed."""
    for path in sorted(source.rglob("*")):
        place = root / "phi" / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place.with_name(f".{place.name}.part"))
            place.with_name(f".{place.name}.part").rename(place)


def by_temporary_folder(source: Path, root: Path) -> None:
    shutil.copytree(source, root / ".phi.tmp")
    (root / ".phi.tmp").rename(root / "phi")


def like_rsync(source: Path, root: Path) -> None:
    """Temporary names in the final folder, a restored time, then a rename; what `rsync -a` does."""
    for path in sorted(source.rglob("*")):
        place = root / "phi" / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.Xq3T1a")
            temporary.write_bytes(path.read_bytes())
            os.utime(temporary, (1_000_000_000, 1_000_000_000))
            temporary.rename(place)


def like_rsync_inplace(source: Path, root: Path) -> None:
    """Use the final name and the full length from the first byte, the old time at the end; what `rsync --inplace --preallocate` does."""
    for path in sorted(source.rglob("*")):
        place = root / "phi" / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            with place.open("wb") as stream:
                stream.truncate(len(content))
                for start in range(0, len(content), 64):
                    stream.write(content[start : start + 64])
                    stream.flush()
            os.utime(place, (1_000_000_000, 1_000_000_000))


def by_dd_in_pieces(source: Path, root: Path) -> None:
    for path in sorted(source.rglob("*")):
        place = root / "phi" / path.relative_to(source)
        if path.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            for piece in range(3):
                bounds = [
                    "bs=40",
                    f"count={1 if piece < 2 else 100000}",
                    f"skip={piece}",
                    f"seek={piece}",
                    "conv=notrunc",
                ]
                subprocess.run(["dd", f"if={path}", f"of={place}", "status=none", *bounds], check=True)


WAYS = [
    by_python,
    by_cp,
    by_cp_keeping_times,
    by_mv,
    by_hard_links,
    by_ln,
    by_link_to_the_folder,
    by_links_to_the_files,
    by_tar,
    by_zipfile,
    by_drag_and_drop,
    by_temporary_folder,
    like_rsync,
    like_rsync_inplace,
    by_dd_in_pieces,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_folder_arrives_and_goes(
    way: Callable[[Path, Path], None], watched: Watched, source: Path, root: Path
) -> None:
    await asyncio.to_thread(way, source, root)
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()

    await run("rm", "-r", root / "phi")
    await watched.until_models()
    assert not watched.statuses[-1].problems


@pytest.mark.needs("unzip")
async def test_unzip(watched: Watched, source: Path, root: Path) -> None:
    archive = await asyncio.to_thread(shutil.make_archive, str(source.parent / "phi"), "zip", source.parent, "phi")
    await run("unzip", "-q", archive, "-d", root)
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()


@pytest.mark.needs("git")
async def test_git_clone(watched: Watched, source: Path, root: Path) -> None:
    git: list[str | Path] = ["git", "-C", source, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    await run("git", "init", "-q", source)
    await run(*git, "add", ".")
    await run(*git, "commit", "-qm", "A model")
    await run("git", "clone", "-q", source, root / "phi")
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()


@pytest.mark.needs("rsync")
@pytest.mark.parametrize("option", ["--times", "--inplace", "--delay-updates"])
async def test_rsync(option: str, watched: Watched, source: Path, root: Path) -> None:
    await run("rsync", "-a", option, source, root)
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()


@pytest.fixture
async def ssh_options(tmp_path: Path) -> AsyncIterator[list[str | Path]]:
    """Run an SSH server for this test, on loopback and with keys of its own; give what a client needs to reach it."""
    for name in ("host", "user"):
        await run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {tmp_path}/host",
        f"AuthorizedKeysFile {tmp_path}/user.pub",
        "PidFile none",
    ]
    lines += [
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "PermitRootLogin prohibit-password",
        "Subsystem sftp internal-sftp",
    ]
    (tmp_path / "sshd_config").write_text("\n".join([*lines, ""]))
    if os.geteuid() == 0:
        # Where it locks in what has not logged in yet; services of distributions make it at each start.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    program = shutil.which("sshd") or "sshd"
    command = (program, "-D", "-e", "-f", tmp_path / "sshd_config")
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert server.stderr is not None
    try:
        said = await server.stderr.readline()
        assert b"Server listening" in said, said
        options = [
            f"Port={port}",
            f"IdentityFile={tmp_path}/user",
            f"UserKnownHostsFile={tmp_path}/known",
            "StrictHostKeyChecking=no",
            "BatchMode=yes",
        ]
        yield ["-F", "none", *(part for option in options for part in ("-o", option))]
    finally:
        server.terminate()
        await server.communicate()


@pytest.mark.needs("sshd", "scp", "ssh-keygen")
@pytest.mark.parametrize("protocol", ["sftp", "scp"])
async def test_scp(protocol: str, ssh_options: list[str | Path], watched: Watched, source: Path, root: Path) -> None:
    await run("scp", "-r", "-q", "-s" if protocol == "sftp" else "-O", *ssh_options, source, f"127.0.0.1:{root}")
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()
    assert (root / "phi" / "phi.gguf").read_bytes() == (source / "phi.gguf").read_bytes()


async def test_a_move_from_another_file_system(watched: Watched, in_memory: Path, root: Path) -> None:
    folder = make_source(in_memory)
    await run("mv", folder, root)
    await watched.until_models(*MODELS)
    await watched.until_true_to_disk()

    await run("mv", root / "phi", in_memory)
    await watched.until_models()


async def test_a_move_out_and_back(watched: Watched, source: Path, root: Path, outside: Path) -> None:
    for _ in range(3):
        await run("mv", source, root)
        await watched.until_models(*MODELS)
        await run("mv", root / "phi", outside)
        await watched.until_models()


async def test_a_folder_is_renamed(watched: Watched, source: Path, root: Path) -> None:
    await run("mv", source, root)
    await watched.until_models(*MODELS)
    (root / "phi").rename(root / "psi")
    await watched.until_models("models/psi/model.json", "models/psi/deep/er/tuned.json")
    (root / "psi" / "deep").rename(root / "psi" / "shallow")
    await watched.until_models("models/psi/model.json", "models/psi/shallow/er/tuned.json")
    add_model(root / "psi" / "shallow" / "er", "later.json")
    await watched.until_model("models/psi/shallow/er/later.json")
    await watched.until_true_to_disk()


async def test_two_folders_are_exchanged(watched: Watched, root: Path) -> None:
    add_model(root / "a", "one.json")
    add_model(root / "b", "two.json")
    await watched.until_models("models/a/one.json", "models/b/two.json")
    (root / "a").rename(root / "c")
    (root / "b").rename(root / "a")
    (root / "c").rename(root / "b")
    await watched.until_models("models/b/one.json", "models/a/two.json")


async def test_loose_files_arrive_change_and_go(watched: Watched, root: Path) -> None:
    add_model(root, "loose.json")
    bare_header(root / "bare.gguf")
    await watched.until_models("models/loose.json")
    await until(lambda: watched.picture["models", ""].bare, what="the bare binary")
    (root / "loose.json").rename(root / "other.json")
    await watched.until_models("models/other.json")
    (root / "other.json").unlink()
    (root / "bare.gguf").unlink()
    await watched.until_models()
    await watched.until_true_to_disk()


async def test_an_editor_saves(watched: Watched, root: Path) -> None:
    """Write beside it, move the old one away, move the new one in, remove the old one: the model never goes."""
    path = add_model(root / "phi", description="first")
    await watched.until_models("models/phi/model.json")
    for number in range(5):
        new = add_model(root / "phi", "model.json.new", description=f"number {number}")
        path.rename(path.with_name("model.json~"))
        new.rename(path)
        path.with_name("model.json~").unlink()
        await until_described(watched, "phi", f"number {number}")
    await watched.until_models("models/phi/model.json")


async def test_a_file_is_replaced_in_one_step(watched: Watched, root: Path) -> None:
    path = add_model(root / "phi", description="first")
    await watched.until_models("models/phi/model.json")
    for number in range(20):
        new = add_model(root / "phi", ".model.json.tmp", description=f"number {number}")
        new.replace(path)
        await until_described(watched, "phi", f"number {number}")
    assert all(scanned.models for scanned in watched.told if scanned.entry == "phi")


async def test_a_binary_grows_under_its_json(watched: Watched, root: Path, outside: Path) -> None:
    """What is arriving is told while it grows, and is whole only after the last byte."""
    outside.mkdir()
    whole = bare_header(outside / "phi.gguf", size=200_000).read_bytes()
    folder = root / "phi"
    folder.mkdir()
    (folder / "phi.json").write_text('{"origin": "someone/phi"}')
    await watched.until_models("models/phi/phi.json")

    def size() -> tuple[int, bool]:
        found = watched.picture["models", "phi"].models[0]
        return (found.binaries[0].size if found.binaries else 0, found.whole)

    with (folder / "phi.gguf").open("wb") as stream:
        for end in (50_000, 100_000, 150_000, 200_000):
            stream.write(whole[stream.tell() : end])
            stream.flush()
            expected = (end, False)
            await until(functools.partial(lambda expected: size() == expected, expected), what=f"{end} bytes")
        closed_at = time.monotonic()
    await until(lambda: size() == (200_000, True), 1.0, what="the whole binary")
    assert time.monotonic() - closed_at < 0.5
    await watched.until_true_to_disk()


@pytest.mark.timeout(30)
async def test_a_copy_that_is_killed_is_told_and_may_be_gone_on_with(
    watched: Watched, root: Path, outside: Path
) -> None:
    """W15: half a binary that nobody writes to any more is a problem; when the rest comes, it is a model."""
    outside.mkdir()
    whole = bare_header(outside / "phi.gguf", size=200_000)
    add = root / "phi"
    add.mkdir()
    (add / "phi.json").write_text('{"origin": "someone/phi"}')
    half = f"head -c 100000 {shlex.quote(str(whole))} > {shlex.quote(str(add / 'phi.gguf'))}"
    copying = await asyncio.create_subprocess_shell(f"{half}; exec sleep 60 >> {shlex.quote(str(add / 'phi.gguf'))}")

    def found() -> Found:
        return watched.picture["models", "phi"].models[0]

    await until(lambda: watched.models and found().binaries and found().binaries[0].writing, what="the copy under way")
    assert found().error is None
    copying.kill()
    await copying.wait()
    await until(lambda: found().error is not None, what="the copy that was cut")
    assert found().error is not None
    assert found().error.code == "incomplete-binary"  # type: ignore[union-attr]
    await run(
        *("dd", f"if={whole}", f"of={add / 'phi.gguf'}", "bs=1000", "skip=100", "seek=100", "conv=notrunc"),
        "status=none",
    )
    await until(lambda: found().whole, what="the whole binary")
    await watched.until_true_to_disk()


async def test_odd_names(watched: Watched, root: Path) -> None:
    """Blanks, newlines, every kind of Unicode, 255 bytes and bytes that are no text at all."""
    names = [
        "with blanks",
        "new\nline",
        "\u00fc",
        "u\u0308",
        "\u6a21\u578b",
        "x" * 255,
        "-rf",
        "~tilde",
        "a\\b",
        "*",
        "\udcff\udcfe",
    ]
    for name in names:
        add_model(root / name)
    await until(lambda: len(watched.models) == len(names), what="all of them")
    assert {entry for _, entry in watched.picture} - {""} == set(names)
    await watched.until_true_to_disk()
    for name in names:
        await run("rm", "-r", "--", os.fsencode(root / name))  # type: ignore[arg-type]
    await watched.until_models()


async def test_a_case_only_rename(watched: Watched, root: Path) -> None:
    add_model(root / "phi", "Model.json")
    await watched.until_models("models/phi/Model.json")
    (root / "phi" / "Model.json").rename(root / "phi" / "model.json")
    await watched.until_models("models/phi/model.json")


async def test_a_file_takes_the_place_of_a_folder_and_back(watched: Watched, root: Path) -> None:
    add_model(root / "phi")
    await watched.until_models("models/phi/model.json")
    shutil.rmtree(root / "phi")
    (root / "phi").write_text("no folder")
    await watched.until_models()
    (root / "phi").unlink()
    add_model(root / "phi")
    await watched.until_models("models/phi/model.json")
    await watched.until_true_to_disk()


async def test_what_happens_behind_a_link_is_seen(watched: Watched, source: Path, root: Path) -> None:
    (root / "phi").symlink_to(source)
    await watched.until_models(*MODELS)
    add_model(source, "behind.json")
    await watched.until_models(*MODELS, "models/phi/behind.json")
    (source / "behind.json").unlink()
    await watched.until_models(*MODELS)
    add_model(source / "deep", "deeper.json")
    await watched.until_models(*MODELS, "models/phi/deep/deeper.json")


async def test_a_link_is_turned_elsewhere(watched: Watched, root: Path, outside: Path) -> None:
    add_model(outside / "old", "old.json")
    add_model(outside / "new", "new.json")
    (root / "link").symlink_to(outside / "old")
    await watched.until_models("models/link/old.json")
    (root / "link.tmp").symlink_to(outside / "new")
    (root / "link.tmp").replace(root / "link")
    await watched.until_models("models/link/new.json")
    add_model(outside / "new", "newer.json")
    await watched.until_models("models/link/new.json", "models/link/newer.json")
    add_model(outside / "old", "older.json")
    await watched.until_true_to_disk()


async def test_the_target_of_a_dangling_link_comes_back(
    watched: Watched, root: Path, source: Path, outside: Path
) -> None:
    """What it led to may only be unmounted, so its models stay meanwhile, and are marked as away."""
    (root / "phi").symlink_to(source)
    await watched.until_models(*MODELS)
    source.rename(outside / "away")
    await until(lambda: watched.library.status.is_offline("models", "phi"), what="the entry to be offline")
    assert watched.models == set(MODELS)
    (outside / "away").rename(source)
    await until(lambda: not watched.library.status.is_offline("models", "phi"), what="the entry to be back")
    (root / "phi").unlink()
    await watched.until_models()


async def test_a_link_that_is_there_before_its_target(watched: Watched, root: Path, outside: Path) -> None:
    for name in ("early", "early.gguf"):
        (root / name).symlink_to(outside / name)
    await until(lambda: ("models", "early") in watched.picture)
    assert ("models", "early.gguf") not in watched.picture
    add_model(outside / "early")
    bare_header(outside / "early.gguf")
    await watched.until_models("models/early/model.json")
    await until(lambda: watched.picture["models", ""].bare)
    await watched.until_true_to_disk()


async def test_a_write_through_another_name_of_the_file(watched: Watched, root: Path, outside: Path) -> None:
    """W14: no event comes for that, since the other name lies in no watched folder."""
    other = add_model(outside, description="before")
    (root / "phi").mkdir()
    (root / "phi" / "model.json").hardlink_to(other)
    await until_described(watched, "phi", "before")
    with other.open("r+") as stream:
        stream.write(other.read_text().replace("before", "after!"))
    await until_described(watched, "phi", "after!")


async def test_loops_of_links_end(watched: Watched, root: Path) -> None:
    """W13: up to the tree, to itself, to one another, and to nowhere."""
    add_model(root / "a")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "self").symlink_to("self")
    (root / "a" / "b").symlink_to(root / "b")
    add_model(root / "b", "b.json")
    (root / "b" / "a").symlink_to(root / "a")
    (root / "b" / "nowhere").symlink_to("/nowhere/at/all")
    await until(lambda: {"models/a/model.json", "models/b/b.json"} <= watched.models)
    await watched.until_true_to_disk()
    add_model(root / "b", "c.json")
    await watched.until_model("models/b/c.json")
    await watched.until_true_to_disk()


async def test_our_own_temporary_files_are_nobody_s_business(watched: Watched, root: Path) -> None:
    """W20: what jand writes under its own names causes no scan and does not unsettle a folder."""
    add_model(root / "phi")
    await watched.until_model("models/phi/model.json")
    await watched.library.wait_settled("models", "phi")
    (root / "phi" / ".jand-part").mkdir()
    with (root / "phi" / ".jand-part" / "weights.part").open("wb") as stream:
        for _ in range(50):
            stream.write(b"x" * 1000)
            stream.flush()
    (root / ".jand-1234.tmp").write_text("{}")
    began = time.monotonic()
    await watched.library.wait_settled("models", "phi")
    assert time.monotonic() - began < 0.2


async def until_described(watched: Watched, entry: str, description: str) -> None:
    def described() -> bool:
        scanned = watched.picture.get(("models", entry))
        return scanned is not None and any(found.spec.metadata.description == description for found in scanned.models)

    await until(described, what=f"{entry} to be described as {description}")
