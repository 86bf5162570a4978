"""What `jand doctor` looks at: each examination tells what it found and, where that is not well, the command that mends it."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import stat
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jand
from jand.cli.output import size
from jand.cli.places import find_place
from jand.client import Client, Place
from jand.errors import DaemonUnavailableError, JandError
from jand.paths import Janroot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jand.settings import Settings

ENGINE_TIMEOUT_S: Final = 60.0
LITTLE_ROOM: Final = 5_000_000_000
"""Bytes; a common model of seven billion parameters takes about so many in four bits."""

LITTLE_MEMORY: Final = 4_000_000_000
FEW_FILES: Final = 1024
"""Open files below which many clients at once are turned away."""


class Verdict(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    verdict: Verdict
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """Whose installation is looked at: what was given on the command line, and the environment."""

    root: Path | None
    socket: Path | None
    environ: Mapping[str, str]


def examine(patient: Patient) -> Iterator[Finding]:
    """Yield one finding after the other, as they come; what cannot be examined because of an earlier one is left out."""
    yield Finding(
        "python", Verdict.GOOD, f"jand {jand.__version__} on Python {platform.python_version()}, {sys.platform}"
    )
    yield _engine()
    yield _memory()
    yield _open_files()
    settings = None
    try:
        settings = _settings_of(patient)
    except JandError as error:
        yield Finding("settings", Verdict.WRONG, error.message, error.hint)
    else:
        yield Finding("settings", Verdict.GOOD, f"the root is {settings.root}, the socket {settings.socket}")
        yield from _root(Janroot(settings.root))
        yield from _secrets(Janroot(settings.root))
    yield _hub(patient.environ)
    yield _service()
    yield from _daemon(patient, settings)


def _settings_of(patient: Patient) -> Settings:
    from jand.settings import load  # noqa: PLC0415 - pydantic, for which completion and help would wait

    return load({"root": patient.root, "socket": patient.socket}, patient.environ).settings


def _engine() -> Finding:
    """Load llama.cpp in a process of its own, as a worker does."""
    mend = "install it again: pip install --force-reinstall --no-binary :all: --no-deps llama-cpp-python"
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "jand.engine.worker.about"],
            capture_output=True,
            text=True,
            timeout=ENGINE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("engine", Verdict.WRONG, f"cannot load llama.cpp: {error}", mend)
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or [f"it ended with status {ended.returncode}"])[-1]
        return Finding("engine", Verdict.WRONG, f"cannot load llama.cpp: {last}", mend)
    facts: dict[str, Any] = json.loads(ended.stdout)
    where = "on GPU and processor" if facts["gpu"] else "on the processor"
    message = f"llama.cpp loads and runs {where} ({', '.join(facts['features'])})"
    unused = None if facts["gpu"] else _gpu_device()
    if unused is None:
        return Finding("engine", Verdict.GOOD, message)
    device, flags = unused
    return Finding(
        "engine",
        Verdict.WARNING,
        f"{message}, but this machine has a GPU ({device}) that this build cannot use",
        f'build it for the GPU: CMAKE_ARGS="{flags}" pip install --force-reinstall --no-binary :all: --no-deps llama-cpp-python',
    )


def _gpu_device() -> tuple[str, str] | None:
    """Return the device node of a GPU of this machine and the flag that builds llama.cpp for its kind."""
    known = (
        ("/dev/nvidiactl", "-DGGML_CUDA=ON"),
        ("/dev/kfd", "-DGGML_HIP=ON"),
        ("/dev/dri/renderD128", "-DGGML_VULKAN=ON"),
    )
    return next(((device, flag) for device, flag in known if Path(device).exists()), None)


def _memory() -> Finding:
    from jand.download.hardware import measure  # noqa: PLC0415 - as above

    machine = measure()
    gpus = "".join(f", {gpu.name} with {size(gpu.memory)}" for gpu in machine.gpus)
    message = f"{size(machine.memory)} of memory{gpus}, {os.cpu_count()} processors"
    if machine.memory < LITTLE_MEMORY and not machine.gpus:
        return Finding("memory", Verdict.WARNING, message, "only small models fit: jand search 1b, jand catalog")
    return Finding("memory", Verdict.GOOD, message)


def _open_files() -> Finding:
    import resource  # noqa: PLC0415 - as above

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    message = f"a process may open {soft} files"
    if soft < FEW_FILES and soft != resource.RLIM_INFINITY:
        raised = FEW_FILES if hard == resource.RLIM_INFINITY else min(hard, 4 * FEW_FILES)
        return Finding("files", Verdict.WARNING, message, f"raise it before the daemon starts: ulimit -n {raised}")
    return Finding("files", Verdict.GOOD, message)


def _root(root: Janroot) -> Iterator[Finding]:
    models = root.models
    if os.path.lexists(models) and not models.is_dir():
        yield Finding("folder", Verdict.WRONG, f"{models} is no folder", f"put it elsewhere: mv {models} {models}.old")
        return
    if not models.is_dir():
        above = next((place for place in (root.path, *root.path.parents) if place.exists()), Path("/"))
        if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
            yield Finding("folder", Verdict.GOOD, f"{models} is not there yet; jand serve makes it")
        else:
            yield Finding(
                "folder",
                Verdict.WRONG,
                f"cannot make {models}: {above} is {'not writable' if above.is_dir() else 'no directory'}",
                "name another root with --root or JAND_ROOT, or make it: "
                f"sudo mkdir -p {models} && sudo chown -R $USER {root.path}",
            )
        return
    if not os.access(models, os.R_OK | os.X_OK):
        yield Finding("folder", Verdict.WRONG, f"cannot read {models}", f"sudo chown -R $USER {root.path}")
        return
    yield _watching(models)
    if os.access(models, os.W_OK):
        yield _room(models)
    else:
        yield Finding(
            "folder",
            Verdict.WARNING,
            f"{models} cannot be written to: models in it run, but nothing is downloaded or adopted",
            f"sudo chown -R $USER {models}",
        )


def _watching(models: Path) -> Finding:
    from jand.library.filesystems import MountTable  # noqa: PLC0415 - as above

    table = MountTable()
    try:
        table.refresh()
        mount = table.find(os.path.realpath(models))
    finally:
        table.close()
    if not mount.has_events:
        return Finding(
            "folder",
            Verdict.WARNING,
            f"{models} lies on {mount.kind}, which tells of no changes; jand looks every few seconds instead",
            "keep models on a local disk to have them seen at once",
        )
    watches = Path("/proc/sys/fs/inotify/max_user_watches")
    folders = sum(1 for _ in os.scandir(models) if _.is_dir(follow_symlinks=False))
    limit = int(watches.read_text(encoding="ascii")) if watches.exists() else None
    if limit is not None and folders >= limit:
        return Finding(
            "folder",
            Verdict.WARNING,
            f"{models} has {folders} folders, and this user may watch {limit}",
            f"sudo sysctl fs.inotify.max_user_watches={4 * folders}",
        )
    return Finding(
        "folder", Verdict.GOOD, f"{models} is readable and on {mount.kind}, where every change is seen at once"
    )


def _room(models: Path) -> Finding:
    status = os.statvfs(models)
    free = status.f_bavail * status.f_frsize
    if free < LITTLE_ROOM:
        return Finding(
            "disk",
            Verdict.WARNING,
            f"{size(free)} are free",
            "make room: jand list shows sizes, jand delete ID removes",
        )
    return Finding("disk", Verdict.GOOD, f"{size(free)} are free")


def _secrets(root: Janroot) -> Iterator[Finding]:
    if not root.secrets.is_dir():
        return
    for path in sorted(root.secrets.iterdir()):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield Finding(
                "secrets", Verdict.WRONG, f"others can read {path}, so jand does not use it", f"chmod 600 {path}"
            )


def _service() -> Finding:
    """Look for the files of the service, the machine's and one's own."""
    from jand.cli.service import site_of  # noqa: PLC0415 - as above
    from jand.service import install  # noqa: PLC0415 - as above

    edges = {install.Found.MISSING.value, install.Found.DIFFERENT.value}
    for user, whose, flag in ((False, "the machine's", ""), (True, "your own", " --user")):
        found = {did.what for did in install.status(site_of(user=user, root=None, into=None))}
        if install.Found.MISSING.value in found:
            continue
        if found & edges:
            hint = f"bring them up to date: jand service install{flag}"
            return Finding(
                "service", Verdict.WARNING, f"the files of {whose} service are of another version or place", hint
            )
        return Finding("service", Verdict.GOOD, f"{whose} service is in place")
    hint = "to have it start with the machine: sudo jand service install, or for you alone: jand service install --user"
    return Finding("service", Verdict.GOOD, "it is not installed as a service", hint)


def _hub(environ: Mapping[str, str]) -> Finding:
    from jand.download.settings import settings_from  # noqa: PLC0415 - as above

    found = settings_from(environ, urllib.request.getproxies(), Path.home())
    if found.offline:
        return Finding("hub", Verdict.WARNING, "nothing is downloaded: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    token = "with a token" if found.token else "without a token (gated models want one: HF_TOKEN)"
    return Finding("hub", Verdict.GOOD, f"downloads come from {found.endpoint}, {token}")


def _daemon(patient: Patient, settings: Settings | None) -> Iterator[Finding]:
    from jand.service.lock import find_owner  # noqa: PLC0415 - as above

    try:
        place = find_place(patient.socket)
    except DaemonUnavailableError as error:
        pid = find_owner(Janroot(settings.root).own) if settings is not None else ""
        if pid and settings is not None:
            message = f"one runs (pid {pid}) and serves {settings.root}, but {error.message.partition(': ')[2]}"
            hint = "name its socket with --socket; one that was removed is made again within seconds, or by: systemctl restart jand.socket"
            yield Finding("daemon", Verdict.WRONG, message, hint)
            return
        yield Finding("daemon", Verdict.WARNING, f"none runs: {error.message}", error.hint)
        return
    try:
        version, health, problems = asyncio.run(_ask(place))
    except JandError as error:
        yield Finding("daemon", Verdict.WRONG, error.message, error.hint or "see its log")
        return
    if version["version"] == jand.__version__:
        yield Finding("daemon", Verdict.GOOD, f"it answers on {place}")
    else:
        yield Finding(
            "daemon",
            Verdict.WARNING,
            f"it answers on {place}, and is version {version['version']} while this is {jand.__version__}",
            "restart it",
        )
    modes = health.get("details", {}).get("watch", {})
    for tree, mode in modes.items():
        if mode in {"degraded", "offline"}:
            yield Finding("watch", Verdict.WARNING, f"{tree} is {mode}", "jand problems says why and what mends it")
    wrong = sum(problem.get("severity") == "error" for problem in problems)
    if wrong:
        yield Finding(
            "models",
            Verdict.WARNING,
            f"{wrong} problems in the models folder",
            "jand problems lists them with what mends each",
        )


async def _ask(place: Place) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    async with Client(place) as client:
        return await client.version(), await client.health(), await client.problems()
