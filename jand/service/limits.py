"""The limits that a daemon is started with: too little address space is said at the start, not by whatever thread or worker cannot begin later."""

from __future__ import annotations

from typing import Final

import structlog

from jand.errors import SettingsError
from jand.errors.scarcity import MB, limit_of_address_space

log = structlog.get_logger(__name__)

LEAST_ADDRESS_SPACE: Final = 512 * MB
"""Measured on x86-64 with glibc: an idle daemon maps 130 to 390 MB, most of it stacks of threads and malloc's arenas, and below 300 MB some thread is refused."""


def check_address_space() -> None:
    """Raise SettingsError where the limit of address space (RLIMIT_AS) is too low to serve; log one that workers will meet."""
    limit = limit_of_address_space()
    if limit is None:
        return
    if limit < LEAST_ADDRESS_SPACE:
        raise SettingsError(
            f"cannot serve: its address space is limited to {limit // MB} MB, and a daemon needs {LEAST_ADDRESS_SPACE // MB} MB",
            hint="raise the limit (ulimit -v, LimitAS=), or use MemoryMax= in a unit, which counts memory and not addresses",
        )
    log.warning("address space is limited", megabytes=limit // MB, hint="models that need more cannot start")
