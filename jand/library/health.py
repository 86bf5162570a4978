"""What is wrong with the watch of one tree, and how that is said: mode and problems. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jand.library.hints import Alarm
from jand.library.status import Mode
from jand.library.vigilance import Gaps
from jand.model.filenames import printable
from jand.model.problem import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jand.library.filesystems import Mount
    from jand.library.findings import Tree
    from jand.library.watcher import Refusal

REPLACED: Final = "root-replaced"
SILENT: Final = "watch-silent"
INCOMPLETE: Final = "watch-incomplete"
OFFLINE: Final = "root-offline"
DENIED: Final = "watch-denied"

CAUSES: Final[Mapping[str, str]] = {
    Alarm.OVERFLOW: "more happened at once than the queue of events holds",
    Alarm.DIED: "a thread of the watcher died",
    REPLACED: "another folder took its place",
    SILENT: "a file that jand made itself was not reported",
    INCOMPLETE: "the watcher left out some of its folders",
}
MEANWHILE: Final = "until then jand looks for changes every few seconds"


@dataclass(slots=True)
class Health:
    """The faults of one watch.

    *away* is why the tree cannot be read, while it cannot. *alarms* wait for a new watch; *recovering* counts, by code, the sweeps that are under way since one was opened. *refusal* is why
    there is none, *gaps* what the one that there is leaves out.
    """

    away: str = "it was not looked at yet"
    alarms: set[str] = field(default_factory=set)
    recovering: dict[str, int] = field(default_factory=dict)
    refusal: Refusal | None = None
    gaps: Gaps = field(default_factory=Gaps)

    def find_mode(self, mount: Mount | None, *, watching: bool) -> Mode:
        """Return the mode of a tree that lies on *mount*, None where it cannot be read."""
        if mount is None:
            return Mode.OFFLINE
        limited = any(refusal.code != DENIED for _, refusal in self.gaps.refusals)
        if not watching or self.refusal is not None or self.alarms or self.recovering or limited:
            return Mode.DEGRADED
        return Mode.EVENTS if mount.has_events else Mode.POLLING

    def problems(self, tree: Tree, *, online: bool) -> Iterator[Problem]:
        if not online:
            message = f"cannot read {printable(str(tree.path))}: {self.away}"
            yield Problem(
                tree.label, OFFLINE, message, "mount the disk or put the folder back; its models stay listed until then"
            )
            return
        for code in sorted({*self.alarms, *self.recovering}):
            message = f"cannot rely on what was watched in {tree.label}: {CAUSES[code]}"
            yield _warning(tree.label, code, message, "nothing to do: jand watches anew and looks at everything")
        if self.refusal is not None:
            yield _refused(tree.label, tree.label, self.refusal)
        yield from self._gap_problems(tree.label)

    def _gap_problems(self, label: str) -> Iterator[Problem]:
        limits = {}
        for name, refusal in self.gaps.refusals:
            if refusal.code == DENIED:
                path = f"{label}/{printable(name)}"
                yield _refused(path, path, refusal)
            else:
                limits[refusal.code] = refusal
        for refusal in limits.values():
            yield _refused(label, f"all of {label} ({len(self.gaps.entries)} folders are left out)", refusal)


def _refused(path: str, what: str, refusal: Refusal) -> Problem:
    message = f"cannot watch {what}: {refusal.cause}"
    return _warning(path, refusal.code, message, "; ".join(filter(None, (refusal.hint, MEANWHILE))))


def _warning(path: str, code: str, message: str, hint: str) -> Problem:
    return Problem(path, code, message, hint, severity=Severity.WARNING)
