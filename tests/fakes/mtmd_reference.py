"""What llama.cpp's own helper makes of a prompt with images, in a process of its own: `python -m tests.fakes.mtmd_reference` with JSON on standard input.

Takes `{"weights", "projector", "prompt", "images", "tokens"}`, the prompt having `<__media__>` where an image (an RGB file of Pillow's reading) stands. Prints
`{"prompt_tokens", "text"}`: how many tokens it has and the likeliest next ones.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import sys
from typing import Any

import numpy as np
from PIL import Image

from jand.engine.worker import llama


def main() -> None:
    given = json.load(sys.stdin)
    lib, mtmd = llama.lib, llama.mtmd()
    llama.prepare()
    model = lib.llama_model_load_from_file(given["weights"].encode(), lib.llama_model_default_params())
    parameters = mtmd.mtmd_context_params_default()
    parameters.n_threads = 1
    seeing = mtmd.mtmd_init_from_file(given["projector"].encode(), model, parameters)
    how = lib.llama_context_default_params()
    how.n_ctx, how.n_threads, how.n_threads_batch = 512, 1, 1
    context = lib.llama_init_from_model(model, how)
    chunks = _chunks(mtmd, seeing, given)
    past = lib.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(seeing, context, chunks, 0, 0, 64, True, ctypes.byref(past)) == 0
    text = _generate(lib, model, context, past.value, given["tokens"])
    json.dump({"prompt_tokens": mtmd.mtmd_helper_get_n_tokens(chunks), "text": text}, sys.stdout)


def _chunks(mtmd: Any, seeing: Any, given: dict[str, Any]) -> Any:
    bitmaps = []
    for path in given["images"]:
        pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.uint8)
        data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmaps.append(mtmd.mtmd_bitmap_init(pixels.shape[1], pixels.shape[0], data))
    chunks = mtmd.mtmd_input_chunks_init()
    prompt = given["prompt"].encode()
    text = mtmd.mtmd_input_text(prompt, len(prompt), True, True)
    array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
    assert mtmd.mtmd_tokenize(seeing, chunks, ctypes.byref(text), array, len(bitmaps)) == 0
    return chunks


def _generate(lib: Any, model: Any, context: Any, position: int, count: int) -> str:
    vocab = lib.llama_model_get_vocab(model)
    size = lib.llama_vocab_n_tokens(vocab)
    batch = lib.llama_batch_init(1, 0, 1)
    said = b""
    for _ in range(count):
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (size,)).copy()
        logits[lib.llama_vocab_eos(vocab)] = -np.inf
        token = int(logits.argmax())
        buffer = ctypes.create_string_buffer(64)
        length = lib.llama_token_to_piece(vocab, token, buffer, 64, 0, False)
        said += buffer.raw[:length]
        batch.n_tokens, batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = 1, token, position, 1, 1
        batch.seq_id[0][0] = 0
        assert lib.llama_decode(context, batch) == 0
        position += 1
    return codecs.getincrementaldecoder("utf-8")("replace").decode(said)  # without a character that is not whole


if __name__ == "__main__":
    main()
