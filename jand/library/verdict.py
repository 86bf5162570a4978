"""Whether one binary is whole, still arriving, or never going to be a model as it lies.

Size alone is wrong (files are laid out in full before they are filled), so is a recent time (copies restore old ones), so is a close event (a rename has none). What
counts: the header says how long the file must be, nobody has it open for writing, and where the kernel cannot tell that, its ctime, which no program can set, is old enough.
"""

# ruff: noqa: PTH119 - paths are text: names may hold bytes that are no UTF-8, and a Path costs more than the look at the file

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from jand.errors import GgufError, IncompleteGgufError, LegacyGgmlError
from jand.errors.scarcity import is_our_own_lack
from jand.library import probe
from jand.library.headers import is_racy, make_stamp, open_regular
from jand.model.filenames import printable
from jand.model.identity import Soundness
from jand.model.immutable import immutable

if TYPE_CHECKING:
    from jand.library.findings import Stamp
    from jand.library.headers import HeaderCache
    from jand.model.gguf import Header

QUIET_S: Final = 0.5
"""For how long a file must not have changed where nobody can tell whether somebody writes to it."""

RIPE_S: Final = 3.0
"""For how long an incomplete or bad file must not have changed until that is called a problem."""

WATCH_S: Final = 1.0
"""When to look again at a file that somebody writes to, should no event come."""

_MAGICS: Final = (b"GGUF", b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggmf", b"ggjt", b"ggla")
_MAGIC_BYTES: Final = 4


@immutable()
class Verdict:
    """What is known of one file now.

    *fault* is why it is not complete, or no model, as it lies; *ripe* says that it has lain so for long enough to be told. *recheck_after_s* is None where the next event will do.
    """

    stamp: Stamp | None
    header: Header | None = None
    whole: bool = False
    writing: bool = False
    fault: GgufError | OSError | None = None
    ripe: bool = False
    recheck_after_s: float | None = None

    @property
    def soundness(self) -> int:
        """How much it looks like a model; what cannot be looked at counts as one."""
        if self.fault is None or isinstance(self.fault, IncompleteGgufError | OSError):
            return Soundness.GGUF
        return Soundness.LEGACY if isinstance(self.fault, LegacyGgmlError) else Soundness.JUNK


def judge(path: str, stamp: Stamp, headers: HeaderCache, *, now: float, controlled: bool = False) -> Verdict:
    """Judge the file at *path*, which had *stamp* a moment ago; *now* is the Unix time.

    *controlled*: a control file beside it says that a download is not done. A file that cannot be opened is a verdict too; nothing is raised.
    """
    known = headers.recall(stamp)
    if known is not None and not controlled and headers.quiet.find(stamp):
        return _weigh(path, stamp, known, headers, writing=False, now=now)
    try:
        stream, status = open_regular(path)
        with stream:
            stamp = make_stamp(status)
            writing = controlled or probe.is_marked_busy(status) or probe.has_writer(stream.fileno())
            known = headers.recall(stamp) or (headers.find_growing(stamp) if writing else None)
            if known is None:
                known = headers.read(stream, stamp, os.path.basename(path))
    except OSError as error:
        if is_our_own_lack(error):
            raise
        return Verdict(stamp, fault=error, ripe=True)
    found = _weigh(path, stamp, known, headers, writing=writing, now=now)
    if found.whole and not is_racy(stamp):
        headers.quiet.keep(stamp, True)
    return found


def _weigh(
    path: str, stamp: Stamp, known: Header | GgufError, headers: HeaderCache, *, writing: bool | None, now: float
) -> Verdict:
    if isinstance(known, GgufError):
        return _faulty(stamp, None, known, writing=bool(writing), age=age_of(stamp, headers, now))
    if stamp.size < known.size_needed:
        fault = _short(path, stamp.size, known.size_needed)
        return _faulty(stamp, known, fault, writing=bool(writing), age=age_of(stamp, headers, now))
    if writing:
        return Verdict(stamp, known, writing=True, recheck_after_s=WATCH_S)
    if writing is None and (age := age_of(stamp, headers, now)) < QUIET_S:
        return Verdict(stamp, known, recheck_after_s=QUIET_S - age)
    return Verdict(stamp, known, whole=True)


def age_of(stamp: Stamp, headers: HeaderCache, now: float) -> float:
    """Return for how many seconds the file of *stamp* has not changed, by its ctime; where that lies in the future, by our own memory."""
    age = now - stamp.ctime_ns / 1e9
    if age >= 0:
        return age
    seen_at = headers.first_seen.find(stamp)
    if seen_at is None:
        headers.first_seen.keep(stamp, time.monotonic())
        return 0.0
    return time.monotonic() - seen_at


def begins_like_model(path: str, stamp: Stamp, headers: HeaderCache) -> bool:
    """Whether the first bytes of *path* say GGUF or one of the formats before it; for files whose name promises nothing."""
    if headers.recall(stamp) is not None:
        return True
    if stamp.size < _MAGIC_BYTES or headers.foreign.find(stamp):
        return False
    try:
        stream, _ = open_regular(path)
        with stream:
            found = stream.read(_MAGIC_BYTES) in _MAGICS
    except OSError as error:
        if is_our_own_lack(error):
            raise
        return False
    if not found and not is_racy(stamp):
        headers.foreign.keep(stamp, True)
    return found


def _faulty(stamp: Stamp, header: Header | None, fault: GgufError, *, writing: bool, age: float) -> Verdict:
    """Judge a file that is incomplete or no model: nothing to be told while somebody writes or has just written."""
    recheck_after_s = WATCH_S if writing else max(0.0, RIPE_S - age) or None
    return Verdict(
        stamp,
        header,
        writing=writing,
        fault=fault,
        ripe=recheck_after_s is None,
        recheck_after_s=recheck_after_s,
    )


def _short(path: str, size: int, needed: int) -> IncompleteGgufError:
    name = printable(os.path.basename(path))
    return IncompleteGgufError(
        f'cannot use "{name}": it has {size:,} of the {needed:,} bytes that its header announces',
        hint="finish the copy, or delete it so that it can be fetched",
        needed=needed,
    )
