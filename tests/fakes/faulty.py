"""What stands between a daemon and its system (`faulty_system.c`), compiled; a test says by files what it does."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("faulty_system.c")


def compile_library(directory: Path) -> Path:
    """Return the library that a process loads by `LD_PRELOAD`, made in *directory*."""
    built = directory / "faulty_system.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, SOURCE], check=True, timeout=30)
    return built


def variables(library: Path, faults: Path) -> dict[str, str]:
    """Return the environment of a process that loads *library* and does what the files in *faults* say."""
    return {"LD_PRELOAD": str(library), "FAULTS": str(faults)}
