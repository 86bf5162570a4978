"""Model JSONs as they lie on the disk, parsed once for each content.

A JSON that cannot be parsed may be in the middle of being written: for a moment it is *arriving*, and the last good content of its path stands meanwhile, so that saving a file in an
editor never unregisters a model. After that it is a problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.errors.scarcity import is_our_own_lack
from jand.library import generated, probe
from jand.library.headers import is_racy, make_stamp, open_regular
from jand.library.verdict import age_of
from jand.model import document
from jand.model.immutable import immutable
from jand.model.problem import Problem

if TYPE_CHECKING:
    from jand.library.findings import Stamp
    from jand.library.headers import HeaderCache
    from jand.model.spec import Spec

MAX_BYTES: Final = 1 << 20
"""What `document.parse` takes; one byte more is read, so that it can tell."""

RIPE_S: Final = 2.0
PATIENCE_S: Final = 4.0
"""For how long a JSON that cannot be parsed must not have changed to be a problem: nobody writing to it, and at the longest."""


UNREADABLE_HINT: Final = "let the user that jand runs as read it (chmod, chown)"


@immutable()
class Reading:
    """What one content of one JSON says. *path* is the shown one, which *problems* carry; *spec* is None where it is no model."""

    path: str
    stamp: Stamp
    spec: Spec | None
    problems: tuple[Problem, ...] = ()
    generated: bool = False
    writing: bool = False


@immutable()
class Sight:
    """A JSON now. *arriving*: it cannot be judged yet, and *reading* is the last good one, or None."""

    reading: Reading | None
    arriving: bool = False
    recheck_after_s: float | None = None


def look(file: str, shown: str, stamp: Stamp, headers: HeaderCache, *, good: Reading | None, now: float) -> Sight:
    """Read the JSON at *file*, which had *stamp* a moment ago and was *good* at the last scan, if it was one that can be used.

    Nothing is raised for what lies there, only for a lack of our own; one that has gone meanwhile has no reading and is not arriving.
    """
    reading = headers.documents.find(stamp)
    if reading is None or reading.path != shown or reading.writing:
        try:
            reading = _read(file, shown)
        except FileNotFoundError:
            return Sight(None)
        except OSError as error:
            if is_our_own_lack(error):
                raise
            return Sight(Reading(shown, stamp, None, (unreadable(shown, error),)))
        if not is_racy(reading.stamp):
            headers.documents.keep(reading.stamp, reading)
    if reading.spec is None:
        patience_s = PATIENCE_S if reading.writing else RIPE_S
        age = age_of(reading.stamp, headers, now)
        if age < patience_s:
            return Sight(good, arriving=True, recheck_after_s=patience_s - age)
    return Sight(reading)


def _read(file: str, shown: str) -> Reading:
    stream, status = open_regular(file)
    with stream:
        stamp = make_stamp(status)
        raw = stream.read(min(stamp.size, MAX_BYTES) + 1) or b""
        parsed = document.parse(raw, shown)
        return Reading(
            shown,
            stamp,
            parsed.spec,
            parsed.problems,
            generated=parsed.spec is not None and generated.is_unedited(raw),
            writing=parsed.spec is None and probe.has_writer(stream.fileno()) is True,
        )


def unreadable(shown: str, error: OSError) -> Problem:
    """Make the problem of a file or folder that the system refuses to show."""
    hint = UNREADABLE_HINT if isinstance(error, PermissionError) else "check the disk and its mount"
    return Problem(shown, "unreadable", f"cannot read {shown}: {error.strerror or error}", hint)
