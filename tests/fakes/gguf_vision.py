"""Tiny models that see, with random weights, one for each way in which llama.cpp puts a picture among tokens.

`tiny_llama` with `projector` (LLaVA) gives each picture the same number of tokens, one position each. Qwen2-VL's number depends on the picture's size and its positions
are a grid (M-RoPE); Gemma 3's tokens look at one another both ways. Names of keys and tensors are those of llama.cpp's loaders (src/models, tools/mtmd/clip.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes import gguf_files, gguf_memories

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGUFWriter
    from numpy.random import Generator

WIDTH = 64
HEADS = 4
INNER = 128
LAYERS = 2
SEEN_WIDTH = 32
PATCH = 14


def tiny_qwen2vl(folder: Path, *, seed: int = 4) -> tuple[Path, Path]:
    """Write weights and projector into *folder*: a picture has a token for each 28 x 28 pixels, at least 8."""
    import gguf
    import numpy as np

    path = folder / "tiny-qwen2vl.gguf"
    writer = gguf.GGUFWriter(path, "qwen2vl")
    tokens = _head(writer, "Tiny Qwen2-VL")
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    dice = np.random.default_rng(seed)
    gguf_files.add_llama_weights(writer, dice, tokens, kv_heads=HEADS, biases=True)
    gguf_files.finish(writer)
    seeing = _projector_head(folder / "mmproj-qwen2vl.gguf", "qwen2vl_merger", 2 * PATCH)
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        gguf_files.add(seeing, dice, name, SEEN_WIDTH, 3, PATCH, PATCH)
    _add_encoder(seeing, dice)
    for name, rows, columns in (("mm.0", 4 * SEEN_WIDTH, 4 * SEEN_WIDTH), ("mm.2", WIDTH, 4 * SEEN_WIDTH)):
        gguf_files.add(seeing, dice, f"{name}.weight", rows, columns)
        gguf_files.add(seeing, dice, f"{name}.bias", rows)
    gguf_files.finish(seeing)
    return path, folder / "mmproj-qwen2vl.gguf"


def tiny_gemma3(folder: Path, *, seed: int = 1) -> tuple[Path, Path]:
    """Write weights and projector into *folder*: every picture has 4 tokens, which must be decoded at once. Most layers see the last 32 tokens only."""
    import numpy as np

    path = gguf_memories.tiny_gemma(folder / "tiny-gemma3.gguf", seed=seed)
    dice = np.random.default_rng(seed)
    seeing = _projector_head(folder / "mmproj-gemma3.gguf", "gemma3", 4 * PATCH)
    seeing.add_uint32("clip.vision.projector.scale_factor", 2)
    gguf_files.add(seeing, dice, "v.patch_embd.weight", SEEN_WIDTH, 3, PATCH, PATCH)
    gguf_files.add(seeing, dice, "v.position_embd.weight", 16, SEEN_WIDTH)
    _add_encoder(seeing, dice)
    gguf_files.add(seeing, dice, "mm.input_projection.weight", SEEN_WIDTH, WIDTH)
    gguf_files.add(seeing, dice, "mm.soft_emb_norm.weight", SEEN_WIDTH)
    gguf_files.finish(seeing)
    return path, folder / "mmproj-gemma3.gguf"


def _head(writer: GGUFWriter, name: str) -> int:
    writer.add_name(name)
    writer.add_type("model")
    writer.add_context_length(2048)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    tokens = gguf_files.add_vocabulary(writer)
    writer.add_chat_template(gguf_files.TEMPLATE)
    return tokens


def _projector_head(path: Path, kind: str, size: int) -> GGUFWriter:
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name("Tiny projector")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.image_size", size)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_uint32("clip.vision.embedding_length", SEEN_WIDTH)
    writer.add_uint32("clip.vision.feed_forward_length", INNER)
    writer.add_uint32("clip.vision.block_count", LAYERS)
    writer.add_uint32("clip.vision.attention.head_count", 2)
    writer.add_uint32("clip.vision.projection_dim", WIDTH)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    return writer


def _add_encoder(writer: GGUFWriter, dice: Generator) -> None:
    def linear(name: str, rows: int, columns: int) -> None:
        gguf_files.add(writer, dice, f"{name}.weight", rows, columns)
        gguf_files.add(writer, dice, f"{name}.bias", rows)

    for name in ("v.post_ln", *(f"v.blk.{layer}.{part}" for layer in range(LAYERS) for part in ("ln1", "ln2"))):
        gguf_files.add(writer, dice, f"{name}.weight", SEEN_WIDTH)
        gguf_files.add(writer, dice, f"{name}.bias", SEEN_WIDTH)
    for layer in range(LAYERS):
        block = f"v.blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(block + part, SEEN_WIDTH, SEEN_WIDTH)
        linear(block + "ffn_up", INNER, SEEN_WIDTH)
        linear(block + "ffn_down", SEEN_WIDTH, INNER)
