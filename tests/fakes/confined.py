"""A program that confines itself as a worker does and then tries what it is told: `python -m tests.fakes.confined READABLE TRY ...` prints one JSON object, what came of each TRY.

READABLE is the one file that it may read beside the system's. It was given the descriptor of a socket that listens, as a worker has one.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from jand.engine import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

AT_EMPTY_PATH = 0x1000


def read(path: str) -> None:
    with Path(path).open("rb") as file:
        file.read(1)


def write(path: str) -> None:
    with Path(path).open("wb") as file:
        file.write(b"x")


def append(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def connect(kind: socket.SocketKind, family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
    with socket.socket(family, kind) as made:
        made.connect(address)


def datagram(path: str) -> None:
    """Send to a socket that belongs to somebody else, without connecting."""
    ours, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.sendto(b"x", path)


def execute_from_memory(_: str) -> None:
    descriptor = os.memfd_create("program")
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (ctypes.c_char_p * 2)(b"program", None)
    libc.execveat(descriptor, b"", arguments, arguments, AT_EMPTY_PATH)
    raise OSError(ctypes.get_errno(), "execveat")


def thread(_: str) -> None:
    done = threading.Event()
    made = threading.Thread(target=done.set)
    made.start()
    made.join()
    assert done.is_set()


def read_from_thread(path: str) -> None:
    """Threads that were made afterwards are confined as well."""
    caught: list[OSError] = []

    def attempt() -> None:
        try:
            read(path)
        except OSError as error:
            caught.append(error)

    made = threading.Thread(target=attempt)
    made.start()
    made.join()
    if caught:
        raise caught[0]


def grow_memory(_: str) -> None:
    """Ask for more than any machine has."""
    try:
        bytearray(1 << 46)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "no memory") from error


TRIES: dict[str, Callable[[str], object]] = {
    "read": read,
    "write": write,
    "append": append,
    "truncate": lambda path: os.truncate(path, 0),
    "remove": os.unlink,
    "rename": lambda path: Path(path).rename(path + "2"),
    "make": lambda path: Path(path + ".d").mkdir(),
    "link": lambda path: Path(path + ".l").symlink_to("/etc/passwd"),
    "chmod": lambda path: Path(path).chmod(0o777),
    "touch": lambda path: os.utime(path, (0, 0)),
    "list": os.listdir,
    "tcp": lambda port: connect(socket.SOCK_STREAM, socket.AF_INET, ("127.0.0.1", int(port))),
    "udp": lambda port: connect(socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", int(port))),
    "tcp6": lambda port: connect(socket.SOCK_STREAM, socket.AF_INET6, ("::1", int(port))),
    "unix": lambda path: connect(socket.SOCK_STREAM, socket.AF_UNIX, path),
    "abstract": lambda name: connect(socket.SOCK_STREAM, socket.AF_UNIX, "\0" + name),
    "datagram": datagram,
    "execute": lambda path: subprocess.run([path], check=True),
    "replace": lambda path: os.execv(path, [path]),
    "memory-program": execute_from_memory,
    "fork": lambda _: os._exit(0) if os.fork() == 0 else None,
    "kill": lambda pid: os.kill(int(pid), 0),
    "stop": lambda pid: os.kill(int(pid), signal.SIGSTOP),
    "environment": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "thread": thread,
    "read-from-thread": read_from_thread,
    "grow-memory": grow_memory,
    "pair": lambda _: socket.socketpair(),
    "random": lambda _: read("/dev/urandom"),
    "null": lambda _: write("/dev/null"),
    "import": __import__,
}


def attempt(what: str) -> str:
    name, _, argument = what.partition("=")
    try:
        TRIES[name](argument)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def main() -> None:
    readable, *tries = sys.argv[1:]
    told = {"sandbox": sandbox.confine([readable], os.environ)}
    sys.stdout.write(json.dumps({**told, **{what: attempt(what) for what in tries}}) + "\n")


if __name__ == "__main__":
    main()
