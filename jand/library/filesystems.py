"""What file system a path lies on, and whether it tells of every change.

Where other machines, or other ways to the same bytes, can change files without the kernel here being told (inotify(7); watchdog #409, #504), events are only an extra and the files have to be
looked at. Linux's own table of mounts says it; elsewhere psutil does.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

MOUNTINFO: Final = "/proc/self/mountinfo"
REREAD_S: Final = 10.0
"""How often the table is read anew where the kernel does not say that it changed."""

SILENT_KINDS: Final = frozenset(
    {
        "9p", "afpfs", "afs", "aufs", "autofs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "fuse", "glusterfs", "gpfs", "lustre", "macfuse", "ncpfs", "nfs", "nfs4",
        "ocfs2", "orangefs", "osxfuse", "overlay", "prl_fs", "smb3", "smbfs", "unionfs", "vboxsf", "virtiofs", "vmhgfs", "webdav",
    }
)  # fmt: skip
"""File systems on which changes happen that give no event here. `fuseblk` is a local disk (NTFS) and not among them."""


COUNTING_KINDS: Final = frozenset({"ext2", "ext3", "ext4", "f2fs", "tmpfs", "xfs"})
"""File systems that count each folder within a folder among its links, always (find(1) relies on the same); ext4 says 1 where there are too many to count."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system. *id* is the kernel's, new at each mount; *device* tells file systems apart."""

    id: int
    point: str
    kind: str
    device: str
    read_only: bool = False

    @property
    def has_events(self) -> bool:
        """Whether every change is told to a watch."""
        return self.kind not in SILENT_KINDS and not self.kind.startswith("fuse.")


UNKNOWN: Final = Mount(id=-1, point="/", kind="unknown", device="")


def parse_mountinfo(text: str) -> dict[int, Mount]:
    """Return the mounts by their id; a line that is not understood is left out."""
    mounts: dict[int, Mount] = {}
    for line in text.splitlines():
        head, found, tail = line.partition(" - ")
        fields, kinds = head.split(" "), tail.split(" ")
        if not found or len(fields) < 6 or not kinds[0]:
            continue
        with contextlib.suppress(ValueError):
            number = int(fields[0])
            options = {*fields[5].split(","), *(kinds[2].split(",") if len(kinds) > 2 else ())}
            mounts[number] = Mount(number, _unescape(fields[4]), kinds[0], fields[2], read_only="ro" in options)
    return mounts


class MountTable:
    """The mounts as they are now, for all threads. `find` touches the disk and hangs with a dead network file system: call it in a thread of `Threads`."""

    def __init__(self, source: str = MOUNTINFO) -> None:
        self.edition = 0
        self._source = source if sys.platform == "linux" else ""
        self._mounts: dict[int, Mount] = {}
        self._stream: int | None = None
        self._poll: select.poll | None = None
        self._read_at = float("-inf")
        self._below: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Read the table if it may have changed; *edition* grows with each change."""
        with self._lock:
            if self._may_have_changed():
                before, self._mounts = self._mounts, self._read()
                self._read_at = time.monotonic()
                self.edition += self._mounts != before

    def find(self, path: str) -> Mount:
        """Return the mount on which *path*, or the nearest directory above it that exists, lies."""
        if self._source:
            return self._mounts.get(_mount_id(path), UNKNOWN)
        inside = [
            mount
            for mount in self._mounts.values()
            if path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        ]
        return max(inside, key=lambda mount: len(mount.point), default=UNKNOWN)

    def points_below(self, path: str) -> tuple[str, ...]:
        """Return the mount points below *path*, which is a real one."""
        known = self._below.get(path)
        if known is None or known[0] != self.edition:
            points = tuple(
                mount.point for mount in self._mounts.values() if mount.point.startswith(path.rstrip("/") + "/")
            )
            known = self._below[path] = (self.edition, points)
        return known[1]

    def close(self) -> None:
        if self._stream is not None:
            os.close(self._stream)
            self._stream, self._poll = None, None

    def _may_have_changed(self) -> bool:
        if self._poll is None:
            if time.monotonic() - self._read_at < REREAD_S:
                return False
            self._listen()
            return True
        # The kernel reports a changed table as an exceptional condition of the open file, once (proc_pid_mountinfo(5)).
        return bool(self._poll.poll(0))

    def _listen(self) -> None:
        if self._source == MOUNTINFO:
            with contextlib.suppress(OSError):
                self._stream = os.open(self._source, os.O_RDONLY | os.O_CLOEXEC)
                self._poll = select.poll()
                self._poll.register(self._stream, select.POLLPRI)

    def _read(self) -> dict[int, Mount]:
        if not self._source:
            partitions = psutil.disk_partitions(all=True)
            return {
                number: Mount(number, part.mountpoint, part.fstype, part.device, read_only="ro" in part.opts.split(","))
                for number, part in enumerate(partitions)
            }
        try:
            return parse_mountinfo(os.fsdecode(Path(self._source).read_bytes()))
        except OSError:
            return self._mounts


def counting_device(path: str) -> int | None:
    """Return the device of the directory *path* where its file system is one of `COUNTING_KINDS`, else None. Blocks."""
    table = MountTable()
    try:
        table.refresh()
        return os.stat(path).st_dev if table.find(path).kind in COUNTING_KINDS else None  # noqa: PTH116 - as below
    except OSError:
        return None
    finally:
        table.close()


def _mount_id(path: str) -> int:
    """Return the id of the mount that *path* resolves to; a mount over another hides it, which no comparison of names would see."""
    descriptor = _open_nearest(path)
    if descriptor is None:
        return UNKNOWN.id
    try:
        notes = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    except OSError:
        return UNKNOWN.id
    finally:
        os.close(descriptor)
    return next((int(line.split()[1]) for line in notes.splitlines() if line.startswith("mnt_id:")), UNKNOWN.id)


def _open_nearest(path: str) -> int | None:
    while True:
        try:
            return os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            above = os.path.dirname(path)  # noqa: PTH120 - paths are text here: names may hold bytes that are no UTF-8
            if above == path:
                return None
            path = above
        except OSError:
            return None


def _unescape(field: str) -> str:
    """Undo the octal escapes of blank, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field
