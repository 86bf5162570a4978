"""`jand serve --detach`: the daemon in the background on a machine without a service manager. The only module that imports python-daemon.

What that library leaves open is settled here: the terminal's process waits until the daemon serves and reports what kept it from that; every descriptor but ours is closed; the umask lets
nobody else write; and under systemd or launchd nothing is detached, because they lose sight of what forks away (launchd.plist(5) forbids it).

It happens before anything that a fork would break exists: no event loop, no thread, no watcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import daemon

from jand.errors import JandError, SettingsError
from jand.service.logfile import find_log, open_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jand.log import LogFile
    from jand.settings import Settings

NOT_WRITABLE_BY_OTHERS: Final = 0o022
MAX_MESSAGE: Final = 1 << 20
SOFTWARE: Final = 70
INTERRUPTED: Final = 130
ENDED: Final = "cannot start the daemon: it ended before it was ready"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the daemon told the process that waits at the terminal: *facts* once it is ready, else *message* and *hint*; *status* is the exit status."""

    status: int
    facts: Mapping[str, Any]
    message: str = ""
    hint: str = ""


class Report:
    """The daemon's end of the pipe to the process that waits; closed as soon as the outcome was told. Satisfies `notify.Listener`."""

    def __init__(self, descriptor: int, **facts: object) -> None:
        self._descriptor: int | None = descriptor
        self._facts = facts

    def began(self) -> None:
        """Pass on the pid, for whoever at the terminal loses patience."""
        if self._descriptor is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._descriptor, b"%d\n" % os.getpid())

    def send(self, *fields: str) -> None:
        """Pass on READY; nobody waits for what comes after it."""
        if "READY=1" in fields:
            self._tell({"status": 0, "facts": {"pid": os.getpid(), **self._facts}})

    def failed(self, message: str, hint: str, status: int) -> bool:
        """Pass on why the daemon does not start; return whether somebody still waited for that."""
        return self._tell({"status": status, "facts": self._facts, "message": message, "hint": hint})

    def _tell(self, outcome: Mapping[str, object]) -> bool:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return False
        with open(descriptor, "wb", buffering=0) as pipe, contextlib.suppress(BrokenPipeError):  # noqa: PTH123 - a descriptor
            pipe.write(json.dumps(outcome).encode() + b"\n")
        return True


def check_allowed(environ: Mapping[str, str], *, pid: int, parent: int, platform: str = sys.platform) -> None:
    """Raise SettingsError where a service manager has started the process *pid* itself.

    `INVOCATION_ID` alone says nothing: a terminal that systemd started hands it to its shells.
    """
    by_systemd = environ.get("SYSTEMD_EXEC_PID") == str(pid) or environ.get("LISTEN_PID") == str(pid)
    if by_systemd or environ.get("NOTIFY_SOCKET"):
        manager = "systemd"
    elif platform == "darwin" and parent == 1 and environ.get("XPC_SERVICE_NAME", "0") != "0":
        manager = "launchd"
    else:
        return
    raise SettingsError(
        f"cannot detach: {manager} started this process and would lose sight of it",
        hint="leave out --detach; jand service install writes a service that fits",
        param="detach",
    )


def run_detached(
    work: Callable[[Report, LogFile], int],
    settings: Settings,
    *,
    explain: Callable[[JandError], tuple[str, str, int]],
) -> Outcome | int:
    """Run *work* in a daemon of its own. Returns twice: the Outcome at the terminal, and the exit status of *work* in the daemon.

    *work* is given where to report and the log, opened; *explain* turns an error that it raises into a sentence, a hint and an exit status.
    """
    log_path = find_log(settings)
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return _wait(child, reading, log_path)
    os.close(reading)
    report = Report(writing, log=str(log_path), root=str(settings.root), socket=str(settings.socket))
    umask = os.umask(NOT_WRITABLE_BY_OTHERS)
    os.umask(umask | NOT_WRITABLE_BY_OTHERS)
    try:
        log = open_log(log_path, settings)
        _become_daemon(log, writing, umask | NOT_WRITABLE_BY_OTHERS)
        log.stand_for(1, 2)
        report.began()
        return work(report, log)
    except JandError as error:
        told = explain(error)
        if not report.failed(*told):
            print(f"jand: {told[0]}", file=sys.stderr)  # noqa: T201 - standard error is the log
        return told[2]
    except daemon.daemon.DaemonError as error:
        report.failed(f"cannot detach: {error}", "run it in the foreground: jand serve", SOFTWARE)
        return SOFTWARE


def _become_daemon(log: LogFile, report: int, umask: int) -> None:
    """Fork away from the terminal and close everything but *log* and *report*."""
    context = daemon.DaemonContext(
        detach_process=True,  # by default it guesses, and is wrong in containers and below systemd --user
        working_directory="/",
        umask=umask,  # its default, 0, lets everybody write what we make
        prevent_core=False,  # whoever wants cores of a crash has set the limit for that
        files_preserve=[log.fileno(), report],
        # Its default makes SIGTERM an exception in the midst of anything; the event loop takes that signal.
        signal_map={signal.SIGTTIN: None, signal.SIGTTOU: None, signal.SIGTSTP: None},
    )
    context.open()
    _close_others({log.fileno(), report})


def _close_others(kept: set[int]) -> None:
    """Close what python-daemon left open: it goes by a limit that it read when it was imported, and stops at 2048 where there is none."""
    for number in list(_open_descriptors()):
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(number)


def _open_descriptors() -> Iterator[int]:
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - iterdir would hold the directory open meanwhile
        if name.isdigit():
            yield int(name)


def _wait(child: int, reading: int, log_path: Path) -> Outcome:
    """Wait for what the daemon says; Ctrl-C at the terminal ends it, for it was not wanted after all."""
    pid = 0
    try:
        os.waitpid(child, 0)  # python-daemon forks twice more, and the first of the three ends at once
        with open(reading, "rb") as pipe:
            first = pipe.readline(MAX_MESSAGE).strip()
            pid = int(first) if first.isdigit() else 0
            line = pipe.readline(MAX_MESSAGE) if pid else first
        return Outcome(**json.loads(line))
    except ValueError:
        return Outcome(SOFTWARE, {}, ENDED, f"its log says why: {log_path}")
    except KeyboardInterrupt:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return Outcome(INTERRUPTED, {}, "cannot wait any longer: interrupted, so the daemon ends")
