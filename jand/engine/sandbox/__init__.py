"""What a process gives up before it looks at a foreign file: the network, all writing, reading beyond what it needs, other programs, and more than its share.

A GGUF is read by C++ that has had overflows (CVE-2025-53630, CVE-2026-27940), and what breaks out there shall find itself in an empty room. Each part is taken
from what the system has: Landlock, seccomp, `no_new_privs` and resource limits on Linux, resource limits alone elsewhere. `confine` says which are in force, and nothing can be given back.
"""

from __future__ import annotations

import glob
import os
import sys
from typing import TYPE_CHECKING, Final

from jand.engine.sandbox import landlock, limits, privileges, seccomp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PARTS: Final = ("files", "network", "programs", "privileges", "limits")
"""Files: writing nowhere, reading what is listed. Network: no address, no foreign socket. Programs: no other process, no signal. Privileges: none by setuid, and none of root's but reading."""

OFF: Final = "off"
MISSING: Final = "not available"

SYSTEM: Final = (
    *("/usr", "/lib", "/lib32", "/lib64", "/opt", "/nix/store", "/gnu/store", "/run/opengl-driver", "/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/mime.types", "/etc/passwd", "/etc/group"),
    *("/etc/nsswitch.conf", "/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
    *("/etc/OpenCL", "/etc/vulkan", "/etc/nvidia", "/etc/amd", "/etc/alternatives"),
)
"""What libraries, the driver of a GPU and the interpreter read; of /etc only what is nobody's secret."""

GPU_NODES: Final = ("nvidia*", "dri", "kfd", "dxg", "accel", "mali*", "nvhost*", "nvmap", "nvgpu", "nvsciipc")
"""Device nodes in /dev that engines compute on: NVIDIA, DRM, AMD, WSL, accelerators, Mali, Tegra."""

PLAIN_NODES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

PATH_VARIABLES: Final = ("LD_LIBRARY_PATH", "GGML_BACKEND_PATH", "LLAMA_CPP_LIB_PATH", "PYTHONPYCACHEPREFIX")


def confine(files: Iterable[str], environ: Mapping[str, str], *, makes_processes: bool = False) -> dict[str, str]:
    """Give up, for this process and for ever, all but reading *files* (or what is below them), the system's libraries and the interpreter's own, and the nodes of GPUs.

    To be called while there is a single thread, after everything is open that is to stay so. *makes_processes*: it may fork, and kill its like. Returns by the names of `PARTS` what does it now, or `MISSING`.
    """
    gpus = gpu_nodes()
    limits.apply(computes_elsewhere=bool(gpus) or sys.platform == "darwin")
    dropped = privileges.drop()
    restricted = landlock.restrict(
        readable=[*SYSTEM, *interpreter_paths(environ), *files], usable=[*PLAIN_NODES, *gpus], listed=["/dev"]
    )
    filtered = seccomp.apply(makes_processes=makes_processes)
    return describe(restricted, filtered, dropped=dropped)


def available() -> dict[str, str]:
    """Return what `confine` would put in force here; changes nothing."""
    return describe(landlock.find_version(), seccomp.is_available(), dropped=sys.platform == "linux")


def switched_off() -> dict[str, str]:
    return dict.fromkeys(PARTS, OFF)


def describe(landlock_version: int, filtered: bool, *, dropped: bool) -> dict[str, str]:
    """Name what does each part."""
    fences = [f"landlock {landlock_version}"] if landlock_version else []
    filters = ["seccomp"] if filtered else []
    # The fourth version of Landlock is the first that knows TCP; other sockets are seccomp's alone.
    network = [*(fences if landlock_version >= landlock.KNOWS_TCP else []), *filters]
    return {
        "files": ", ".join(fences) or MISSING,
        "network": ", ".join(network) or MISSING,
        "programs": ", ".join([*fences, *filters]) or MISSING,
        "privileges": "no_new_privs, capabilities" if dropped else MISSING,
        "limits": "rlimits",
    }


def gpu_nodes() -> list[str]:
    return sorted(found for pattern in GPU_NODES for found in glob.glob(f"/dev/{pattern}"))  # noqa: PTH207 - pathlib costs a start more


def interpreter_paths(environ: Mapping[str, str]) -> list[str]:
    """Return where the interpreter, its packages and what *environ* adds to them lie."""
    added = [part for name in PATH_VARIABLES for part in environ.get(name, "").split(os.pathsep)]
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path, *added]
    return [path for path in dict.fromkeys(found) if path.startswith("/")]
