"""Lack of memory and of descriptors, which comes as many kinds of errors: told from faults of ours and of files, and said in one sentence that names the limit where there is one."""

from __future__ import annotations

import errno
import resource
from typing import Final

MB: Final = 1 << 20
MEMORY_HINT: Final = "raise the limit of address space (ulimit -v, LimitAS=), or give the machine more memory"


OF_OUR_OWN: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def is_our_own_lack(error: BaseException | None) -> bool:
    """Whether *error* says that this process or machine has no descriptor or memory left, and so nothing of the file that it came from."""
    return isinstance(error, OSError) and error.errno in OF_OUR_OWN


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether *error*, or one of the errors of a group, says that memory was refused."""
    match error:
        case BaseExceptionGroup():
            return any(is_out_of_memory(each) for each in error.exceptions)
        case OSError():
            return error.errno == errno.ENOMEM
        case RuntimeError():
            # What threading says for EAGAIN of pthread_create(3), which is how it is told of too little memory for a stack.
            return "can't start new thread" in str(error)
        case _:
            return isinstance(error, MemoryError)


def limit_of_address_space() -> int | None:
    """Return the bytes of address space that this process may have; None where nothing limits it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def lack_of_memory() -> str:
    """Say that memory was refused, and what limits it."""
    limit = limit_of_address_space()
    return (
        "no memory is left" if limit is None else f"no memory is left: its address space is limited to {limit // MB} MB"
    )


def or_raise_the_limit() -> str:
    """Return what a hint about too large a model ends with: llama.cpp says only that an allocation failed, not that a limit of address space did it. Empty where there is none."""
    limit = limit_of_address_space()
    return "" if limit is None else f", or raise the limit of address space of {limit // MB} MB (ulimit -v, LimitAS=)"
