"""What can be set: names, types, defaults, units and what each one does. The README's table and `jand config` are made from the descriptions here."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    model_validator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUILT_IN_SECRETS: Final = {
    "OPENAI_API_KEY": "https://api.openai.com",
    "AZURE_OPENAI_API_KEY": "https://*.openai.azure.com",
}
"""Which names `env:NAME` may use without being bound in jand.toml, each with the only origin it is sent to."""

OWNER_MAY_USE_IT: Final = 0o600


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _no_boolean(value: object) -> object:
    """Refuse what pydantic would read as 0 or 1."""
    if isinstance(value, bool):
        raise ValueError("a number is needed")  # noqa: TRY004 - pydantic takes ValueError alone for a wrong value
    return value


def _listed(value: object) -> object:
    """Take a text as a list: JSON where it begins with a bracket, else its parts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _hosts_or_all(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    return _listed(value)


def _octal(value: object) -> object:
    """Read a file mode as text only: a bare 660 in a TOML file is decimal, and would be another mode than it looks."""
    if isinstance(value, str) and re.fullmatch(r"0?o?[0-7]{3}", value):
        return int(value.removeprefix("0").removeprefix("o"), 8)
    raise ValueError("a file mode is needed")


def _owner_keeps_access(mode: int) -> int:
    if mode & OWNER_MAY_USE_IT != OWNER_MAY_USE_IT:
        raise ValueError("the owner must be able to use the socket")
    return mode


def _address(value: str) -> str:
    """Check HOST:PORT, with an IPv6 address in brackets."""
    host, _, port = value.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("no port")
    if host.startswith("[") and host.endswith("]"):
        ipaddress.IPv6Address(host[1:-1])
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("no host")
    return value


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Complete a relative path: from the working directory for a flag or a variable, from the root for jand.toml."""
    context: dict[str, Callable[[str, Path], Path]] = info.context or {}
    return context["resolve"](info.field_name or "", path)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False, le=86_400)]
Whole = Annotated[int, BeforeValidator(_no_boolean)]
FullPath = Annotated[Path, AfterValidator(_absolute)]
FullPaths = Annotated[tuple[FullPath, ...], BeforeValidator(_listed)]
FileMode = Annotated[int, BeforeValidator(_octal), AfterValidator(_owner_keeps_access)]
Address = Annotated[str, AfterValidator(_address)]


def _setting(default: object, expected: str, description: str, *, unit: str = "", **limits: Any) -> Any:
    """Make a field: *expected* completes the sentence "expected ..." of an error, *unit* says what a number counts."""
    return Field(
        default,
        description=description,
        json_schema_extra={"expected": expected, "unit": unit},
        validate_default=False,
        **limits,
    )


class Download(BaseModel):
    """What `[download]` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_private: Annotated[bool | tuple[str, ...], BeforeValidator(_hosts_or_all)] = _setting(
        (),
        "true, false or a list of host names",
        "hosts in private, loopback or link-local networks that downloads may reach; true allows all",
    )
    concurrency: Whole = _setting(
        2, "a whole number from 1 to 16", "how many files are downloaded at the same time", ge=1, le=16
    )
    bandwidth_limit: Whole | None = _setting(
        None,
        "a number of bytes per second from 16384",
        "what all downloads together may take of the network; empty for no limit",
        unit="bytes/s",
        ge=16_384,
    )
    min_free: Whole = _setting(
        1 << 30,
        "a number of bytes",
        "what downloads leave free of a disk; never less than 2 % of it",
        unit="bytes",
        ge=0,
    )


class Settings(BaseModel):
    """One daemon's settings. Paths are absolute, durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: FullPath = _setting(
        ..., "a path", "the janroot: `models/`, `catalog/` and `jand.toml` lie in it; not settable in jand.toml itself"
    )
    socket: FullPath = _setting(..., "a path", "the control socket")
    listen: Address | None = _setting(
        None, "HOST:PORT, for example 127.0.0.1:1337", "serve HTTP on this TCP address too; empty for the socket alone"
    )
    tls_cert: FullPath | None = _setting(None, "a path", "PEM file of the certificate for `listen`; needs `tls_key`")
    tls_key: FullPath | None = _setting(None, "a path", "PEM file of the private key for `listen`; needs `tls_cert`")
    token_file: FullPath | None = _setting(
        None, "a path", "file whose first line is the token that TCP clients must send (`Authorization: Bearer ...`)"
    )
    token: SecretStr | None = _setting(
        None, "a text", "the token itself, from the environment only; for a file there is `token_file`", min_length=1
    )
    hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = _setting(
        (),
        "a list of host names",
        "names of this machine by which TCP clients may call it, beside its addresses and localhost",
    )
    origins: Annotated[tuple[str, ...], BeforeValidator(_listed)] = _setting(
        (),
        "a list of origins, for example https://app.example.com",
        "web origins whose pages may use the API over TCP (CORS)",
    )
    socket_mode: FileMode = _setting(
        0o600, 'an octal file mode as text, for example "0660"', "permissions of the control socket"
    )
    socket_group: str | None = _setting(
        None,
        "the name of a group",
        "group that owns the control socket; with `socket_mode` 0660 its members may use it",
        min_length=1,
    )
    settle: Seconds = _setting(
        2.0,
        "a number of seconds from 0 to 3600",
        "how long a folder must be quiet before something is fetched or adopted in it",
        unit="s",
        ge=0,
        le=3600,
    )
    rescan: Seconds = _setting(
        60.0,
        "a number of seconds from 1 to 86400",
        "how often everything is scanned even if no event came",
        unit="s",
        ge=1,
    )
    adopt: bool = _setting(True, "true or false", "write a JSON beside a bare GGUF that no JSON claims")
    reuse: bool = _setting(
        True,
        "true or false",
        "link a missing binary from the Hugging Face cache, LM Studio, Ollama or llama.cpp where one of them has it",
    )
    extra_models: FullPaths = _setting(
        (), "a list of paths", "more directories that are watched like `models/` and never written to"
    )
    start_on_request: bool = _setting(True, "true or false", "the first request for a downloaded model starts it")
    remote_images: bool = _setting(
        False,
        "true or false",
        "fetch images that requests for local models name by http addresses, by the rules of downloads",
    )
    keep_alive: float = _setting(
        300.0,
        "a number of seconds; 0 at once, negative never",
        "how long a running model may be without requests before it is stopped; its JSON's `metadata.keep_alive` comes first",
        unit="s",
        allow_inf_nan=False,
    )
    restore: bool = _setting(True, "true or false", "start with the daemon what ran when it ended")
    memory_budget: int | None = _setting(
        None,
        "a number of bytes",
        "memory that all running models may take together; empty for what this machine can give",
        unit="bytes",
        gt=0,
    )
    start_timeout: Seconds = _setting(
        600.0,
        "a number of seconds from 1 to 86400",
        "how long a model may take to load before its start counts as failed",
        unit="s",
        ge=1,
    )
    hang_timeout: Seconds = _setting(
        30.0,
        "a number of seconds from 1 to 86400",
        "how long a worker may give no sign of life before it counts as hung and is killed",
        unit="s",
        ge=1,
    )
    stop_timeout: Seconds = _setting(
        300.0,
        "a number of seconds from 0 to 86400",
        "how long running answers may go on after a `stop` before they are cut",
        unit="s",
        ge=0,
    )
    sandbox: bool = _setting(
        True,
        "true or false",
        "workers give up network, writing, other programs and what they need not read before they look at a model",
    )
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = _setting(
        LogLevel.INFO, "debug, info, warning or error", "the least severe lines that are logged"
    )
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = _setting(
        LogFormat.AUTO,
        "auto, text or json",
        "how log lines look; auto: text on a terminal, fields in systemd's journal, JSON lines elsewhere",
    )
    log_file: FullPath | None = _setting(
        None,
        "a path",
        "write the log there and not to standard error; empty: `.jand/jand.log` with `--detach`, else standard error",
    )
    log_max_bytes: Whole = _setting(
        10_000_000,
        "a number of bytes from 4096",
        "how large the log file becomes before it is renamed to `.1` and begun anew",
        unit="bytes",
        ge=4096,
    )
    log_keep: Whole = _setting(5, "a whole number from 0 to 1000", "how many renamed log files are kept", ge=0, le=1000)
    pid_file: FullPath | None = _setting(
        None,
        "a path",
        "write the pid there too, and hold a lock on it, beside `.jand/jand.pid` in the root",
    )
    download: Download = Download()
    secrets: dict[str, str] = _setting(
        BUILT_IN_SECRETS,
        "an origin, for example https://api.example.com",
        "binds the NAME of an `env:NAME` secret to the one origin it may be sent to",
    )

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are only of use together")
        return self


FILE_REFUSES: Final = {
    ("root",): "jand.toml is found through the root, so it cannot name it; use --root or JAND_ROOT",
    ("token",): "a token does not belong in a settings file; name a file that holds it with token_file",
}
"""Keys that jand.toml cannot have, each with what to do instead."""


@dataclass(frozen=True, slots=True)
class Known:
    """One setting as people see it; *key* is dotted."""

    key: str
    default: object
    unit: str
    expected: str
    description: str
    in_file: bool


def known_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Known]:
    """Yield every setting in the order of the schema, nested ones with their dotted keys."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_settings(field.annotation, f"{prefix}{name}.")
            continue
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        yield Known(
            key=f"{prefix}{name}",
            default=None if field.is_required() else field.default,
            unit=str(extra.get("unit", "")),
            expected=str(extra.get("expected", "")),
            description=field.description or "",
            in_file=(prefix + name,) not in FILE_REFUSES,
        )
