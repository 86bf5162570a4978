"""Tiny models of random weights whose memory is not a Llama's: one with a sliding window (Gemma 3), one that is recurrent (Mamba)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.fakes.gguf_files import TEMPLATE, add_vocabulary, finish

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from gguf import GGUFWriter
    from numpy.random import Generator

WINDOW: Final = 32
_WORDS: Final = ("\u2581the", "\u2581a", "\u2581hello", "ing")


class _Weights:
    """Adds tensors of random values: around *centre*, and no further than the activations bear."""

    def __init__(self, writer: GGUFWriter, dice: Generator) -> None:
        self._writer = writer
        self._dice = dice

    def add(self, name: str, *shape: int, centre: float = 0.0, spread: float = 0.1) -> None:
        import numpy as np

        values: npt.NDArray[np.float32] = self._dice.normal(centre, spread, shape).astype(np.float32)
        self._writer.add_tensor(name, values)


def tiny_gemma(path: Path, *, seed: int = 0, context_length: int = 512) -> Path:
    """Write a Gemma 3 of 7 layers, of which every sixth sees everything and the others only the last `WINDOW` tokens."""
    import gguf
    import numpy as np

    width, heads, inner, layers = 64, 4, 128, 7
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_name("Tiny Gemma")
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_key_length(width // heads)
    writer.add_value_length(width // heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(WINDOW)
    tokens = add_vocabulary(writer, _WORDS)
    writer.add_chat_template(TEMPLATE)
    weights = _Weights(writer, np.random.default_rng(seed))
    weights.add("token_embd.weight", tokens, width)
    weights.add("output_norm.weight", width, centre=1)
    head = width // heads
    for layer in range(layers):
        block = f"blk.{layer}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            weights.add(f"{block}{norm}.weight", width, centre=1)
        weights.add(block + "attn_q.weight", width, width)
        weights.add(block + "attn_k.weight", head, width)
        weights.add(block + "attn_v.weight", head, width)
        weights.add(block + "attn_output.weight", width, width)
        weights.add(block + "attn_q_norm.weight", head, centre=1)
        weights.add(block + "attn_k_norm.weight", head, centre=1)
        weights.add(block + "ffn_gate.weight", inner, width)
        weights.add(block + "ffn_up.weight", inner, width)
        weights.add(block + "ffn_down.weight", width, inner)
    finish(writer)
    return path


def tiny_mamba(path: Path, *, seed: int = 0, context_length: int = 512) -> Path:
    """Write a Mamba of 2 layers: its memory is a state that takes nothing back."""
    import gguf
    import numpy as np

    width, layers, conv, state, rank = 64, 2, 4, 16, 4
    inner = 2 * width
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_name("Tiny Mamba")
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(context_length)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = add_vocabulary(writer, _WORDS)
    writer.add_chat_template(TEMPLATE)
    weights = _Weights(writer, np.random.default_rng(seed))
    weights.add("token_embd.weight", tokens, width)
    weights.add("output_norm.weight", width, centre=1)
    for layer in range(layers):
        block = f"blk.{layer}."
        weights.add(block + "attn_norm.weight", width, centre=1)
        weights.add(block + "ssm_in.weight", 2 * inner, width)
        weights.add(block + "ssm_conv1d.weight", inner, conv, spread=0.5)
        weights.add(block + "ssm_conv1d.bias", inner)
        weights.add(block + "ssm_x.weight", rank + 2 * state, inner)
        weights.add(block + "ssm_dt.weight", inner, rank)
        weights.add(block + "ssm_dt.bias", inner)
        weights.add(block + "ssm_a", inner, state, centre=-1)  # a state that would grow for ever has a positive one
        weights.add(block + "ssm_d", inner, centre=1)
        weights.add(block + "ssm_out.weight", width, inner)
    finish(writer)
    return path
