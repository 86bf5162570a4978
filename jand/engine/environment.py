"""The environment that a worker is given: an allow-list, so that keys and tokens of the daemon's environment never reach a process that parses foreign files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = frozenset(
    {
        *(
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "TMPDIR",
            "TZ",
            "LANG",
            "LANGUAGE",
            "SYSTEMROOT",
            "XDG_CACHE_HOME",
        ),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS"),
    }
)
_PREFIXES: Final = (
    "LC_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "GGML_",
    "GLIBC_",
    "LLAMA_CPP_LIB",
    "CUDA_",
    "NVIDIA_",
    "HIP_",
    "ROCR_",
    "HSA_",
    "VK_",
    "ZE_",
    "SYCL_",
    "MTL_",
)

SPIN_COUNT: Final = "20000"
"""How often a compute thread looks for work before it sleeps; see `worker_environment`."""

HUGE_PAGES: Final = "glibc.malloc.hugetlb=1"
"""Lets malloc of glibc 2.35 and later ask for large pages (madvise(2), MADV_HUGEPAGE). The memory of conversations spans hundreds of megabytes, and each step reads all over it:
with 4 and 8 answers at once a step takes about 5 % less. Others know nothing of it and are as they were."""


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Choose from *environ* what a worker needs and add what keeps it well-behaved.

    llama.cpp's threads wait for one another many times per token. OpenMP's default lets them spin, which is fastest on idle cores and starves everybody on
    busy ones; `OMP_WAIT_POLICY=passive` is the reverse. A bounded spin is near the better of the two in both cases. A policy that the user set stands.
    """
    chosen = {name: value for name, value in environ.items() if name in _NAMES or name.startswith(_PREFIXES)}
    chosen["GGML_NO_BACKTRACE"] = (
        "1"  # on an assertion ggml would fork a debugger, which is slow and may outlive the worker
    )
    tunables = environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        chosen["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, HUGE_PAGES]))
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & chosen.keys():
        chosen["GOMP_SPINCOUNT"] = SPIN_COUNT
    return chosen
