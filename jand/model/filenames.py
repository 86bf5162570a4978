"""What the name of a file says, before anybody opens it.

Pure: no disk. The binding words on content are elsewhere (a binary is what its first bytes say); a name only tells what is not worth opening, what is still on its way, and where a
`download_url` points.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

from jand.model.immutable import immutable

JSON_ENDING: Final = ".json"

BINARY_ENDINGS: Final = (".gguf", ".bin", ".proj", ".ggml")
"""Endings that claim to be a binary; what is in the file decides."""

_OTHER_ENDINGS: Final = frozenset(
    {".md", ".txt", ".rst", ".html", ".htm", ".pdf", ".log", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".ini"}
    | {".py", ".sh", ".js", ".css", ".jinja", ".ipynb", ".lock", ".sha256", ".md5", ".asc", ".sig"}
    | {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp3", ".mp4"}
    | {".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".safetensors", ".onnx", ".parquet"}
)
"""Endings of files that are no binary of a model, so that a folder full of them costs one directory listing."""

_TEMPORARY_ENDINGS: Final = (
    *("~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".opdownload", ".download"),
    *(".downloadinprogress", ".incomplete", ".aria2", ".!qb"),
)
CONTROL_ENDING: Final = ".aria2"
"""`NAME.aria2` beside `NAME` says that `NAME` is not downloaded yet, however long it is."""

_ENDINGS_AS_NAMES: Final = frozenset({".gguf", ".bin", ".proj", ".ggml"})
"""Whole names of the layouts in model-specs.md, although hidden files are left out."""

_REPOSITORY_JSON: Final = re.compile(
    r"""
    (?: config | configuration | (?:tokenizer|tokeniser).* | generation_config.* | .*_map | .*\.index | .*_processor_config | (?:pre)?processor_config
      | added_tokens | vocab | merges | tekken | chat_template | model_index | modules | params | model_args | config_sentence_transformers | sentence_.*_config
      | adapter_config | quantize_config | quant_config | quantization_config | hf_quant_config | recipe | scheduler_config | feature_extractor
      | trainer_state | training_args | dataset_infos? | (?:all|eval|train|test)_results | package | package-lock
    )\.json
    """,
    re.VERBOSE,
)


def printable(name: str) -> str:
    r"""Return *name* as valid Unicode: each byte that is no UTF-8 becomes `\xNN`.

    Two names never become one: a backslash that would read as such an escape is escaped itself.
    """
    if "\\x" not in name and (name.isascii() or not _SURROGATE.search(name)):
        return name
    name = _LOOKS_ESCAPED.sub(r"\\x5c", name)
    return _SURROGATE.sub(lambda found: f"\\x{ord(found.group()) & 0xFF:02x}", name)


_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LOOKS_ESCAPED: Final = re.compile(r"\\(?=x[0-9a-f]{2})")


def composed(name: str) -> str:
    """Return *name* in the composed form (NFC), in which a name typed by hand and one from a Mac's disk agree."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_temporary(name: str) -> bool:
    """Whether *name* is one that programs give to what is not finished, hidden, or their own; such files and folders are never looked into."""
    return _is_temporary(name.lower())


def _is_temporary(lower: str) -> bool:
    if lower.startswith("."):
        return lower not in _ENDINGS_AS_NAMES
    if lower.endswith(_TEMPORARY_ENDINGS) or lower == "4913" or lower.startswith("~syncthing~"):
        return True
    # `sha256-…-partial-3` is a download, `llama-partial-ft.gguf` somebody's fine-tune.
    return "-partial" in lower and not lower.endswith((*BINARY_ENDINGS, JSON_ENDING))


def is_json(name: str) -> bool:
    return name.lower().endswith(JSON_ENDING)


def is_repository_json(name: str) -> bool:
    """Whether a JSON called *name* belongs to a model repository and not to jand (`config.json`, `tokenizer_config.json`, …)."""
    return _REPOSITORY_JSON.fullmatch(name.lower()) is not None


class Kind(StrEnum):
    """What a name promises."""

    JSON = "json"
    BINARY = "binary"
    UNKNOWN = "unknown"
    """Only its first bytes tell."""
    OTHER = "other"


def kind(name: str) -> Kind:
    """Return what *name* promises; temporary names and repositories' own JSONs are `OTHER`."""
    lower = name.lower()
    if _is_temporary(lower):
        return Kind.OTHER
    if lower.endswith(JSON_ENDING):
        return Kind.OTHER if _REPOSITORY_JSON.fullmatch(lower) else Kind.JSON
    if lower.endswith(BINARY_ENDINGS) or lower in {"ggml", "gguf"}:
        return Kind.BINARY
    return Kind.OTHER if lower[lower.rfind(".") :] in _OTHER_ENDINGS else Kind.UNKNOWN


def json_stem(name: str) -> str:
    """*name* of a JSON without its ending."""
    return name[: -len(JSON_ENDING)] if is_json(name) else name


def binary_stem(name: str) -> str:
    """*name* of a binary without a known ending; a dot within (`llama.Q4_0`) is not one."""
    lower = name.lower()
    for ending in BINARY_ENDINGS:
        if lower.endswith(ending):
            return name[: -len(ending)]
    return name


class Source(StrEnum):
    """Where a reference in a model JSON leads."""

    LOCAL = "local"
    REPOSITORY = "repository"
    URL = "url"


@immutable()
class Reference:
    """One item of `download_url`, or `metadata.mmproj`.

    *name*: for a local one the path as meant (absolute, or beginning with `~/`, or relative to the folder); else where the file lies below the model's folder,
    or "" where what was written leads out of it.
    """

    source: Source
    name: str


def parse_reference(text: str) -> Reference:
    """Tell what *text* points to; never fails, an unusable one has no name."""
    if text.startswith("file:"):
        return Reference(Source.LOCAL, _file_url_path(text))
    if text.startswith(("/", "~/", "./", "../")):
        return Reference(Source.LOCAL, text if "\0" not in text else "")
    if "://" in text:
        return Reference(Source.URL, _url_name(text))
    return Reference(Source.REPOSITORY, _inside(text.split("/")))


def _file_url_path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    path = unquote(parts.path, errors="surrogateescape")
    ours = parts.netloc in {"", "localhost"} and path.startswith("/") and "\0" not in path
    return path if ours else ""


def _url_name(url: str) -> str:
    """Return the repository sub-path of a `…/resolve/REVISION/sub/path` URL, else the base name."""
    try:
        segments = [unquote(part) for part in urlsplit(url).path.split("/")]
    except ValueError:
        return ""
    for word in ("resolve", "blob", "raw"):
        if word in segments[3:]:
            at = segments.index(word, 3)
            return _inside(segments[at + 2 :])
    return _inside(segments[-1:])


def _inside(segments: list[str]) -> str:
    """Join *segments* to a relative path that stays below its folder; "" where it would not."""
    name = "/".join(segments)
    bad = not name or "\0" in name or "\\" in name or _SURROGATE.search(name) is not None
    if bad or any(part in {"", ".", ".."} or len(part.encode()) > 255 for part in name.split("/")):
        return ""
    return name
