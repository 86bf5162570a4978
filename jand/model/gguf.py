"""What the header of a GGUF says, read with bounds on everything, before llama.cpp sees the file.

Runs in the daemon, so it must survive any bytes: whatever they are, the answer is a `Header` or a `GgufError`, in bounded time and memory. What llama.cpp accepts
(gguf.cpp) is accepted, short of absurd sizes; so are tensor types newer than the table here, since a new type is the engine's matter alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from jand.errors import GgufError, LegacyGgmlError
from jand.model.foreign import HEAD_BYTES, explain
from jand.model.gguf_cursor import Cursor
from jand.model.gguf_tensors import MAX_TENSORS, SMALLEST_TENSOR, Tensors, read_tensors
from jand.model.gguf_values import MAX_KEYS, SMALLEST_KEY, Values, read_values
from jand.model.immutable import immutable
from jand.model.quantisation import GUESSED, canonical, file_type_name

if TYPE_CHECKING:
    from typing import BinaryIO

_FIXED_BYTES: Final = 4 + 4 + 8 + 8

_ENCODERS: Final = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "eurobert"}
    | {"gemma-embedding", "t5encoder", "llama-embed"}
)


@immutable(kw_only=True)
class Header:
    """The facts of one GGUF file. What it does not say, or says in a way that cannot be, is None.

    *size_needed* is the size in bytes that the file must at least have: to the end of its last tensor (where the last is of one of the *unknown_types*, to its
    beginning). A part of a split model after the first says nothing but *split_no* (from 0), *split_count* and its own tensors; its *architecture* is "".
    *parameters* counts this file alone. *quantization* is the canonical name, from *file_type* or else the type of most weights.
    """

    version: int
    byte_order: str
    architecture: str
    type: str
    name: str | None
    basename: str | None
    size_label: str | None
    finetune: str | None
    license: str | None
    organization: str | None
    parameters: int
    file_type: int | None
    quantization: str | None
    context_length: int | None
    embedding_length: int | None
    block_count: int | None
    head_count: int | tuple[int, ...] | None
    head_count_kv: int | tuple[int, ...] | None
    key_length: int | None
    value_length: int | None
    sliding_window: int | None
    sliding_window_pattern: int | tuple[int, ...] | None
    expert_count: int | None
    expert_used_count: int | None
    vocab_size: int | None
    tokenizer: str | None
    chat_template: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pooling_type: int | None
    has_vision: bool
    has_audio: bool
    split_no: int
    split_count: int
    tensor_count: int
    unknown_types: tuple[int, ...]
    alignment: int
    data_offset: int
    size_needed: int

    @property
    def has_template(self) -> bool:
        return bool(self.chat_template)

    @property
    def is_projector(self) -> bool:
        """It turns pictures or sound into embeddings for another model."""
        return self.architecture == "clip" or self.type == "mmproj"

    @property
    def is_adapter(self) -> bool:
        """It holds a LoRA, which changes another model."""
        return self.type == "adapter"

    @property
    def is_embedding(self) -> bool:
        """It is made for embeddings or reranking, not to generate text."""
        return bool(self.pooling_type) or self.architecture in _ENCODERS


def read_header(stream: BinaryIO, size: int, *, name: str = "") -> Header:
    """Read the header of a file of *size* bytes from *stream*, which stands at its beginning; messages call the file by *name*.

    *stream* may hold only a beginning of the file: then, as for a truncated one, IncompleteGgufError says in its `needed` fact how many bytes at least are
    needed to go on. Raises GgufError or one of its subclasses and nothing else, but for OSError from the stream. Whether the file is complete is the
    caller's comparison of *size_needed* with its size.
    """
    cursor = Cursor(stream, size, f'"{name}"' if name else "the file")
    beginning = cursor.data
    for length in _lengths.copy():
        known = _seen.get(beginning[:length])
        if known is not None and known.size_needed <= size:
            return known
    header = _read(cursor)
    if header.data_offset <= len(beginning):
        _remember(beginning[: header.data_offset], header)
    return header


_MOST_SEEN: Final = 64

_seen: Final[dict[bytes, Header]] = {}
_lengths: Final[dict[int, None]] = {}
"""Short headers by their bytes, and how long they are: copies of a file say the same, and so do those that a test or a demonstration is made of."""


def _remember(content: bytes, header: Header) -> None:
    if len(_seen) >= _MOST_SEEN:
        _seen.clear()
        _lengths.clear()
    _seen[content] = header
    _lengths[len(content)] = None


def _read(cursor: Cursor) -> Header:
    version = _read_version(cursor)
    tensor_count, key_count = cursor.read_u64(), cursor.read_u64()
    if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
        raise cursor.bad(f"it claims {key_count:,} keys and {tensor_count:,} tensors")
    cursor.expect(SMALLEST_KEY * key_count + SMALLEST_TENSOR * tensor_count)
    values = read_values(cursor, key_count)
    alignment = values.alignment()
    if alignment is None:
        raise cursor.bad("its alignment is no power of two")
    tensors = read_tensors(cursor, tensor_count, alignment)
    header = _build(values, tensors, version=version, byte_order=cursor.byte_order, alignment=alignment)
    _refuse_useless(header, cursor.label)
    return header


def _read_version(cursor: Cursor) -> int:
    head = cursor.data[:HEAD_BYTES]
    if not head.startswith(b"GGUF"):
        if head and b"GGUF".startswith(head):
            raise cursor.ended(_FIXED_BYTES)
        raise explain(head, cursor.left, cursor.label)
    cursor.skip(4)
    version = cursor.read_u32()
    if version and version & 0xFFFF == 0:  # llama.cpp's own test for the other byte order
        cursor.use_byte_order("big")
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version == 1:
        raise LegacyGgmlError(
            f"cannot use {cursor.label}: it is of GGUF version 1, which llama.cpp no longer reads",
            hint="get a newer conversion of this model",
        )
    if version == 0:
        raise cursor.blank("it has no version")
    if version not in (2, 3):
        raise cursor.bad(f"its version is {version:,}, and only 2 and 3 are known")
    return version


def _build(values: Values, tensors: Tensors, *, version: int, byte_order: str, alignment: int) -> Header:
    said = values.by_field()
    file_type = said["file_type"]
    return Header(
        version=version,
        byte_order=byte_order,
        parameters=sum(tensors.elements.values()),
        quantization=_quantization(file_type, tensors.main_type),
        tensor_count=tensors.count,
        unknown_types=tensors.unknown_types,
        alignment=alignment,
        data_offset=tensors.data_offset,
        size_needed=tensors.end,
        **said,
    )


def _quantization(file_type: int | None, main_type: str | None) -> str | None:
    """Name the file's recipe; where it does not say (or only guessed), after the type of most weights."""
    name = file_type_name(file_type)
    if name is None or main_type is None or file_type is None or not file_type & GUESSED:
        return name or (canonical(main_type) if main_type else None)
    return canonical(main_type)


def _refuse_useless(header: Header, label: str) -> None:
    """Refuse what is a faultless GGUF and can never be a binary of a model."""
    cause, hint = "", ""
    if header.type == "imatrix":
        cause, hint = "it is an importance matrix, which only serves to quantise", "move it out of the models folder"
    elif not header.architecture and header.split_no == 0:
        cause, hint = "it does not say which architecture it is of", "get another conversion of this model"
    elif header.split_no >= header.split_count:
        cause, hint = (
            f"it says that it is part {header.split_no + 1:,} of {header.split_count:,}",
            "split the model again",
        )
    elif header.tensor_count == 0 and header.split_count == 1:
        cause, hint = "it holds no weights (a bare vocabulary, perhaps)", "move it out of the models folder"
    if cause:
        raise GgufError(f"cannot use {label}: {cause}", hint=hint)
