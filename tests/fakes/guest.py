"""A machine with systemd as its init, of this one's own files: boots in a second, runs a probe, and is gone; nothing that it does stays.

An overlay over the root directory in a mount namespace of its own, with jand installed in /opt/jand as an administrator would have it, started by systemd-nspawn without a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).parents[2]
BOOT_TIMEOUT_S: Final = 240

MASKED: Final = (
    *("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service", "systemd-logind.service"),
    *("console-getty.service", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer"),
)

PROBE_UNIT: Final = """
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
Environment=PYTHONDONTWRITEBYTECODE=1
ExecStart=/opt/jand/bin/python /out/probe.py
ExecStopPost=/bin/systemctl --no-block exit
TimeoutStartSec=220
"""

PROGRAM: Final = """#!/opt/jand/bin/python
import sys
from jand.cli import main
sys.exit(main())
"""

BOOT: Final = """
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp -a "$2/tree/." "$1/root/"
rm -f "$1/root/etc/machine-id"
: > "$1/root/etc/machine-id"
rm -rf "$1/root/janroot" "$1/root/etc/systemd/system/jand.service" "$1/root/etc/systemd/system/jand.socket" "$1/root/var/log/journal"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network -D "$1/root" -M jand-test \
    --bind="$2/out:/out" --bind-ro="$3:/opt/python" --bind-ro="$4:/opt/site" --bind-ro="$5:/opt/src/jand" \
    --bind-ro="$5/../systemd:/opt/src/systemd" --bind-ro="$5/../launchd:/opt/src/launchd" --bind-ro="$5/../janroot.example:/opt/src/janroot.example" \
    -- /lib/systemd/systemd --system --unit=multi-user.target
"""


def boot(probe: Path, **files: Path) -> dict[str, Any]:
    """Boot, run *probe* (with the standard library and jand's) as root, and return what it wrote to /out/results.json.

    *files* lie in /out under their names. Raises AssertionError with the console's words where it wrote nothing.
    """
    with tempfile.TemporaryDirectory(prefix="jand-guest-") as name:
        scratch = Path(name)
        for part in ("image", "tree", "out"):
            (scratch / part).mkdir()
        _furnish(scratch / "tree")
        shutil.copy(probe, scratch / "out" / "probe.py")
        for to, path in files.items():
            shutil.copy(path, scratch / "out" / to)
        site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
        command = ["unshare", "--mount", "sh", "-c", BOOT, "boot", str(scratch / "image"), str(scratch)]
        console = subprocess.run(
            [*command, sys.base_prefix, str(site), str(SOURCE / "jand")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BOOT_TIMEOUT_S,
            check=False,
        )
        results = scratch / "out" / "results.json"
        assert results.exists(), console.stdout.decode(errors="replace")[-6000:]
        found: dict[str, Any] = json.loads(results.read_text())
        return found


def _furnish(tree: Path) -> None:
    """Write what is to be different from this machine."""
    units = tree / "etc" / "systemd" / "system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    (units / "probe.service").write_text(PROBE_UNIT)
    (units / "multi-user.target.wants" / "probe.service").symlink_to("../probe.service")
    prefix = tree / "opt" / "jand"
    # An interpreter with a shared library looks for it where it was built, which may be a home that the unit hides.
    (tree / "etc" / "systemd" / "system.conf.d").mkdir()
    (tree / "etc" / "systemd" / "system.conf.d" / "python.conf").write_text(
        "[Manager]\nDefaultEnvironment=LD_LIBRARY_PATH=/opt/python/lib\n"
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = prefix / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "jand.pth").write_text("/opt/src\n/opt/site\n")
    (prefix / "bin").mkdir()
    (prefix / "pyvenv.cfg").write_text("home = /opt/python/bin\ninclude-system-site-packages = false\n")
    (prefix / "bin" / "python").symlink_to(f"/opt/python/bin/{version}")
    (prefix / "bin" / "jand").write_text(PROGRAM)
    (prefix / "bin" / "jand").chmod(0o755)
    for name in ("python", "site", "src/jand", "src/systemd", "src/launchd", "src/janroot.example"):
        (tree / "opt" / name).mkdir(parents=True)
