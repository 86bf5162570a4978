"""What goes on inside, into the log on SIGUSR1: each task with the place where it waits, each thread, and each model that is not at rest."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from jand.model.record import PublicState

if TYPE_CHECKING:
    from types import FrameType

    from jand.lifecycle.manager import Manager

log = structlog.get_logger(__name__)

DEPTH: Final = 4
"""Frames of one task or thread that are named, the innermost last."""

MOST_MODELS: Final = 200


def dump(manager: Manager) -> None:
    """Log it all, one line for each thing; values of variables are not in it, so no prompt and no key is."""
    records = manager.list()
    states = Counter(record.state.value for record in records)
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    modes = {label: mode.value for label, mode in manager.watch.status.modes.items()}
    log.info("dump", models=dict(states), tasks=len(tasks), threads=threading.active_count(), watch=modes)
    loads = {load.model_id: load for load in manager.loads()}
    busy = [r for r in records if r.state is not PublicState.DOWNLOADED or r.transition or r.error or r.id in loads]
    for record in busy[:MOST_MODELS]:
        load = loads.get(record.id)
        log.info(
            "dump model",
            model=record.id,
            state=record.state.value,
            transition=record.transition,
            error=None if record.error is None else record.error.code,
            in_flight=0 if load is None else load.in_flight,
            waiting=0 if load is None else load.waiting,
            reserved=0 if load is None else load.reserved,
        )
    if len(busy) > MOST_MODELS:
        log.info("dump leaves out models", number=len(busy) - MOST_MODELS)
    for task in tasks:
        log.info("dump task", task=task.get_name(), at=places_of(task.get_coro()))
    frames = sys._current_frames()  # noqa: SLF001 - the one way to see another thread's place; documented though named so
    for thread in threading.enumerate():
        log.info("dump thread", thread=thread.name, at=places_of_frame(frames.get(thread.ident or 0)))


def places_of(awaited: Any) -> str:
    """Return where a coroutine waits, from the outside to the inside."""
    places: list[str] = []
    while awaited is not None:
        frame = (
            getattr(awaited, "cr_frame", None)
            or getattr(awaited, "gi_frame", None)
            or getattr(awaited, "ag_frame", None)
        )
        if frame is not None:
            places.append(place(frame))
        awaited = (
            getattr(awaited, "cr_await", None)
            or getattr(awaited, "gi_yieldfrom", None)
            or getattr(awaited, "ag_await", None)
        )
    return " > ".join(places[-DEPTH:])


def places_of_frame(frame: FrameType | None) -> str:
    places: list[str] = []
    while frame is not None and len(places) < DEPTH:
        places.append(place(frame))
        frame = frame.f_back
    return " > ".join(reversed(places))


def place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{Path(code.co_filename).stem}.{code.co_name}:{frame.f_lineno}"
