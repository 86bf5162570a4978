"""The small models that other tests rely on are real: llama.cpp itself loads and runs them, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.gguf_files import bare_header, projector, tiny_llama

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
import json, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False)
said = model.create_completion("hello w\\u00f6rld", max_tokens=5, temperature=0)
chat = model.create_chat_completion([{"role": "user", "content": "hi"}], max_tokens=4)
print(json.dumps([said["usage"]["completion_tokens"], chat["usage"]["completion_tokens"], model.tokenize(b"the model")]))
"""

SEE = """
import ctypes, json, sys
import llama_cpp
from llama_cpp import mtmd_cpp as mtmd
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False)
parameters = mtmd.mtmd_context_params_default()
parameters.use_gpu = False
parameters.n_threads = 1
context = mtmd.mtmd_init_from_file(sys.argv[2].encode(), model.model, parameters)
prompt = b"see " + mtmd.mtmd_default_marker()
question = mtmd.mtmd_input_text(prompt, len(prompt), True, True)
picture = (ctypes.c_uint8 * (40 * 30 * 3))(*range(256))
bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(mtmd.mtmd_bitmap_init(40, 30, picture))
chunks = mtmd.mtmd_input_chunks_init()
status = mtmd.mtmd_tokenize(context, chunks, ctypes.byref(question), bitmaps, 1)
pieces = [mtmd.mtmd_input_chunks_get(chunks, at) for at in range(mtmd.mtmd_input_chunks_size(chunks))]
image = next(each for each in pieces if mtmd.mtmd_input_chunk_get_type(each) == 1)
encoded = mtmd.mtmd_encode_chunk(context, image)
embeddings = mtmd.mtmd_get_output_embd(context)
print(json.dumps([status, mtmd.mtmd_input_chunk_get_n_tokens(image), encoded, embeddings[0] == embeddings[0]]))
"""


def in_a_child(script: str, *arguments: Path) -> list[Any]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    child = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert child.returncode == 0, child.stderr.decode(errors="replace")[-2000:]
    answer: list[Any] = json.loads(child.stdout)
    return answer


@pytest.mark.timeout(60)
@pytest.mark.parametrize("parts", [1, 3])
def test_a_tiny_llama_loads_and_generates(tmp_path: Path, parts: int) -> None:
    """Whole or in parts, it knows its words as single tokens."""
    first = tiny_llama(tmp_path / "tiny.gguf", parts=parts)[0]
    completed, answered, tokens = in_a_child(RUN, first)
    assert completed > 0
    assert answered > 0
    assert len(tokens) == 3


@pytest.mark.timeout(60)
def test_a_tiny_projector_turns_a_picture_into_embeddings(tmp_path: Path) -> None:
    (model,) = tiny_llama(tmp_path / "tiny.gguf")
    assert in_a_child(SEE, model, projector(tmp_path / "mmproj-tiny.gguf")) == [0, 4, 0, True]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path: Path) -> None:
    one, two, three = (
        tiny_llama(tmp_path / f"{n}.gguf", seed=seed)[0].read_bytes() for n, seed in enumerate((5, 5, 6))
    )
    assert one == two != three


def test_bare_headers_are_written_by_the_thousand(tmp_path: Path) -> None:
    begun = time.thread_time()
    for number in range(1_000):
        bare_header(tmp_path / f"{number}.gguf")
    assert time.thread_time() - begun < 2
