"""The `init` parameters of a model, checked and resolved to what llama.cpp takes.

ggml aborts the process on values that do not fit, so nothing reaches C that was not looked at here; what a build cannot honour becomes a warning.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jand.engine.protocol import DEFAULT_PARALLEL
from jand.errors import StartError
from jand.model import limits

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_BATCH: Final = 2048
MICRO_BATCH: Final = 512
ALL_LAYERS: Final = -1

CACHE_TYPES: Final = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
FLASH_ATTENTION: Final = {"auto": -1, "off": 0, "on": 1}


class BadParameterError(StartError):
    """An `init` or `runtime` parameter of the JSON that cannot be used."""


@dataclass(frozen=True, slots=True)
class Options:
    """*ctx_len* is None where the JSON gives none: it then depends on the model."""

    ctx_len: int | None = None
    n_parallel: int = DEFAULT_PARALLEL
    ngl: int = ALL_LAYERS
    embedding: bool = False
    n_threads: int = 1
    n_threads_batch: int = 1
    n_batch: int = DEFAULT_BATCH
    flash_attn: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    tensor_split: tuple[float, ...] = ()
    lora: tuple[tuple[str, float], ...] = ()
    pre_prompt: str = ""
    user_prompt: str = ""
    ai_prompt: str = ""
    use_extra_bufts: bool = True
    warnings: tuple[str, ...] = field(default=())


def parse_options(init: Mapping[str, Any], *, use_extra_bufts: bool = True, processors: int | None = None) -> Options:
    """Read *init*; raises BadParameterError that names the parameter. *processors* defaults to those this process may use."""
    cores = usable_processors() if processors is None else processors
    n_threads = _whole(init, "n_threads", cores)
    values = Options(
        ctx_len=_whole(init, "ctx_len", 0) or None,
        n_parallel=_whole(init, "n_parallel", DEFAULT_PARALLEL),
        ngl=_whole(init, "ngl", ALL_LAYERS),
        embedding=bool(init.get("embedding") or False),
        n_threads=n_threads,
        n_threads_batch=_whole(init, "n_threads_batch", n_threads),
        n_batch=_whole(init, "n_batch", DEFAULT_BATCH),
        flash_attn=_flash(init.get("flash_attn")),
        cache_type_k=_choice(init, "cache_type_k", CACHE_TYPES, "f16"),
        cache_type_v=_choice(init, "cache_type_v", CACHE_TYPES, "f16"),
        tensor_split=_shares(init.get("tensor_split")),
        lora=_adapters(init.get("lora")),
        pre_prompt=init.get("pre_prompt") or "",
        user_prompt=init.get("user_prompt") or "",
        ai_prompt=init.get("ai_prompt") or "",
        use_extra_bufts=use_extra_bufts,
    )
    if values.cache_type_v not in limits.PLAIN_CACHE_TYPES and values.flash_attn == "off":
        raise BadParameterError(
            f'cache_type_v "{values.cache_type_v}" needs flash attention, and flash_attn is off',
            hint="leave flash_attn out, or use f16",
            param="cache_type_v",
        )
    return values


def _whole(init: Mapping[str, Any], name: str, default: int) -> int:
    value = init.get(name)
    least, most = limits.INIT[name]
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadParameterError(
            f"parameters.init.{name} is {value!r}, where a whole number from {least} to {most} is expected", param=name
        )
    return value


def _choice(init: Mapping[str, Any], name: str, known: Mapping[str, int], default: str) -> str:
    value = init.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value.lower() not in known:
        raise BadParameterError(
            f"parameters.init.{name} is {value!r}, where one of {', '.join(known)} is expected", param=name
        )
    return value.lower()


def _flash(value: object) -> str:
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) and value.lower() in {*FLASH_ATTENTION, "true", "false", "enabled", "disabled"}:
        return {"true": "on", "enabled": "on", "false": "off", "disabled": "off"}.get(value.lower(), value.lower())
    raise BadParameterError(
        f"parameters.init.flash_attn is {value!r}, where true, false or auto is expected", param="flash_attn"
    )


def _shares(value: object) -> tuple[float, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        shares = tuple(float(share) for share in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        shares = (math.nan,)
    if not all(math.isfinite(share) and share >= 0 for share in shares):
        raise BadParameterError(
            f"parameters.init.tensor_split is {value!r}, where a list of shares such as [3, 1] is expected",
            param="tensor_split",
        )
    return shares


def _adapters(value: object) -> tuple[tuple[str, float], ...]:
    """Accept a path, a list of paths, or a list of objects with `path` and `scale`."""
    if value is None:
        return ()
    adapters: list[tuple[str, float]] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        path, scale = (item.get("path"), item.get("scale", 1.0)) if isinstance(item, dict) else (item, 1.0)
        if not isinstance(path, str) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise BadParameterError(
                f"parameters.init.lora has {item!r}, where a path or an object with path and scale is expected",
                param="lora",
            )
        adapters.append((path, float(scale)))
    return tuple(adapters)


def find_adapter(name: str, folder: Path) -> Path:
    """Return the file of an adapter: what is absolute or begins with ~/ stands where it says, any other name lies in the model's *folder* and not outside."""
    path = Path(name).expanduser()
    found = path if path.is_absolute() else folder / path
    if not path.is_absolute() and ".." in path.parts:
        raise BadParameterError(
            f"parameters.init.lora names {name!r}, which lies outside the model's folder", param="lora"
        )
    if not found.is_file():
        raise BadParameterError(
            f"parameters.init.lora names {name!r}, and there is no such file", hint=f"looked for {found}", param="lora"
        )
    return found


def usable_processors() -> int:
    """Count the processors this process may use: its affinity, less where a control group grants less time."""
    try:
        count = len(os.sched_getaffinity(0))  # type: ignore[attr-defined,unused-ignore]
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)
