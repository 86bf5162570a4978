"""The registry's snapshot of a model: what `GET /v1/models/{id}` is made from. Immutable; an actor replaces it whole."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jand.model.immutable import immutable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.model.problem import ErrorNote
    from jand.model.spec import Spec


class PublicState(StrEnum):
    """The three states of model-specs.md."""

    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    RUNNING = "running"


class Transition(StrEnum):
    STARTING = "starting"
    STOPPING = "stopping"
    RESTARTING = "restarting"


@immutable()
class FileRecord:
    """One binary: *size* in bytes as it lies there (what it must have, where it is absent and that is known)."""

    name: str
    size: int | None
    present: bool
    sha256: str | None = None


@immutable()
class FileProgress:
    name: str
    bytes_done: int
    bytes_total: int | None


@immutable()
class Progress:
    """How far what is arriving has come; *bytes_total* is None until every size is known, the speed 0 until it was measured."""

    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    files: tuple[FileProgress, ...] = ()


@immutable()
class Record:
    """One registered model. *created* is a Unix time in seconds, *path* relative to the root (or absolute, in an extra tree)."""

    id: str
    path: str
    created: int
    owned_by: str
    state: PublicState
    spec: Spec
    transition: Transition | None = None
    paused: bool = False
    restart_needed: bool = False
    error: ErrorNote | None = None
    progress: Progress | None = None
    files: tuple[FileRecord, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
