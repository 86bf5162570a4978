"""The system calls that a confined process has no use for, refused by a filter in the kernel (seccomp(2)): sockets to anywhere, other programs, other processes, ownership and modes, the kernel's rarer doors.

What Landlock leaves open is closed here: UDP, sockets of other programs, a program in memory, chmod and setxattr. The bindings of libseccomp are no help: pyseccomp is of 2021
and needs a library that is not everywhere. So the filter is written out: for each call its number, two instructions. It refuses with an error and never kills: a library that tries
something and does without it goes on. x86-64 and ARM64; elsewhere there is none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PR_GET_SECCOMP: Final = 21
PR_SET_SECCOMP: Final = 22
MODE_FILTER: Final = 2

# linux/bpf_common.h and linux/seccomp.h
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
FAIL: Final = 0x00050000
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16

SOCKET_TYPES: Final = 0xF
"""The bits of socket(2)'s type that are no flags."""
CLONE_THREAD: Final = 0x00010000
X32: Final = 0x40000000
"""Set in the numbers of the x32 calls, which would be a way around the filter of x86-64."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """*audit* is its number in linux/audit.h; *refused* are the calls that it numbers in its own way."""

    audit: int
    refused: Mapping[str, int]
    socket: int
    socketpair: int
    clone: int
    tgkill: int
    prlimit: int


# fmt: off
X86_64: Final = Architecture(
    audit=0xC000003E, socket=41, socketpair=53, clone=56, tgkill=234, prlimit=302,
    refused={
        "connect": 42, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "ptrace": 101,
        "syslog": 103, "rt_sigqueueinfo": 129, "utime": 132, "pivot_root": 155, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
        "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
        "tkill": 200, "clock_settime": 227, "utimes": 235, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "fchownat": 260,
        "futimesat": 261, "fchmodat": 268, "unshare": 272, "utimensat": 280, "rt_tgsigqueueinfo": 297, "perf_event_open": 298, "open_by_handle_at": 304,
        "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313, "kexec_file_load": 320, "bpf": 321,
        "execveat": 322, "userfaultfd": 323,
    },
)
ARM64: Final = Architecture(
    audit=0xC00000B7, socket=198, socketpair=199, clone=220, tgkill=131, prlimit=261,
    refused={
        "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16, "umount2": 39, "mount": 40, "pivot_root": 41,
        "chroot": 51, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "quotactl": 60, "utimensat": 88, "acct": 89, "unshare": 97, "kexec_load": 104,
        "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138,
        "reboot": 142, "sethostname": 161, "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "connect": 203, "add_key": 217, "request_key": 218,
        "keyctl": 219, "execve": 221, "swapon": 224, "swapoff": 225, "rt_tgsigqueueinfo": 240, "perf_event_open": 241, "open_by_handle_at": 265,
        "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271, "finit_module": 273, "bpf": 280, "execveat": 281,
        "userfaultfd": 282, "kexec_file_load": 294,
    },
)
EVERYWHERE: Final = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466,
}
"""Calls that came late and have one number on all architectures."""
# fmt: on
CLONE3: Final = 435
"""Its flags lie in memory, where no filter looks; C libraries take clone instead where it is not known."""

ARCHITECTURES: Final = {"x86_64": X86_64, "aarch64": ARM64, "arm64": ARM64}

REFUSAL: Final = errno.EACCES


class Instruction(ctypes.Structure):
    """`struct sock_filter`."""

    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction)))


def is_available() -> bool:
    """Whether `apply` would do something here."""
    if sys.platform != "linux" or os.uname().machine not in ARCHITECTURES:
        return False
    return bool(ctypes.CDLL(None).prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0)


def apply(*, makes_processes: bool = False) -> bool:
    """Put the filter over this thread and those it will make; return whether it is in force. *makes_processes*: it may fork, and kill its like.

    The thread must have given up new privileges (`privileges.drop`).
    """
    if not is_available():
        return False
    lines = write_filter(ARCHITECTURES[os.uname().machine], os.getpid(), makes_processes=makes_processes)
    code = [Instruction(*line) for line in lines]
    program = Program(len(code), (Instruction * len(code))(*code))
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), ctypes.byref(program), 0, 0) == 0)


Line = tuple[int, int, int, int]
"""Code, instructions to skip if so, and if not, value."""


def write_filter(architecture: Architecture, pid: int, *, makes_processes: bool = False) -> Iterator[Line]:
    """Yield the filter of the process *pid*."""
    refuse = (RETURN, 0, 0, FAIL | REFUSAL)
    yield (LOAD, 0, 0, ARCHITECTURE_AT)
    yield (EQUAL, 1, 0, architecture.audit)
    yield (RETURN, 0, 0, KILL)
    yield (LOAD, 0, 0, NUMBER_AT)
    yield (AT_LEAST, 0, 1, X32)
    yield (RETURN, 0, 0, FAIL | errno.ENOSYS)
    yield (EQUAL, 0, 1, CLONE3)
    yield (RETURN, 0, 0, FAIL | errno.ENOSYS)
    refused = {*architecture.refused.values(), *EVERYWHERE.values()}
    if makes_processes:
        refused.remove(architecture.refused["kill"])
    for number in sorted(refused):
        yield (EQUAL, 0, 1, number)
        yield refuse
    for number in (architecture.socket, architecture.socketpair):
        yield from only_local(number)
    if not makes_processes:
        yield from only_if(architecture.clone, 0, ANY_BIT, CLONE_THREAD)
    yield from only_if(architecture.tgkill, 0, EQUAL, pid)  # what raise(3) and abort(3) send to oneself
    yield from only_if(architecture.prlimit, 0, EQUAL, 0)
    yield (RETURN, 0, 0, ALLOW)


def only_local(number: int) -> Iterator[Line]:
    """Refuse the call *number*, socket or socketpair, but for connected Unix sockets; one for datagrams could write to any other."""
    yield (EQUAL, 0, 8, number)
    yield (LOAD, 0, 0, ARGUMENTS_AT)
    yield (EQUAL, 0, 4, int(socket.AF_UNIX))
    yield (LOAD, 0, 0, ARGUMENTS_AT + 8)
    yield (AND, 0, 0, SOCKET_TYPES)
    yield (EQUAL, 2, 0, int(socket.SOCK_STREAM))
    yield (EQUAL, 1, 0, int(socket.SOCK_SEQPACKET))
    yield (RETURN, 0, 0, FAIL | REFUSAL)
    yield (RETURN, 0, 0, ALLOW)


def only_if(number: int, argument: int, test: int, value: int) -> Iterator[Line]:
    """Allow the call *number* where the lower half of its *argument* passes *test* with *value*, and refuse it elsewhere."""
    yield (EQUAL, 0, 4, number)
    yield (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument)
    yield (test, 1, 0, value)
    yield (RETURN, 0, 0, FAIL | REFUSAL)
    yield (RETURN, 0, 0, ALLOW)
