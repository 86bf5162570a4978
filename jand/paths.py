"""Where things are: the root and what lies in it, and the control socket, by the contract's order.

The daemon decides where its socket *will* be; a client looks where one *is*: the two orders differ. The environment is handed in. Imports little, because
every start of the command line waits for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_NAME = Path("jand") / "jand.sock"


@dataclass(frozen=True, slots=True)
class Janroot:
    """The layout of a root directory. Nothing here says that any of it exists."""

    path: Path

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def catalog(self) -> Path:
        return self.path / "catalog"

    @property
    def secrets(self) -> Path:
        """Keys of providers, one a file, which only their owner can read."""
        return self.path / "secrets"

    @property
    def settings_file(self) -> Path:
        return self.path / "jand.toml"

    @property
    def own(self) -> Path:
        """The daemon's own directory; anybody may delete what lies in it at any time."""
        return self.path / ".jand"


@dataclass(frozen=True, slots=True)
class Places:
    """The directories that the defaults are made from. *runtime* is the user's `$XDG_RUNTIME_DIR`, None where there is none."""

    home: Path
    runtime: Path | None = None
    superuser: bool = False
    system_root: Path = Path("/janroot")
    system_runtime: Path = Path("/run")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Places:
        """Read *environ*; a relative `XDG_RUNTIME_DIR` counts as none, as its specification demands."""
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
        return cls(home=home, runtime=runtime if runtime.is_absolute() else None, superuser=os.geteuid() == 0)

    def default_root(self) -> Path:
        """`/janroot` where it exists, else `~/janroot`."""
        return self.system_root if self.system_root.is_dir() else self.home / "janroot"

    def default_socket(self) -> Path:
        """Where a daemon listens when nobody says otherwise."""
        if self.runtime is not None:
            return self.runtime / SOCKET_NAME
        return self.system_runtime / SOCKET_NAME if self.superuser else self._home_socket

    def client_sockets(self) -> tuple[Path, ...]:
        """Where a client looks, the system's daemon last for everybody."""
        own = () if self.runtime is None else (self.runtime / SOCKET_NAME,)
        return (*own, self._home_socket, self.system_runtime / SOCKET_NAME)

    @property
    def _home_socket(self) -> Path:
        return self.home / ".jand" / "jand.sock"

    def absolute(self, path: Path, base: Path) -> Path:
        """Expand a leading `~/` and make *path* absolute from *base*; links and `..` stay as they were written."""
        if path.parts[:1] == ("~",):
            return self.home.joinpath(*path.parts[1:])
        return base / path


def shipped_example() -> Path:
    """Return janroot.example: inside the package where it was installed, beside it in a checkout. It may be missing from a broken installation."""
    package = Path(__file__).parent
    inside = package / "example"
    return inside if inside.is_dir() else package.parent / "janroot.example"


def client_sockets(flag: Path | None, environ: Mapping[str, str], places: Places | None = None) -> tuple[Path, ...]:
    """Return where a client looks for the daemon, in order; it takes the first that exists.

    What a flag or `JAND_SOCKET` names is the only answer: a command meant for one daemon never reaches another. Next comes what the root's
    `jand.toml` names, so that a client finds a daemon whose socket was moved there.
    """
    places = places or Places.of(environ)
    named = flag or (Path(environ["JAND_SOCKET"]) if environ.get("JAND_SOCKET") else None)
    if named is not None:
        return (places.absolute(named, Path.cwd()),)
    root = Path(environ["JAND_ROOT"]) if environ.get("JAND_ROOT") else places.default_root()
    root = places.absolute(root, Path.cwd())
    written = _socket_in(Janroot(root).settings_file)
    own = () if written is None else (places.absolute(Path(written), root),)
    return (*own, *places.client_sockets())


def _socket_in(settings_file: Path) -> str | None:
    """Return the `socket` of a jand.toml; one that cannot be read is the daemon's to complain about, not a client's."""
    if not os.access(settings_file, os.R_OK):
        return None
    import tomllib  # noqa: PLC0415 - 8 ms that a client without a jand.toml need not wait

    try:
        with settings_file.open("rb") as file:
            value = tomllib.load(file).get("socket")
    except (OSError, ValueError):
        return None
    return value if isinstance(value, str) and value else None


def printable(text: str) -> str:
    """Escape what a terminal would obey and what is no character: names of dropped files come from anywhere."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def leads_to_journal(stream: str, file: TextIO) -> bool:
    """Whether *file* is what *stream*, the `JOURNAL_STREAM` of the environment, names: device and inode of what systemd's journal reads (systemd.exec(5))."""
    device, _, inode = stream.partition(":")
    if not (device.isascii() and device.isdigit() and inode.isascii() and inode.isdigit()):
        return False
    try:
        found = os.fstat(file.fileno())
    except (OSError, ValueError):  # what stands in for a stream in a test has no descriptor
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
