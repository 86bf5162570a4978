"""Which settings can change while the daemon runs, and what has to be told of each. All others need a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jand.download.downloader import Downloader
    from jand.engine.remote.credentials import Credentials
    from jand.lifecycle.manager import Manager
    from jand.lifecycle.workers import LocalWorkers
    from jand.log import Logs
    from jand.settings import Settings


@dataclass(frozen=True, slots=True)
class Live:
    """The parts that take other settings. *budget* is the bytes that models may take where no setting says it."""

    manager: Manager
    workers: LocalWorkers
    credentials: Credentials
    downloader: Downloader
    logs: Logs
    budget: int

    def table(self) -> dict[str, Callable[[Settings], None]]:
        """Return, by the key of each setting that can change, how it is applied."""
        return {
            "log_level": self._level,
            "settle": self._watch,
            "rescan": self._watch,
            "start_on_request": self._running,
            "keep_alive": self._running,
            "stop_timeout": self._running,
            "start_timeout": self._running,
            "memory_budget": self._memory,
            "download.concurrency": self._downloads,
            "download.bandwidth_limit": self._downloads,
            "download.min_free": self._downloads,
            "secrets": self._secrets,
            # These are read with the token's file, which may hold another one under the same name.
            **dict.fromkeys(("hosts", "origins", "token_file"), self._read_anyway),
        }

    def _read_anyway(self, settings: Settings) -> None:
        """Leave it to who reads the token's file."""

    def _level(self, settings: Settings) -> None:
        self.logs.set_level(settings.log_level)

    def _watch(self, settings: Settings) -> None:
        self.manager.watch.tune(settle_s=settings.settle, rescan_s=settings.rescan)

    def _running(self, settings: Settings) -> None:
        """Models that run are held to it from the next time on that they are idle, or stopped."""
        self.manager.start_on_request = settings.start_on_request
        self.manager.keep_alive_s = settings.keep_alive
        self.manager.stop_timeout_s = settings.stop_timeout
        self.workers.start_timeout_s = settings.start_timeout

    def _memory(self, settings: Settings) -> None:
        # A smaller budget stops nothing by itself: the next start makes room.
        self.manager.admission.budget = settings.memory_budget or self.budget
        self.manager.admission.changed()

    def _downloads(self, settings: Settings) -> None:
        download = settings.download
        self.downloader.tune(
            concurrency=download.concurrency, bandwidth_limit=download.bandwidth_limit, min_free=download.min_free
        )

    def _secrets(self, settings: Settings) -> None:
        self.credentials.bind(settings.secrets)
