"""Asks ggml itself, in a process of its own, which files it takes for GGUFs: `python -m tests.fakes.ggml_peer FILE...` prints `yes` or `no` for each.

ggml's reader has had bugs that end its process, so the answers are printed as they come, and none may stand for "it died of this one".
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Parameters(ctypes.Structure):
    """`gguf_init_params` of gguf.h: read the header alone."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p))


def accepted(files: Sequence[Path], *, timeout_s: float = 60) -> list[bool]:
    """Ask about *files* in a child; the result is shorter than they are if it died."""
    command = [sys.executable, "-m", "tests.fakes.ggml_peer", *map(str, files)]
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout_s, check=False)
    return [line == b"yes" for line in child.stdout.splitlines()]


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "lib"
    return ctypes.CDLL(str(next(folder.glob("libggml-base.[sd][oy]*"))))


def _main(names: Sequence[str]) -> None:
    ggml = _library()
    ggml.gguf_init_from_file.restype = ctypes.c_void_p
    ggml.gguf_init_from_file.argtypes = (ctypes.c_char_p, _Parameters)
    ggml.gguf_free.argtypes = (ctypes.c_void_p,)
    for name in names:
        found = ggml.gguf_init_from_file(name.encode(), _Parameters(True, None))
        print("yes" if found else "no", flush=True)  # noqa: T201 - this is its answer
        if found:
            ggml.gguf_free(found)


if __name__ == "__main__":
    _main(sys.argv[1:])
