"""Files that a stand-in hub offers: GGUFs of any size with true extents, and the listings of the repositories that model-specs.md names.

Written with struct alone, so that thousands are cheap; the tensor data is noise, no engine could say anything with it.
"""

from __future__ import annotations

import hashlib
import random
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

UINT32, STRING = 4, 8
INT8_TENSOR = 24
ALIGNMENT = 32
MIB = 1 << 20


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | int) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    return struct.pack("<II", UINT32, value)


def gguf_header(data_bytes: int, facts: dict[str, str | int]) -> bytes:
    """Return a GGUF header, padded to where *data_bytes* bytes of one int8 tensor begin."""
    pairs = b"".join(_text(key) + _value(value) for key, value in facts.items())
    tensor = _text("blk.0.noise") + struct.pack("<IQIQ", 1, data_bytes, INT8_TENSOR, 0)
    header = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(facts)) + pairs + tensor
    return header + b"\0" * (-len(header) % ALIGNMENT)


def llama_facts(
    *, layers: int = 2, heads: int = 4, kv_heads: int = 2, width: int = 64, context: int = 4096, file_type: int = 15
) -> dict[str, str | int]:
    return {
        "general.architecture": "llama",
        "general.name": "noise",
        "general.file_type": file_type,
        "llama.context_length": context,
        "llama.block_count": layers,
        "llama.embedding_length": width,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
    }


def gguf_bytes(size: int, seed: int = 0, facts: dict[str, str | int] | None = None) -> bytes:
    """Return a whole GGUF of about *size* bytes (never more) whose tensor ends exactly at its end."""
    facts = facts or llama_facts()
    room = len(gguf_header(size, facts))
    data = max(ALIGNMENT, (size - room) // ALIGNMENT * ALIGNMENT)
    return gguf_header(data, facts) + random.Random(seed).randbytes(data)


@dataclass(frozen=True)
class HubFile:
    """One file of a repository. *size* beyond what *content* holds is only announced: its digest will not be that of what comes."""

    content: bytes | Path
    announced: int | None = None
    digest: str | None = None
    lfs: bool = True

    @property
    def here(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def size(self) -> int:
        return self.here if self.announced is None else self.announced

    @cached_property
    def sha256(self) -> str:
        if self.digest is not None:
            return self.digest
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        with self.content.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """What git calls the blob: of the pointer for a large file, of the content else."""
        content = self.content if isinstance(self.content, bytes) and not self.lfs else self.sha256.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def read(self, start: int, count: int) -> bytes:
        """Return *count* bytes from *start*; what is only announced reads as zeros."""
        if isinstance(self.content, bytes):
            return self.content[start : start + count].ljust(min(count, self.size - start), b"\0")
        with self.content.open("rb") as stream:
            stream.seek(start)
            return stream.read(count)


@dataclass
class FakeRepo:
    """A repository; each revision (branch, tag) is a mapping of its own. *granted*: the tokens that may read a gated or private one."""

    files: dict[str, HubFile]
    private: bool = False
    gated: bool = False
    granted: frozenset[str] = frozenset()
    revisions: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    downloads: int = 1000

    def commit_of(self, revision: str) -> str | None:
        for name in ("main", *self.revisions):
            commit = self._commit(name)
            if revision in {name, commit}:
                return commit
        return None

    def files_at(self, revision: str) -> dict[str, HubFile] | None:
        for name in ("main", *self.revisions):
            if revision in {name, self._commit(name)}:
                return self.files if name == "main" else self.revisions[name]
        return None

    def _commit(self, name: str) -> str:
        files = self.files if name == "main" else self.revisions[name]
        return hashlib.sha1(repr(sorted((path, file.sha256) for path, file in files.items())).encode()).hexdigest()


def announced(name: str, size: int, facts: dict[str, str | int]) -> HubFile:
    """Return a file of *size* bytes of which only the header exists: enough to be listed and to have its header read by ranges."""
    room = len(gguf_header(size, facts))
    return HubFile(gguf_header(size - room, facts), announced=size, digest=hashlib.sha256(name.encode()).hexdigest())


# Sizes in bytes by reference tables of the two repositories of model-specs.md (GB with two places there).
ZEPHYR = "TheBloke/zephyr-7B-beta-GGUF"
ZEPHYR_SIZES = {
    "Q2_K": 3_083_098_400,
    "Q3_K_S": 3_164_567_840,
    "Q3_K_M": 3_518_986_528,
    "Q3_K_L": 3_822_024_992,
    "Q4_0": 4_108_917_024,
    "Q4_K_S": 4_140_374_304,
    "Q4_K_M": 4_368_439_584,
    "Q5_0": 4_997_716_256,
    "Q5_K_S": 4_997_716_256,
    "Q5_K_M": 5_131_409_696,
    "Q6_K": 5_942_065_440,
    "Q8_0": 7_695_857_952,
}
MISTRAL_7B = llama_facts(layers=32, heads=32, kv_heads=8, width=4096, context=32768)

LLAVA = "mys/ggml_llava-v1.5-13b"
LLAVA_SIZES = {
    "ggml-model-f16.gguf": 26_033_304_832,
    "ggml-model-q4_k.gguf": 7_865_956_512,
    "ggml-model-q5_k.gguf": 9_229_924_512,
    "mmproj-model-f16.gguf": 645_414_656,
}
LLAMA_13B = llama_facts(layers=40, heads=40, kv_heads=40, width=5120, context=4096)
CLIP: dict[str, str | int] = {"general.architecture": "clip", "general.type": "mmproj"}


def zephyr_files() -> dict[str, HubFile]:
    files = {f"zephyr-7b-beta.{q}.gguf": announced(f"zephyr {q}", size, MISTRAL_7B) for q, size in ZEPHYR_SIZES.items()}
    return {
        ".gitattributes": HubFile(b"*.gguf filter=lfs\n", lfs=False),
        "README.md": HubFile(b"# Zephyr\n", lfs=False),
        "config.json": HubFile(b'{"model_type": "mistral"}\n', lfs=False),
        **files,
    }


def llava_files() -> dict[str, HubFile]:
    files = {
        name: announced(name, size, CLIP if name.startswith("mmproj") else LLAMA_13B)
        for name, size in LLAVA_SIZES.items()
    }
    return {".gitattributes": HubFile(b"*.gguf filter=lfs\n", lfs=False), **files}
