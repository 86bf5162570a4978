"""What is learned about this machine and this build of llama.cpp, and under which key it is remembered."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Protocol


class MachineNotes(Protocol):
    """Small facts that outlive the daemon; losing them costs one failed start."""

    def get(self, key: str) -> object: ...

    def set(self, key: str, value: object) -> None: ...


def protection_key() -> str:
    """Name the pair of build and processor that a crash in the warm-up belongs to; reads a few small files.

    The library is looked at as a file, never imported: nothing of llama.cpp runs in the daemon.
    """
    return f"no-extra-bufts {_build()} {_processor()}"


def _build() -> str:
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        version = "?"
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return version
    libraries = sorted((Path(spec.origin).parent / "lib").glob("*ggml-cpu*"))
    stamps = [found.stat() for found in libraries[:1]]
    return "-".join([version, *(f"{stamp.st_size}-{int(stamp.st_mtime)}" for stamp in stamps)])


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
