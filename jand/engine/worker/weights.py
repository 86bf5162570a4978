"""A model in memory: loading with progress, what it says of itself, and its vocabulary. Its text functions may be called from any thread."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jand.engine.worker.llama import lib
from jand.errors import StartError
from jand.errors.scarcity import or_raise_the_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jand.engine.worker.options import Options

_PROGRESS_STEP: Final = 0.01
_PIECE_BYTES: Final = 256
NO_TOKEN: Final = -1


@dataclass(frozen=True, slots=True)
class Facts:
    """What a loaded model says of itself."""

    description: str
    size: int
    parameters: int
    n_ctx_train: int
    n_embd: int
    n_vocab: int
    n_swa: int
    recurrent: bool
    has_encoder: bool
    has_decoder: bool
    chat_template: str | None
    architecture: str
    pooling: int | None
    """The pooling that the model's file names, by llama.cpp's numbers."""
    causal: bool
    """False for an encoder: it makes vectors and no text."""


class Weights:
    """Owns a `llama_model`."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.vocab = lib.llama_model_get_vocab(handle)
        self.facts = _read_facts(handle, self.vocab)
        self.bos = int(lib.llama_vocab_bos(self.vocab))
        self.eos = int(lib.llama_vocab_eos(self.vocab))
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(self.vocab))
        self.suppressed = _suppressed_tokens(self.vocab)
        self._said: dict[int, tuple[bool, bytes]] = {}
        self._end_tokens: frozenset[int] | None = None

    def load_adapter(self, path: Path) -> Any:
        """Load a LoRA adapter for this model; it is kept as long as the model."""
        adapter = lib.llama_adapter_lora_init(self.handle, os.fsencode(path))
        if not adapter:
            raise StartError(f"llama.cpp cannot load the LoRA adapter {path}", param="lora", reason="lora-failed")
        return adapter

    def tokenize(self, text: str, *, special: bool, add_special: bool) -> list[int]:
        """Return the tokens of *text*; *special* reads control tokens in it as such, *add_special* puts what the model begins with before it."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (ctypes.c_int32 * room)()
        count = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, special)
        if count < 0:
            room = -count
            tokens = (ctypes.c_int32 * room)()
            count = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, special)
        return tokens[: max(0, count)]

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes of *token*, which may be part of a character; a control token has none unless *special*."""
        room = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = lib.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def text(self, tokens: Sequence[int], *, special: bool = False) -> str:
        return b"".join(self.piece(token, special=special) for token in tokens).decode("utf-8", "replace")

    def said_by(self, token: int) -> tuple[bool, bytes]:
        """Return whether *token* ends an answer, and its bytes; from memory where it was said before, as most are soon."""
        if (known := self._said.get(token)) is None:
            known = self._said[token] = self.ends(token), self.piece(token)
        return known

    def ends(self, token: int) -> bool:
        """Whether *token* ends an answer."""
        return bool(lib.llama_vocab_is_eog(self.vocab, token))

    def end_tokens(self) -> frozenset[int]:
        """Return all tokens that end an answer; the first call looks at the whole vocabulary."""
        if self._end_tokens is None:
            self._end_tokens = frozenset(token for token in range(self.facts.n_vocab) if self.ends(token))
        return self._end_tokens

    def starts_with_bos(self, text: str) -> bool:
        """Whether a prompt already begins with the token that the model puts before every text."""
        return (
            self.bos != NO_TOKEN
            and bool(beginning := self.text([self.bos], special=True))
            and text.startswith(beginning)
        )


def load(paths: Sequence[str], options: Options, on_progress: Callable[[float], bool]) -> Weights:
    """Read the weights; *on_progress* gets a share of 1 every now and then and ends the load by returning false. Blocks without the GIL."""
    reported = -1.0

    def progress(share: float, _: object) -> bool:
        nonlocal reported
        if share - reported >= _PROGRESS_STEP or share >= 1.0 > reported:
            reported = share
            return on_progress(share)
        return True

    parameters = lib.llama_model_default_params()
    callback = lib.llama_progress_callback(progress)
    parameters.progress_callback = callback
    parameters.n_gpu_layers = options.ngl
    parameters.use_extra_bufts = options.use_extra_bufts
    if options.tensor_split:
        shares = (ctypes.c_float * lib.llama_max_devices())(*options.tensor_split[: lib.llama_max_devices()])
        parameters.tensor_split = shares
    if len(paths) == 1:
        handle = lib.llama_model_load_from_file(os.fsencode(paths[0]), parameters)
    else:
        names = (ctypes.c_char_p * len(paths))(*(os.fsencode(path) for path in paths))
        handle = lib.llama_model_load_from_splits(names, len(paths), parameters)
    if not handle:
        raise StartError(
            f"llama.cpp cannot load {paths[0]}",
            hint=f"the last lines of the worker's log say why{or_raise_the_limit()}",
            reason="load-failed",
        )
    return Weights(handle)


def _read_facts(handle: Any, vocab: Any) -> Facts:
    buffer = ctypes.create_string_buffer(256)
    lib.llama_model_desc(handle, buffer, len(buffer))
    template = lib.llama_model_chat_template(handle, None)
    architecture = _metadata(handle, "general.architecture")
    pooling = _metadata(handle, f"{architecture}.pooling_type")
    return Facts(
        description=buffer.value.decode("utf-8", "replace"),
        size=int(lib.llama_model_size(handle)),
        parameters=int(lib.llama_model_n_params(handle)),
        n_ctx_train=int(lib.llama_model_n_ctx_train(handle)),
        n_embd=int(lib.llama_model_n_embd_out(handle)),
        n_vocab=int(lib.llama_vocab_n_tokens(vocab)),
        n_swa=int(lib.llama_model_n_swa(handle)),
        recurrent=bool(lib.llama_model_is_recurrent(handle) or lib.llama_model_is_hybrid(handle)),
        has_encoder=bool(lib.llama_model_has_encoder(handle)),
        has_decoder=bool(lib.llama_model_has_decoder(handle)),
        chat_template=template.decode("utf-8", "replace") if template else None,
        architecture=architecture,
        pooling=int(pooling) if pooling.isdecimal() else None,
        causal=_metadata(handle, f"{architecture}.attention.causal") != "false",
    )


def _metadata(handle: Any, key: str) -> str:
    """Return a value of the file's metadata as text, "" where it has none."""
    buffer = ctypes.create_string_buffer(256)
    count = lib.llama_model_meta_val_str(handle, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if count >= 0 else ""


def _suppressed_tokens(vocab: Any) -> tuple[int, ...]:
    count = ctypes.c_int32(0)
    tokens = lib.llama_vocab_get_suppress_tokens(vocab, ctypes.byref(count))
    return tuple(tokens[: count.value]) if tokens and count.value > 0 else ()
