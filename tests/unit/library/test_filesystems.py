"""What the table of mounts says of a path."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jand.library.filesystems import UNKNOWN, Mount, MountTable, counting_device, parse_mountinfo

ROOT = Path(__file__).parents[3]

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /mnt/with\\040blank\\011and\\134more rw - fuse.sshfs host:/dir rw
31 22 0:27 /sub /mnt/nas ro,noatime master:3 - nfs4 nas:/vol rw,vers=4.2
32 22 0:28 / /mnt/usb rw - vfat /dev/sdb1 ro,errors=remount-ro
not a line
33 22 x
34 22 0:29 / /bare rw -
"""


def test_a_table_is_parsed() -> None:
    mounts = parse_mountinfo(TABLE)
    assert set(mounts) == {22, 30, 31, 32}
    assert mounts[22] == Mount(22, "/", "ext4", "8:1")
    assert mounts[30].point == "/mnt/with blank\tand\\more"
    assert mounts[31] == Mount(31, "/mnt/nas", "nfs4", "0:27", read_only=True)
    assert mounts[32].read_only


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "fuse",
        "fuse.sshfs",
        "fuse.rclone",
        "9p",
        "virtiofs",
        "overlay",
        "ceph",
        "macfuse",
    ],
)
def test_file_systems_that_do_not_tell_every_change(kind: str) -> None:
    assert not Mount(1, "/", kind, "").has_events


@pytest.mark.parametrize(
    "kind", ["ext4", "btrfs", "xfs", "zfs", "tmpfs", "apfs", "vfat", "exfat", "fuseblk", "unknown"]
)
def test_file_systems_that_do(kind: str) -> None:
    assert Mount(1, "/", kind, "").has_events


def test_a_path_lies_on_the_mount_nearest_above_it() -> None:
    table = MountTable()
    table.refresh()
    assert table.find("/dev/shm/no/such/thing").point == "/dev/shm"
    assert table.find("/proc/self").kind == "proc"
    assert table.find(__file__) == table.find(str(Path(__file__).parent))
    assert table.find(__file__ + "/below/a/file") == table.find(__file__)
    table.close()


def test_nothing_is_known_before_the_table_is_read() -> None:
    assert MountTable().find("/") == UNKNOWN


def test_a_table_that_did_not_change_keeps_its_edition() -> None:
    table = MountTable()
    table.refresh()
    edition = table.edition
    table.refresh()
    assert edition == table.edition == 1
    table.close()


def test_a_table_that_cannot_be_read_is_as_it_was(tmp_path: Path) -> None:
    table = MountTable(str(tmp_path / "missing"))
    table.refresh()
    assert table.find("/") == UNKNOWN


WITHIN = """
import subprocess, sys
from jand.library.filesystems import MountTable
point = sys.argv[1]
table = MountTable()
table.refresh()
before = table.edition
assert table.find(point + "/x").kind != "tmpfs"
assert table.points_below(point) == ()
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", point], check=True)
table.refresh()
assert table.edition == before + 1
assert (table.find(point + "/x").kind, table.find(point).point, table.find(point).read_only) == ("tmpfs", point, True)
assert table.points_below(point.rpartition("/")[0]) == (point,)
subprocess.run(["umount", point], check=True)
table.refresh()
assert table.edition == before + 2
assert table.find(point).kind != "tmpfs"
"""


@pytest.mark.needs("unshare", "mount")
def test_mounting_and_unmounting_is_noticed_and_a_mount_hides_what_is_below(tmp_path: Path) -> None:
    point = tmp_path / "with blank"
    point.mkdir()
    subprocess.run(["unshare", "-m", sys.executable, "-c", WITHIN, point], check=True, cwd=ROOT)


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_device_counts_folders_only_where_a_folder_without_folders_has_two_links(tmp_path: Path, where: str) -> None:
    """Held to what the file system here does, whichever it is."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if where == "memory" else tmp_path) as made:
        folder = Path(made)
        device = counting_device(made)
        assert device in {None, folder.stat().st_dev}
        if device is not None:
            for number in range(3):
                assert folder.stat().st_nlink == 2 + number
                (folder / str(number)).mkdir()
            (folder / "file").write_text("x")
            (folder / "link").symlink_to(folder / "0")
            assert folder.stat().st_nlink == 5
            (folder / "1").rmdir()
            assert folder.stat().st_nlink == 4


def test_no_device_counts_folders_where_nothing_is_known_of_it(tmp_path: Path) -> None:
    assert counting_device(f"{tmp_path}/not/there") is None
    if sys.platform == "linux":
        assert counting_device("/proc/self") is None
        assert counting_device("/dev/shm") == Path("/dev/shm").stat().st_dev
