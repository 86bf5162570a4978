"""What a worker does between its configuration and its first look at a foreign file: it binds its socket, starts the one other process that it will need, and gives up every right that it will not.

At this moment there is one thread and no foreign code; each thread that comes later is confined with it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jand.engine import sandbox
from jand.engine.worker.options import find_adapter, parse_options
from jand.engine.worker.rendering import RenderHost
from jand.errors import StartError

if TYPE_CHECKING:
    from jand.engine.protocol import WorkerConfig


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker has left: a socket that is bound and does not listen yet, and who makes its renderers. *sandbox* says what is in force, by the names of `sandbox.PARTS`."""

    bound: socket.socket
    host: RenderHost
    sandbox: dict[str, str]


def prepare(config: WorkerConfig) -> Prepared:
    files = readable_files(config)
    bound = bind(config.socket)
    host = RenderHost(confined=config.sandbox)
    return Prepared(bound, host, sandbox.confine(files, os.environ) if config.sandbox else sandbox.switched_off())


def bind(path: str) -> socket.socket:
    """Bind a socket at *path* that only this user can open, from its first moment on; it does not listen yet."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        raise StartError(f"the worker cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(previous)
    return bound


def readable_files(config: WorkerConfig) -> list[str]:
    """Return the model's own files; raises BadParameterError for an adapter that is not there."""
    folder = Path(config.weights[0]).parent if config.weights else Path()
    adapters = [str(find_adapter(name, folder)) for name, _ in parse_options(config.init).lora]
    projector = [] if config.projector is None else [config.projector]
    return [*config.weights, *projector, *adapters]
