"""What a service consists of: the files for systemd or launchd, with the paths of this machine in them, and the commands that make them count.

The files ship with the package (`systemd/`, `launchd/`) and are whole as they stand; only the program, the root and, for launchd, the home are put in their places.
"""

from __future__ import annotations

import html
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jand.errors import NotPossibleError

if TYPE_CHECKING:
    from collections.abc import Iterable

SHIPPED_PROGRAM: Final = "/usr/bin/jand"
SHIPPED_ROOT: Final = "/janroot"
SHIPPED_USER_ROOT: Final = "%h/janroot"
SHIPPED_DAEMON_ROOT: Final = "/usr/local/var/janroot"
SHIPPED_HOME: Final = "/Users/NAME"
UNITS: Final = ("jand.socket", "jand.service")
LABEL: Final = "ai.jan.jand"

HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 - directories that a unit hides
"""What `ProtectHome` and `PrivateTmp` keep from the system's daemon."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a service is to be: for one *user* or the system, running *program* (the words before `serve`) on *root* (None: the usual one).

    *home* and *config* are the user's; *below* is put before every path of the system, for packages.
    """

    program: tuple[str, ...]
    home: Path
    config: Path
    uid: int
    user: bool = False
    root: Path | None = None
    below: Path | None = None
    launchd: bool = sys.platform == "darwin"

    def at(self, path: Path) -> Path:
        return path if self.below is None else self.below / path.relative_to("/")

    @property
    def janroot(self) -> Path:
        if self.root is not None:
            return self.root
        if self.user:
            return self.home / "janroot"
        return Path(SHIPPED_DAEMON_ROOT if self.launchd else SHIPPED_ROOT)


@dataclass(frozen=True, slots=True)
class Placement:
    """A file of the service: what it holds, and how a comment looks in it."""

    path: Path
    text: str
    comment: str = "# {}"


def shipped(directory: str) -> Path:
    """Return the directory *directory* (`systemd`, `launchd`): inside the package where it was installed, beside it in a checkout."""
    inside = Path(__file__).parent / directory
    found = inside if inside.is_dir() else Path(__file__).parents[2] / directory
    if not found.is_dir():
        raise NotPossibleError(
            f"cannot find the files for {directory}: the installation is not whole", hint="install jand again"
        )
    return found


def placements(site: Site) -> list[Placement]:
    """Return the files of the service at *site*."""
    if site.launchd:
        return [_property_list(site)]
    units = shipped("systemd") / ("user" if site.user else "system")
    directory = site.config / "systemd" / "user" if site.user else Path("/etc/systemd/system")
    files = [Placement(site.at(directory / name), _unit(site, (units / name).read_text())) for name in UNITS]
    if not site.user:
        etc = {"sysusers.conf": "/etc/sysusers.d/jand.conf", "tmpfiles.conf": "/etc/tmpfiles.d/jand.conf"}
        files += [
            Placement(site.at(Path(path)), _unit(site, (shipped("systemd") / name).read_text()))
            for name, path in etc.items()
        ]
    return files


def commands(site: Site) -> list[tuple[str, ...]]:
    """Return what makes the placed files count and starts the service."""
    if site.launchd:
        return [("launchctl", "bootstrap", _domain(site), str(_plist_path(site)))]
    if site.user:
        return [("systemctl", "--user", "daemon-reload"), ("systemctl", "--user", "enable", "--now", *UNITS)]
    return [
        ("systemd-sysusers", "/etc/sysusers.d/jand.conf"),
        ("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/jand.conf"),
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", *UNITS),
    ]


def commands_before_removal(site: Site) -> list[tuple[str, ...]]:
    """Return what stops the service before its files go."""
    if site.launchd:
        return [("launchctl", "bootout", f"{_domain(site)}/{LABEL}")]
    return [("systemctl", *(("--user",) if site.user else ()), "disable", "--now", *UNITS)]


def commands_after_removal(site: Site) -> list[tuple[str, ...]]:
    """Return what makes the service manager forget the files that are gone."""
    return [] if site.launchd else [("systemctl", *(("--user",) if site.user else ()), "daemon-reload")]


def questions(site: Site) -> list[tuple[str, ...]]:
    """Return the commands that say how the service is."""
    if site.launchd:
        return [("launchctl", "print", f"{_domain(site)}/{LABEL}")]
    manager = ("systemctl", *(("--user",) if site.user else ()))
    return [(*manager, verb, unit) for unit in UNITS for verb in ("is-enabled", "is-active")]


def find_program() -> tuple[str, ...]:
    """Return the words that start this very program: its script where one was installed, else its interpreter and module."""
    beside = Path(sysconfig.get_path("scripts")) / "jand"
    if beside.is_file():
        return (str(beside),)
    found = shutil.which("jand")
    return (found,) if found else (sys.executable, "-m", "jand")


def hidden_parts(program: Iterable[str]) -> list[Path]:
    """Return what of this program the system's daemon could not see."""
    parts = {Path(word) for word in program if word.startswith("/")}
    parts |= {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1]}
    resolved = {part.resolve() for part in parts}
    return sorted(part for part in resolved if any(part.is_relative_to(hidden) for hidden in HIDDEN))


def _unit(site: Site, text: str) -> str:
    return "\n".join(line if line.startswith("#") else _line(site, line) for line in text.split("\n"))


def _line(site: Site, line: str) -> str:
    """Put program and root into one line of a unit, in which the root stands alone as a word or before /models."""
    runs = line.startswith("ExecStart=")
    program = " ".join(_systemd_word(word, runs=True) for word in site.program)
    line = line.replace(f"{SHIPPED_PROGRAM} serve", f"{program} serve")
    if site.root is None:
        return line
    root = SHIPPED_USER_ROOT if site.user else SHIPPED_ROOT
    line = line.replace(f"{root}/models", _systemd_word(f"{site.root}/models", runs=runs))
    return line.replace(f"={root}", f"={_systemd_word(str(site.root), runs=runs)}").replace(
        f" {root}", f" {_systemd_word(str(site.root), runs=runs)}"
    )


def _systemd_word(word: str, *, runs: bool) -> str:
    """Quote *word* for a unit (systemd.syntax(7)): a percent sign begins a specifier, and in a command (*runs*) a dollar a variable."""
    escaped = word.replace("%", "%%")
    if runs:
        escaped = escaped.replace("$", "$$")
    if not any(char in escaped for char in " \t\"'\\;"):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _property_list(site: Site) -> Placement:
    kind = "agent" if site.user else "daemon"
    text = (shipped("launchd") / kind / f"{LABEL}.plist").read_text()
    words = "\n        ".join(f"<string>{html.escape(word, quote=False)}</string>" for word in site.program)
    text = text.replace(f"<string>{SHIPPED_PROGRAM}</string>", words)
    for shipped_root in (f"{SHIPPED_HOME}/janroot", SHIPPED_DAEMON_ROOT):
        text = text.replace(shipped_root, html.escape(str(site.janroot), quote=False))
    text = text.replace(SHIPPED_HOME, html.escape(str(site.home), quote=False))
    return Placement(site.at(_plist_path(site)), text, "<!-- {} -->")


def _plist_path(site: Site) -> Path:
    directory = site.home / "Library" / "LaunchAgents" if site.user else Path("/Library/LaunchDaemons")
    return directory / f"{LABEL}.plist"


def _domain(site: Site) -> str:
    return f"gui/{site.uid}" if site.user else "system"
