"""The one door to watchdog: hints about which entries of a tree to look at again, and what is known of the watch's own health.

An event decides nothing, it only names an entry. watchdog 7.1 loses its reader thread while `is_alive()` stays true, drops events with nothing but a line in its log, and watches less than
asked without a word; so a `Watch` hears its threads die, hears overflows, says which folders the kernel really watches for it, and can be thrown away and opened anew.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from typing_extensions import override
from watchdog import events
from watchdog.observers import Observer
from watchdog.utils import BaseThread

from jand.library.ears import Ears
from jand.library.filesystems import counting_device
from jand.library.findings import LOOSE
from jand.library.stamps import OWN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jand.library.hints import Hints, Mailbox

if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyWatchGroup
    from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

    # After a move out of the tree watchdog holds back all that follows for this long, 0.5 s by itself, waiting for the move's other half; both halves of a rename come in one read of the queue.
    InotifyMoveEventGrouper.delay = 0.005

    def _watch_all(group: InotifyWatchGroup, path: bytes) -> None:
        """Watch *path* and all folders below it, as watchdog's own walk does, in a quarter of its time: at 10,000 folders that is a fifth of a start.

        A folder is watched before it is looked into, so that a folder made in it meanwhile is either found or told.
        """
        group._add_callback(path)  # noqa: SLF001 - the door to watchdog is here
        above = [path] if group.is_recursive and os.path.isdir(path) else []  # noqa: PTH112
        # Of what arrives later there is little, and the table of mounts need not be read for it.
        counting = counting_device(os.fsdecode(path)) if path == group.path else None
        while above:
            with contextlib.suppress(OSError), os.scandir(above.pop()) as items:
                for item in items:
                    if item.is_dir(follow_symlinks=False):
                        group._add_callback(item.path)  # noqa: SLF001
                        if not _holds_no_folder(item, counting):
                            above.append(item.path)

    InotifyWatchGroup._add_all_callbacks = _watch_all  # type: ignore[assignment]  # noqa: SLF001

log = structlog.get_logger(__name__)

FILTER: Final[list[type[events.FileSystemEvent]]] = [
    events.FileCreatedEvent, events.FileModifiedEvent, events.FileAttribEvent, events.FileClosedEvent, events.FileMovedEvent, events.FileDeletedEvent,
    events.DirCreatedEvent, events.DirAttribEvent, events.DirMovedEvent, events.DirDeletedEvent,
]  # fmt: skip
"""Without Opened and ClosedNoWrite: watchdog's own walks cause those, and above 4,096 folders they overflow the queue again and again for ever."""

COOKIE_PREFIX: Final = f"{OWN_PREFIX}cookie-"
MOST_LINKS: Final = 64
JOIN_S: Final = 5.0
MOST_CONTRADICTIONS: Final = 10_000

_cookie_numbers = itertools.count(1)


class ObserverLike(Protocol):
    """What is used of a watchdog observer; tests feed events through one of their own."""

    def schedule(
        self, event_handler: events.FileSystemEventHandler, path: str, *, recursive: bool = ..., event_filter: list[type[events.FileSystemEvent]] | None = ...
    ) -> Any: ...  # fmt: skip

    def unschedule(self, watch: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def join(self, timeout: float | None = ...) -> None: ...

    def is_alive(self) -> bool: ...


def default_observer() -> ObserverLike:
    """Return watchdog's own choice for this platform."""
    return Observer()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a folder cannot be watched: the code of a problem, a cause and a hint."""

    code: str
    cause: str
    hint: str = ""


class _Handler(events.FileSystemEventHandler):
    """Turns events below *root* into hints, in watchdog's thread; an exception here would end that thread."""

    def __init__(self, root: str, mailbox: Mailbox) -> None:
        self._root = root
        self._below = root.rstrip("/") + "/"
        self._mailbox = mailbox

    @override
    def dispatch(self, event: events.FileSystemEvent) -> None:
        try:
            with self._mailbox.open() as hints:
                for path in (event.src_path, event.dest_path):
                    if path:
                        self._note(hints, os.fsdecode(path), event)
        except Exception:
            log.exception("event not understood", path=repr(event.src_path), kind=event.event_type)
            with self._mailbox.open() as hints:
                hints.everything = True

    def _note(self, hints: Hints, path: str, event: events.FileSystemEvent) -> None:
        if path == self._root:
            gone = event.event_type in {events.EVENT_TYPE_DELETED, events.EVENT_TYPE_MOVED}
            hints.root, hints.rights = hints.root or gone, True
            return
        if not path.startswith(self._below):
            hints.everything = True
            return
        name, slash, rest = path[len(self._below) :].partition("/")
        if name.startswith(COOKIE_PREFIX):
            hints.cookies.add(name)
        elif not _is_own(name) and not any(map(_is_own, rest.split("/"))):
            self._note_name(hints, name, event, deeper=bool(slash))

    def _note_name(self, hints: Hints, name: str, event: events.FileSystemEvent, *, deeper: bool) -> None:
        flow = event.event_type == events.EVENT_TYPE_MODIFIED
        hints.rights = hints.rights or isinstance(event, events.DirAttribEvent)
        hints.moved = hints.moved or isinstance(event, events.DirMovedEvent | events.DirDeletedEvent)
        if deeper or event.is_directory:
            hints.touch(name, flow=flow)
            return
        hints.touch(LOOSE, flow=flow)
        if not flow:
            # A link to a folder comes and goes as a file does, and a file may take the place of a folder.
            hints.touch(name)


class _LinkHandler(events.FileSystemEventHandler):
    """Turns what happens at the far end of links into hints for the entries that hold them."""

    def __init__(self, mailbox: Mailbox, only: str | None, entries: frozenset[str]) -> None:
        self._mailbox = mailbox
        self._only = only
        self._entries = entries

    @override
    def dispatch(self, event: events.FileSystemEvent) -> None:
        paths = {os.fsdecode(path) for path in (event.src_path, event.dest_path) if path}
        if self._only is None or self._only in paths:
            flow = event.event_type == events.EVENT_TYPE_MODIFIED
            with self._mailbox.open() as hints:
                for entry in self._entries:
                    hints.touch(entry, flow=flow)


_ears = Ears()


class Watch:
    """One observer over one tree; its methods block, and belong in a thread of `Threads`."""

    def __init__(self, root: str, mailbox: Mailbox, factory: Callable[[], ObserverLike]) -> None:
        self.root = root
        self.mailbox = mailbox
        self._factory = factory
        self._lock = threading.Lock()
        self._observer: ObserverLike | None = None
        self._threads: list[BaseThread] = []
        self._descriptors: frozenset[int] = frozenset()
        self._links: dict[str, tuple[object, frozenset[str]]] = {}

    def open(self) -> Refusal | None:
        """Begin to watch; where that is refused, nothing is left open."""
        with self._lock:
            return self._open()

    def _open(self) -> Refusal | None:
        # A watch on a link sees nothing at all (and FSEvents answers with real paths).
        self.root = os.path.realpath(self.root)
        with _ears.building:
            # One of its warnings prints its whole tables, 214 KB at 3,000 folders, and turned into an error it kills the reader.
            warnings.filterwarnings("ignore", module=r"watchdog\.")
            threads, descriptors = set(threading.enumerate()), _inotify_descriptors()
            observer: ObserverLike | None = None
            try:
                observer = self._factory()
                observer.schedule(_Handler(self.root, self.mailbox), self.root, recursive=True, event_filter=FILTER)
                observer.start()
            except Exception as error:
                if observer is not None:
                    observer.stop()
                return _explain(error)
            self._observer = observer
            self._threads = [
                thread for thread in threading.enumerate() if isinstance(thread, BaseThread) and thread not in threads
            ]
            self._descriptors = _inotify_descriptors() - descriptors
            for descriptor in self._descriptors:
                os.set_inheritable(descriptor, False)  # watchdog leaves it open in every child
            _ears.attend(self, self._threads)
        return None

    def close(self) -> None:
        """Stop watching, also what is just being opened; waits for the threads, which is short unless one of them hangs."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        _ears.ignore(self._threads)
        observer, self._observer = self._observer, None
        self._links.clear()
        if observer is None:
            return
        groups = [getattr(emitter, "_inotify", None) for emitter in getattr(observer, "emitters", ())]
        try:
            observer.stop()
        except Exception as error:
            log.info("watchdog did not stop by itself", tree=self.root, error=repr(error))
            self._stop_one_by_one(groups)
        observer.join(JOIN_S)

    def _stop_one_by_one(self, groups: list[Any]) -> None:
        """Stop what watchdog did not come to because its tables contradict one another, as they do before its reader dies.

        Its groups of watches give up at the first contradiction, and with it forget that one, so that asking again comes further; an emitter ends only when its group is through.
        """
        for group in filter(None, groups):
            for _ in range(MOST_CONTRADICTIONS):
                with contextlib.suppress(LookupError):
                    group.deactivate()
                    break
        for thread in self._threads:
            with contextlib.suppress(Exception):
                thread.stop()

    @property
    def alive(self) -> bool:
        """Whether every thread that was started for it still runs."""
        return (
            self._observer is not None
            and self._observer.is_alive()
            and all(thread.is_alive() for thread in self._threads)
        )

    def follow(self, links: Mapping[str, frozenset[str]]) -> None:
        """Watch also the far ends of links, by real path, each with the entries that lead there: as many as `MOST_LINKS` allows.

        Not below them: whoever relies on this alone misses what happens deeper.
        """
        if self._observer is None:
            return
        wanted = {path: links[path] for path in sorted(links)[:MOST_LINKS] if not _holds(path, self.root)}
        for path, (watch, entries) in list(self._links.items()):
            if wanted.get(path) != entries:
                del self._links[path]
                with contextlib.suppress(KeyError):
                    self._observer.unschedule(watch)
        for path in wanted.keys() - self._links.keys():
            folder, only = (path, None) if os.path.isdir(path) else (os.path.dirname(path), path)  # noqa: PTH112, PTH120
            handler = _LinkHandler(self.mailbox, only, wanted[path])
            with contextlib.suppress(OSError):
                self._links[path] = (self._observer.schedule(handler, folder, event_filter=FILTER), wanted[path])

    def watched_folders(self) -> frozenset[int] | None:
        """Return the inodes for which the kernel holds a watch of ours; None where it does not say."""
        if not self._descriptors:
            return None
        found: set[int] = set()
        for descriptor in self._descriptors:
            try:
                notes = Path(f"/proc/self/fdinfo/{descriptor}").read_bytes()
            except OSError:
                return None
            # `inotify wd:1 ino:9e7e sdev:800013 ...`; the file's own number is behind a tab.
            found.update(int(number, 16) for number in re.findall(rb" ino:([0-9a-f]+)", notes))
        return frozenset(found)

    def place_cookie(self) -> str | None:
        """Make a file appear in the tree for a moment; its name comes back as a hint if the watch works. None where nothing can be written."""
        name = f"{COOKIE_PREFIX}{os.getpid()}-{next(_cookie_numbers)}"
        path = f"{self.root}/{name}"
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError:
            return None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
        return name


def try_to_watch(folder: str, factory: Callable[[], ObserverLike]) -> Refusal | None:
    """Why *folder* cannot be watched; None where it can."""
    with _ears.building:
        try:
            observer = factory()
        except OSError as error:
            return _explain(error)
        try:
            observer.schedule(events.FileSystemEventHandler(), folder, event_filter=FILTER)
            observer.start()
        except OSError as error:
            return _explain(error)
        finally:
            observer.stop()
    return None


def remove_stale_cookies(root: str) -> None:
    """Take away what a daemon that was killed at the wrong instant left behind."""
    with contextlib.suppress(OSError), os.scandir(root) as items:
        for item in items:
            if item.name.startswith(COOKIE_PREFIX):
                with contextlib.suppress(OSError):
                    os.unlink(item.path)  # noqa: PTH108


def _holds_no_folder(item: os.DirEntry[bytes], counting: int | None) -> bool:
    """Whether the folder *item*, by the number of its links on the device *counting*, holds no other folder: two, its name and its own `.`, and one for each `..` within."""
    if counting is None:
        return False
    try:
        status = item.stat(follow_symlinks=False)
    except OSError:
        return True  # it is gone
    return status.st_nlink == 2 and status.st_dev == counting


def _is_own(name: str) -> bool:
    return name.startswith(OWN_PREFIX)


def _holds(folder: str, path: str) -> bool:
    """Whether *path* is *folder* or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _inotify_descriptors() -> frozenset[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":  # noqa: PTH115
                    found.add(int(name))
    return frozenset(found)


def _explain(error: Exception) -> Refusal:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOSPC:
        hint = "raise it with `sysctl fs.inotify.max_user_watches=1048576`, and in /etc/sysctl.d to keep it"
        return Refusal("watch-limit", "the limit of inotify watches is reached", hint)
    if number == errno.EMFILE:
        hint = "raise it with `sysctl fs.inotify.max_user_instances=1024`, and the limit of open files (LimitNOFILE) if that is low"
        return Refusal("watch-instances", "the limit of inotify instances or of open files is reached", hint)
    if number in {errno.EACCES, errno.EPERM}:
        return Refusal("watch-denied", "permission denied", "give the user that jand runs as the right to read it")
    return Refusal("watch-failed", str(error) or type(error).__name__)
