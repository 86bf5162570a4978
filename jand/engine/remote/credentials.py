"""The key for a provider: what a JSON says about it, turned into the key itself, and whether it may go where the JSON wants it.

`file:NAME`, `credential:NAME` and `env:NAME` are looked up by plain names. Where `[secrets]` binds a name to an origin, the key goes to that origin alone, and a
variable goes nowhere else at all: a JSON that somebody drops cannot send it elsewhere. No key travels without TLS, except to this machine itself
(`http://` with a key is for loopback hosts only). The key is in no message here, and the log masks it from the moment on that it is known.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from yarl import URL

from jand.engine.remote.endpoint import is_loopback
from jand.errors import BadRemoteError
from jand.log import SECRETS

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEY: Final = 16 * 1024
"""Bytes; the longest that is sent are tokens of a few kilobytes."""

_REFERENCE = re.compile(r"(?P<kind>file|credential|env):(?P<name>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A key, and for people where it came from. *loose* is the NAME of a `file:` or `credential:` that `[secrets]` binds to no origin, so that any JSON may send it anywhere."""

    key: str = field(repr=False)
    source: str
    loose: str | None = None


class Credentials:
    """Finds keys. *directory* is `<root>/secrets`, *bindings* are those of `[secrets]`: name to origin, whose host may begin with `*.` for one label."""

    def __init__(self, directory: Path, environ: Mapping[str, str], bindings: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ
        self.bind(bindings)

    def bind(self, bindings: Mapping[str, str]) -> None:
        """Let *bindings* count for every key that is looked up from now on."""
        self._bindings = {name: _Binding.of(written) for name, written in bindings.items()}

    def find(self, written: str | None, origin: URL) -> Credential | None:
        """Return the key that *written* (the `API-KEY` of a JSON) gives for *origin*, for none the variable that is bound to it, else None. Reads files.

        Raises BadRemoteError, also where that key must not go there.
        """
        found = self._bound_to(origin) if written is None else self._given(written.strip(), origin)
        if found is None:
            return None
        if not _is_sendable(found.key):
            raise BadRemoteError(
                f"cannot use {found.source} as a key: it holds characters that no key has",
                hint="a key is one line of plain letters, digits and signs",
            )
        SECRETS.add([found.key])
        if origin.scheme != "https" and not is_loopback(origin.host):
            raise BadRemoteError(
                f"cannot send a key to {_shown(origin)}: it would travel in the open",
                hint="use https:// in the origin, or leave out API-KEY",
                param="origin",
            )
        return found

    def names_for(self, origin: URL) -> tuple[str, ...]:
        """Return the variables whose value may be sent to *origin*, those bound to it alone before those bound to many."""
        names = [name for name, binding in self._bindings.items() if binding.allows(origin)]
        return tuple(sorted(names, key=lambda name: self._bindings[name].is_wide))

    def _bound_to(self, origin: URL) -> Credential | None:
        set_ones = (name for name in self.names_for(origin) if self._environ.get(name, "").strip())
        name = next(set_ones, None)
        return None if name is None else Credential(self._environ[name].strip(), f"the environment variable {name}")

    def _given(self, written: str, origin: URL) -> Credential:
        reference = _REFERENCE.fullmatch(written)
        if reference is None:
            return Credential(written, "API-KEY of its JSON")
        kind, name = reference["kind"], reference["name"].strip()
        if not _NAME.fullmatch(name):
            raise BadRemoteError(
                f'cannot use API-KEY "{kind}:...": what follows is no plain name',
                hint="letters, digits, dots, hyphens and underscores make a name; a path does not",
                param="API-KEY",
            )
        self._check_binding(kind, name, origin)
        if kind == "env":
            return self._from_environment(name)
        found = self._from_file(name) if kind == "file" else self._from_systemd(name)
        return found if name in self._bindings else replace(found, loose=name)

    def _check_binding(self, kind: str, name: str, origin: URL) -> None:
        binding = self._bindings.get(name)
        if binding is None and kind != "env":
            return
        if binding is not None and binding.allows(origin):
            return
        bound = "nowhere" if binding is None else f"to {binding.written} alone"
        raise BadRemoteError(
            f'cannot use API-KEY "{kind}:{name}" for {_shown(origin)}: jand.toml lets it go {bound}',
            hint=f'if that is meant, write {name} = "{_shown(origin)}" into the [secrets] part of jand.toml and restart the daemon',
            param="API-KEY",
        )

    def _from_environment(self, name: str) -> Credential:
        key = self._environ.get(name, "").strip()
        if not key:
            raise BadRemoteError(
                f'cannot use API-KEY "env:{name}": the daemon was started without that variable',
                hint=f"set {name} where the daemon is started, or use file:NAME",
                param="API-KEY",
            )
        return Credential(key, f"the environment variable {name}")

    def _from_file(self, name: str) -> Credential:
        path = self._directory / name
        missing = f"write the key into {path} and give it mode 600"
        return Credential(_read(path, f"file:{name}", missing=missing, private=True), f"secrets/{name}")

    def _from_systemd(self, name: str) -> Credential:
        place = self._environ.get("CREDENTIALS_DIRECTORY", "")
        if not place:
            raise BadRemoteError(
                f'cannot use API-KEY "credential:{name}": systemd gave the daemon no credentials',
                hint=f"add LoadCredential={name}:/path/of/the/key to its unit, or use file:NAME",
                param="API-KEY",
            )
        # systemd alone decides who can enter that directory.
        missing = "let LoadCredential= of the daemon's unit name it (see: jand manual service) and restart the daemon"
        path = Path(place) / name
        return Credential(_read(path, f"credential:{name}", missing=missing, private=False), f"the credential {name}")


def _read(path: Path, reference: str, *, missing: str, private: bool) -> str:
    """Return the key that *path* holds; *missing* is what mends that there is none."""
    try:
        # A pipe must not make the open wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise _unreadable(reference, f"{path} is not there", hint=missing) from None
    except PermissionError:
        hint = f"the daemon runs as uid {os.geteuid()}: give it the file, or let its group read it (chown, chmod)"
        raise _unreadable(reference, f"{path} may not be read", hint=hint) from None
    except OSError as error:
        raise _unreadable(reference, f"{path}: {(error.strerror or 'it cannot be read').lower()}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _unreadable(reference, "it is no file")
        if private and (who := _who_else_reads(facts)):
            hint = f"chmod 600 it, and change the key if {who} could have seen it"
            raise _unreadable(reference, f"{who} can read it", hint=hint)
        content = os.read(descriptor, MAX_KEY + 1)
    finally:
        os.close(descriptor)
    key = content.decode("utf-8", "replace").strip()
    if not key or len(content) > MAX_KEY:
        raise _unreadable(reference, "it is empty" if not key else "it is too large for a key")
    return key


def _who_else_reads(facts: os.stat_result) -> str:
    """Say who besides its owner and us can read a file; empty for nobody.

    The group of a file of our own is others to us. With a file of somebody else (root's, group ours, 0640, as packages do it) the group is how we can read it at all.
    """
    if facts.st_mode & stat.S_IRWXO:
        return "everybody"
    return "its group" if facts.st_uid == os.geteuid() and facts.st_mode & stat.S_IRWXG else ""


def _unreadable(reference: str, cause: str, hint: str = "") -> BadRemoteError:
    hint = hint or "the key alone belongs into the file, on one line"
    return BadRemoteError(f'cannot use API-KEY "{reference}": {cause}', hint=hint, param="API-KEY")


def _is_sendable(key: str) -> bool:
    return key.isascii() and key.isprintable() and " " not in key and len(key) <= MAX_KEY


def _shown(origin: URL) -> str:
    return str(origin.origin())


@dataclass(frozen=True, slots=True)
class _Binding:
    """An origin of `[secrets]`. One that cannot be read allows nothing."""

    written: str
    origin: URL | None
    is_wide: bool

    @classmethod
    def of(cls, written: str) -> _Binding:
        text = written if "://" in written else f"https://{written}"
        scheme, _, rest = text.partition("://")
        wide = rest.startswith("*.")
        try:
            origin: URL | None = URL(f"{scheme}://{rest.removeprefix('*.')}").origin()
        except ValueError:
            origin = None
        return cls(written, origin, wide)

    def allows(self, origin: URL) -> bool:
        if self.origin is None or (origin.scheme, origin.port) != (self.origin.scheme, self.origin.port):
            return False
        host, bound = origin.raw_host or "", self.origin.raw_host or ""
        if not self.is_wide:
            return host == bound
        label, dot, domain = host.partition(".")
        return bool(label and dot) and domain == bound
