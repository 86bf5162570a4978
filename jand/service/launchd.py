"""The sockets that launchd has bound for a job with the key `Sockets`, by `launch_activate_socket` (launch.h)."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

SOCKETS_NAME: Final = "Listeners"
"""The name that our property lists give them."""


def activated_descriptors(name: str = SOCKETS_NAME, library: str | None = None) -> tuple[int, ...]:
    """Return the descriptors of the sockets called *name* in the job's property list; none where launchd did not start us. May be called once.

    *library* is where the function is looked for: by default what macOS loads into every process, and nowhere on other systems.
    """
    if library is None and sys.platform != "darwin":
        return ()
    try:
        found = ctypes.CDLL(library)
        activate = found.launch_activate_socket
    except (OSError, AttributeError):  # macOS before 10.10
        return ()
    activate.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.POINTER(ctypes.c_int)), ctypes.POINTER(ctypes.c_size_t)]
    activate.restype = ctypes.c_int
    found.free.argtypes = [ctypes.c_void_p]
    descriptors = ctypes.POINTER(ctypes.c_int)()
    count = ctypes.c_size_t()
    # ESRCH: launchd does not manage this process; ENOENT: its job has no sockets of that name; EALREADY: they were asked for before.
    if activate(name.encode(), ctypes.byref(descriptors), ctypes.byref(count)) != 0:
        return ()
    try:
        return tuple(descriptors[number] for number in range(count.value))
    finally:
        found.free(descriptors)
