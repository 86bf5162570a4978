"""The Unix socket: private from its first instant, never taken from the living, always from the dead."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.api.private_socket import MAX_PATH, BoundSocket, bind_private
from jand.errors import SocketInUseError, SocketUnusableError
from tests.fakes.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

BIND_AND_DIE = """
import os, signal, sys, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("bound", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
BIND_AND_LIVE = """
import sys, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(int(sys.argv[2]))
print("bound", flush=True)
sys.stdin.read()
"""
SEE_MODES = """
import os, stat, sys
print("watching", flush=True)
modes = set()
done = False
while not done:
    done = os.path.exists(sys.argv[2])  # the last one is still there then, and looked at
    try:
        modes.add(stat.S_IMODE(os.lstat(sys.argv[1]).st_mode))
    except FileNotFoundError:
        pass
print(" ".join(oct(mode) for mode in sorted(modes)))
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a short one: pytest's own paths are near the limit of a socket's."""
    with tempfile.TemporaryDirectory(prefix="jand-") as path:
        yield Path(path)


@pytest.fixture(autouse=True)
def lax_umask() -> Iterator[None]:
    """Set the worst one for a private socket."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def close(bound: BoundSocket) -> None:
    bound.listener.close()
    bound.remove()


def test_the_socket_is_0600_in_a_0700_directory_that_is_made_for_it(directory: Path) -> None:
    path = directory / "a" / "jand" / "jand.sock"

    bound = bind_private(path)

    assert (mode_of(path), mode_of(path.parent)) == (0o600, 0o700)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(bound)


def test_no_other_process_ever_sees_a_wider_mode(directory: Path) -> None:
    """Another process looks at the mode all the time while the socket is bound 200 times under the worst umask."""
    path, done = directory / "s", directory / "done"
    with subprocess.Popen(
        [sys.executable, "-c", SEE_MODES, str(path), str(done)], stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        for _ in range(200):
            close(bind_private(path))
        last = bind_private(path)
        done.touch()
        seen = watcher.stdout.read().split()
    close(last)

    assert seen == ["0o600"]


def test_the_umask_is_put_back(directory: Path) -> None:
    close(bind_private(directory / "s"))
    (directory / "file").touch()

    assert mode_of(directory / "file") == 0o666


@pytest.mark.parametrize(("mode", "directory_mode"), [(0o660, 0o710), (0o666, 0o711), (0o620, 0o710), (0o600, 0o700)])
def test_a_wider_mode_opens_the_directory_that_we_make_as_well(directory: Path, mode: int, directory_mode: int) -> None:
    path = directory / "run" / "s"

    bound = bind_private(path, mode=mode)

    assert (mode_of(path), mode_of(path.parent)) == (mode, directory_mode)
    close(bound)


def test_a_group_is_given_the_socket_and_its_directory(directory: Path) -> None:
    import grp

    group = grp.getgrgid(os.getegid())
    path = directory / "run" / "s"

    bound = bind_private(path, mode=0o660, group=group.gr_name)

    assert (path.lstat().st_gid, path.parent.stat().st_gid) == (group.gr_gid, group.gr_gid)
    close(bound)
    with pytest.raises(SocketUnusableError, match='there is no group "nosuchgroup"'):
        bind_private(path, group="nosuchgroup")


def test_a_dead_daemons_socket_is_replaced(directory: Path) -> None:
    path = directory / "s"
    killed = subprocess.run(
        [sys.executable, "-c", BIND_AND_DIE, str(path)], capture_output=True, check=False, timeout=8
    )
    assert (killed.returncode, path.is_socket()) == (-9, True)

    bound = bind_private(path)

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert mode_of(path) == 0o600
    close(bound)


@pytest.mark.parametrize("backlog", ["16", "0"])
def test_a_live_daemons_socket_is_never_taken_and_its_pid_is_named(directory: Path, backlog: str) -> None:
    """Also where its queue of connections is full, as when it is stopped by a debugger."""
    path = directory / "s"
    with subprocess.Popen(
        [sys.executable, "-c", BIND_AND_LIVE, str(path), backlog], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"bound\n"
        before = path.lstat()
        queued = []
        if backlog == "0":
            for _ in range(2):
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                client.connect_ex(str(path))
                queued.append(client)

        with pytest.raises(SocketInUseError, match="another daemon") as refused:
            bind_private(path)

        for client in queued:
            client.close()
        other.kill()

    assert (path.lstat().st_ino, path.lstat().st_dev) == (before.st_ino, before.st_dev)
    if backlog == "16":
        assert refused.value.facts["pid"] == other.pid
        assert f"pid {other.pid}" in refused.value.message


def test_of_many_that_find_a_dead_socket_at_once_exactly_one_binds(directory: Path) -> None:
    path = directory / "s"
    for _ in range(20):
        subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)  # a breath for the scheduler
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        results: list[BoundSocket | SocketInUseError] = []

        def bind(found: list[BoundSocket | SocketInUseError] = results) -> None:
            try:
                found.append(bind_private(path))
            except SocketInUseError as error:
                found.append(error)

        threads = [threading.Thread(target=bind) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        (bound,) = [result for result in results if isinstance(result, BoundSocket)]
        assert len(results) == 4
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        close(bound)


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(directory: Path, what: str) -> None:
    path = directory / "s"
    if what == "file":
        path.write_text("precious")
    elif what == "directory":
        path.mkdir()
    else:
        (directory / "target").write_text("precious")
        path.symlink_to(directory / "target")

    with pytest.raises(SocketUnusableError, match="no socket is there"):
        bind_private(path)

    assert os.path.lexists(path)


@pytest.mark.parametrize("length", [MAX_PATH, MAX_PATH + 1, 4_000])
def test_a_path_that_no_socket_can_have_is_refused_by_its_length(directory: Path, length: int) -> None:
    path = directory / ("x" * (length - len(os.fsencode(directory)) - 1))
    assert len(os.fsencode(path)) == length

    if length == MAX_PATH:
        close(bind_private(path))
        return
    with pytest.raises(SocketUnusableError, match=rf"its path has {length} bytes, and a socket's can have {MAX_PATH}"):
        bind_private(path)


def test_a_length_counts_bytes_and_not_letters(directory: Path) -> None:
    with pytest.raises(SocketUnusableError, match="bytes"):
        bind_private(directory / ("模" * 40))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o722])
def test_a_directory_that_others_may_write_to_is_refused(directory: Path, mode: int) -> None:
    parent = directory / "run"
    parent.mkdir()
    parent.chmod(mode)

    with pytest.raises(SocketUnusableError, match="others may write") as refused:
        bind_private(parent / "s")

    assert refused.value.hint == f"chmod go-w {parent}"
    assert list(parent.iterdir()) == []
    assert mode_of(parent) == mode


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750, 0o1777])
def test_a_directory_that_others_cannot_harm_is_taken_as_it_is(directory: Path, mode: int) -> None:
    parent = directory / "run"
    parent.mkdir()
    parent.chmod(mode)

    close(bind_private(parent / "s"))

    assert mode_of(parent) == mode


def test_somebody_elses_directory_is_refused(directory: Path) -> None:
    """As root the directory is given away; anybody else takes one that root or another user owns and that is theirs to write."""
    parent = directory / "run"
    parent.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(parent, 12345, -1)
        with pytest.raises(SocketUnusableError, match="belongs to somebody else"):
            bind_private(parent / "s")
    else:
        with pytest.raises(SocketUnusableError, match="cannot listen on"):
            bind_private(Path("/proc/1/s"))


def test_a_place_that_is_no_directory_or_cannot_be_written_is_one_clear_error(directory: Path) -> None:
    (directory / "file").touch()
    with pytest.raises(SocketUnusableError, match="cannot listen on"):
        bind_private(directory / "file" / "s")
    with pytest.raises(SocketUnusableError, match="cannot listen on"):
        bind_private(Path("/proc/jand/s"))


def test_at_the_end_it_is_removed_only_while_it_is_ours(directory: Path) -> None:
    path = directory / "s"
    first = bind_private(path)
    path.unlink()
    second = bind_private(path)

    first.remove()
    assert path.is_socket()
    second.remove()
    assert not path.exists()
    second.remove()
    first.listener.close()
    second.listener.close()


def test_a_directory_that_vanished_is_no_error_at_the_end(directory: Path) -> None:
    bound = bind_private(directory / "run" / "s")
    shutil.rmtree(directory / "run")

    bound.remove()

    bound.listener.close()


def test_a_lock_that_another_program_holds_for_a_moment_is_waited_for(directory: Path) -> None:
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    bound: list[BoundSocket] = []
    thread = threading.Thread(target=lambda: bound.append(bind_private(directory / "s")))
    thread.start()
    thread.join(0.1)
    assert bound == []
    os.close(descriptor)

    until_sync(lambda: bound)
    thread.join()
    close(bound[0])
