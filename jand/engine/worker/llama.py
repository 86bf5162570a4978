"""The door to llama.cpp: the ctypes functions of llama-cpp-python and nothing of its Python classes.

The package's own `__init__` imports its high-level classes with jinja2, diskcache and more, which costs a worker more than loading a small model; an empty
package object in its place lets the one module with the functions be imported alone. Everything else here imports `lib` from this module.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import types
from typing import Any, Final

from jand.engine.protocol import LOG_MARKS

_CONTINUED: Final = 5
_DEBUG: Final = 1
_MARKS: Final = {3: LOG_MARKS["warning"].encode(), 4: LOG_MARKS["error"].encode()}


def _functions() -> Any:
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("llama-cpp-python is not installed")
        package = types.ModuleType("llama_cpp")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


lib: Final = _functions()

_wanted = False


def _write_log(level: int, text: bytes, _: object) -> None:
    """Copy llama.cpp's lines to stderr but for debugging ones; a continued line goes where its beginning went. May be called from any thread."""
    global _wanted  # noqa: PLW0603 - llama.cpp has one log per process
    if level != _CONTINUED:
        _wanted = level != _DEBUG
    if _wanted:
        os.write(2, _MARKS.get(level, b"") + text)


_log_callback: Final = lib.llama_log_callback(_write_log)  # kept: C holds only the address


def prepare() -> None:
    """Set up llama.cpp; once in a process."""
    lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
    lib.llama_backend_init()


def mtmd() -> Any:
    """Return the functions of llama.cpp's library for images and sound, imported when a model with a projector needs them; its log goes where ours goes."""
    functions = importlib.import_module("llama_cpp.mtmd_cpp")
    functions.mtmd_helper_log_set(_log_callback, ctypes.c_void_p(0))
    return functions
