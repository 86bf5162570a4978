"""The real worker: a real process with llama.cpp in it, asked over its own socket. A tiny model with random weights where only the mechanics count."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import pytest_asyncio

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from jand.errors import StartError
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, said, streamed, user
from tests.fakes.waiting import until
from tests.fakes.workers import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

ROOT = Path(__file__).resolve().parents[2]
PARALLEL = 4
CTX_LEN = 512


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_files.tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")[0]


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> WorkerConfig:
    init = {"ctx_len": CTX_LEN, "n_parallel": PARALLEL, "n_threads": 1}
    return WorkerConfig(model_id="tiny", weights=(str(tiny),), socket=str(tmp_path / "w.sock"), init=init)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    """One tiny worker for all tests that only ask; none of them may stop it."""
    init = {"ctx_len": CTX_LEN, "n_parallel": PARALLEL, "n_threads": 1}
    config = WorkerConfig(
        "tiny", (str(tiny),), str(tmp_path_factory.mktemp("run") / "w.sock"), init=init, runtime={"token_limit": 7}
    )
    async with running(config) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def ask(worker: Worker) -> AsyncIterator[Asker]:
    async with Asker(worker.socket) as asker:
        yield asker


# -- coming up and going down ---------------------------------------------------------------------------------------------


async def test_ready_means_that_a_real_model_answers(tmp_path: Path) -> None:
    progress: list[float] = []
    config = WorkerConfig("smol", (str(gguf_files.smollm2()),), str(tmp_path / "w.sock"), init={"ctx_len": 1024})
    started = await Worker.start(config, on_progress=progress.append)
    try:
        assert stat.S_IMODE(started.socket.stat().st_mode) == 0o600
        async with Asker(started.socket) as asker:
            question = user("What is two plus two? Answer in one word.")
            answer = await asker.ok(CHAT, messages=question, max_tokens=24, temperature=0)
            assert "two plus two" in said(answer).lower()
            again = await asker.stream(CHAT, messages=question, max_tokens=24, temperature=0)
            assert streamed(again) == said(answer)
            text = await asker.ok(TEXT, prompt="Monday, Tuesday, Wednesday, Thursday,", max_tokens=4, temperature=0)
            assert "Friday" in said(text)
    finally:
        note = await started.stop(grace_s=5)
    assert note.code == 0
    assert progress[-1] == 1.0
    assert len(progress) > 5
    assert started.details["template"] == "gguf"
    assert started.details["context"] == 1024
    assert not psutil.pid_exists(started.pid)
    assert not started.socket.exists()


async def test_split_model_is_loaded_whole(tmp_path: Path) -> None:
    parts = gguf_files.tiny_llama(tmp_path / "split.gguf", parts=3)
    started = await Worker.start(WorkerConfig("split", tuple(str(part) for part in parts), str(tmp_path / "w.sock")))
    async with Asker(started.socket) as asker:
        answer = await asker.ok(TEXT, prompt="hello", max_tokens=3)
    assert answer["usage"]["completion_tokens"] <= 3
    await started.stop(grace_s=5)


async def test_file_that_is_no_model_is_a_start_error_with_its_cause(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_bytes(b"<html>" * 1000)
    with pytest.raises(StartError, match=r'cannot start "m": llama.cpp cannot load .*page\.gguf') as caught:
        await Worker.start(WorkerConfig("m", (str(path),), str(tmp_path / "w.sock")))
    assert any("magic" in line for line in caught.value.facts["log"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("init", "runtime", "name"),
    [
        ({"ctx_len": -1}, {}, "ctx_len"),
        ({"n_parallel": 1000}, {}, "n_parallel"),
        ({"cache_type_k": "q9"}, {}, "cache_type_k"),
        ({"cache_type_v": "q8_0", "flash_attn": False}, {}, "cache_type_v"),
        ({"tensor_split": [1, -1]}, {}, "tensor_split"),
        ({}, {"temperature": -3}, "temperature"),
    ],
)
async def test_parameter_that_cannot_be_used_is_named(
    config: WorkerConfig, init: dict[str, Any], runtime: dict[str, Any], name: str
) -> None:
    with pytest.raises(StartError, match=name):
        await Worker.start(replace(config, init=init, runtime=runtime))


async def test_stop_gives_the_memory_back_and_lets_the_answer_end(config: WorkerConfig) -> None:
    started = await Worker.start(config)
    async with Asker(started.socket) as asker:
        asking = asyncio.create_task(asker.ok(TEXT, prompt="hello", max_tokens=300, ignore_eos=True))
        await until(lambda: busy(asker), what="the answer to begin")
        note = await started.stop(grace_s=20)
        answer = await asking
    assert note.code == 0
    assert answer["usage"]["completion_tokens"] == 300
    assert not psutil.pid_exists(started.pid)


async def busy(asker: Asker) -> bool:
    return bool((await asker.get("/health"))["active"])


async def test_request_after_a_stop_began_is_told_so(config: WorkerConfig) -> None:
    started = await Worker.start(replace(config, init={**config.init, "ctx_len": 4096}))
    async with Asker(started.socket) as asker:
        asking = asyncio.create_task(asker.ok(TEXT, prompt="hello", max_tokens=1500, ignore_eos=True))
        await until(lambda: busy(asker))
        stopping = asyncio.create_task(started.stop(grace_s=20))

        async def refused() -> bool:
            status, answer = await asker.post(TEXT, prompt="x", max_tokens=1)
            return status == 503 and answer["error"]["code"] == "shutting-down"

        await until(refused)
        await started.stop(grace_s=0, force=True)
        await stopping
        await asyncio.gather(asking, return_exceptions=True)


DAEMON = """
    import asyncio, json, sys
    from jand.engine.process import Worker
    from jand.engine.protocol import WorkerConfig

    async def main(config, until):
        report = lambda share: print("loading", flush=True)
        worker = await Worker.start(WorkerConfig.parse(config.encode()), on_progress=report)
        print("ready", flush=True)
        await worker.wait()

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("moment", ["loading", "ready", "answering"])
async def test_worker_ends_within_two_seconds_of_a_killed_daemon(moment: str, tmp_path: Path) -> None:
    config = WorkerConfig("smol", (str(gguf_files.smollm2()),), str(tmp_path / "w.sock"), init={"ctx_len": 8192})
    daemon = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DAEMON), config.to_line().decode(), moment],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert daemon.stdout is not None
    with daemon:
        while ("loading" if moment == "loading" else "ready") not in daemon.stdout.readline():
            assert daemon.poll() is None
        (child,) = psutil.Process(daemon.pid).children()
        asking = None
        if moment == "answering":
            asking = subprocess.Popen([sys.executable, "-c", ASK, config.socket], cwd=ROOT)
            await until(lambda: sum(child.cpu_times()[:2]) > 1.0, 20, what="the prompt to be read")
        daemon.kill()
        await until(
            lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 2.0, what="the worker to end"
        )
    if asking is not None:
        asking.wait(5)


ASK = """
import json, socket, sys
body = json.dumps({"prompt": "word " * 7000, "max_tokens": 1000}).encode()
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"POST /v1/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
try:
    s.recv(1)
except OSError:
    pass
"""


def write_adapter(path: Path) -> None:
    """Write a LoRA adapter of random weights for the tiny model."""
    import gguf
    import numpy as np

    dice = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for layer in range(2):
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_a", dice.normal(size=(4, 64)).astype(np.float32))
        writer.add_tensor(f"blk.{layer}.attn_q.weight.lora_b", dice.normal(size=(64, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


async def test_lora_adapters_of_the_json_change_what_is_said(config: WorkerConfig, tmp_path: Path) -> None:
    (path,) = gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    write_adapter(tmp_path / "style.gguf")
    texts = []
    for lora in (None, "style.gguf", [{"path": str(tmp_path / "style.gguf"), "scale": 0}]):
        started = await Worker.start(replace(config, weights=(str(path),), init={**config.init, "lora": lora}))
        async with Asker(started.socket) as asker:
            texts.append(said(await asker.ok(TEXT, prompt="hello", max_tokens=20, temperature=0, ignore_eos=True)))
        await started.stop(grace_s=5)
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize(
    ("name", "cause"),
    [("../style.gguf", "outside"), ("missing.gguf", "no such file"), ("tiny.gguf", "cannot load the LoRA")],
)
async def test_lora_adapter_that_cannot_be_used_is_named(config: WorkerConfig, name: str, cause: str) -> None:
    with pytest.raises(StartError, match=cause):
        await Worker.start(replace(config, init={**config.init, "lora": name}))


async def test_what_this_build_or_model_cannot_honour_is_warned_of(config: WorkerConfig) -> None:
    """The library of the tests is built for the processor alone; a model that is loaded all the same says what had no effect."""
    init = {**config.init, "ngl": 20, "tensor_split": [3, 1], "ctx_len": 4096}
    started = await Worker.start(replace(config, init=init))
    await started.stop(grace_s=5)
    warnings = started.details["warnings"]
    for name in ("ngl", "tensor_split", "ctx_len 4096"):
        assert any(warning.startswith(name) for warning in warnings), warnings


# -- prompts --------------------------------------------------------------------------------------------------------------


async def test_json_prompts_are_used_in_place_of_the_template(config: WorkerConfig) -> None:
    init = {**config.init, "pre_prompt": "A chat.", "user_prompt": "USER: ", "ai_prompt": "ASSISTANT: "}
    started = await Worker.start(replace(config, init=init))
    async with Asker(started.socket) as asker:
        chat = await asker.ok(CHAT, messages=user("hello"), max_tokens=1)
        text = await asker.ok(TEXT, prompt="A chat.\nUSER: hello\nASSISTANT:", max_tokens=1)
    assert chat["usage"]["prompt_tokens"] == text["usage"]["prompt_tokens"]
    assert text["usage"]["prompt_tokens_details"]["cached_tokens"] == text["usage"]["prompt_tokens"] - 1
    assert started.details["template"] == "json"
    await started.stop(grace_s=5)


async def test_model_without_a_template_is_spoken_to_in_chatml(config: WorkerConfig, tmp_path: Path) -> None:
    path = gguf_files.tiny_llama(tmp_path / "bare.gguf", chat_template=None)[0]
    started = await Worker.start(replace(config, weights=(str(path),)))
    async with Asker(started.socket) as asker:
        chat = await asker.ok(CHAT, messages=user("hello"), max_tokens=1)
        text = await asker.ok(TEXT, prompt="<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n", max_tokens=1)
    assert text["usage"]["prompt_tokens_details"]["cached_tokens"] == chat["usage"]["prompt_tokens"] - 1
    assert started.details["template"] == "chatml"
    await started.stop(grace_s=5)


async def test_template_that_tries_to_break_out_is_refused_and_the_worker_lives(
    config: WorkerConfig, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    template = "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    path = gguf_files.tiny_llama(tmp_path / "evil.gguf", chat_template=template)[0]
    started = await Worker.start(replace(config, weights=(str(path),)))
    async with Asker(started.socket) as asker:
        error = await asker.refused(CHAT, messages=user("hello"))
        assert error["code"] == "template-failed"
        assert not mark.exists()
        assert (await asker.ok(TEXT, prompt="hello", max_tokens=1))["object"] == "text_completion"
    await started.stop(grace_s=5)


# -- shapes ---------------------------------------------------------------------------------------------------------------


async def test_chat_completion_has_openais_shape(ask: Asker) -> None:
    answer = await ask.ok(CHAT, model="tiny", messages=user("hello"), max_tokens=5, ignore_eos=True)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    assert answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert (choice["index"], choice["message"]["role"], choice["finish_reason"]) == (0, "assistant", "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


async def test_stream_has_role_text_finish_usage_and_done(ask: Asker) -> None:
    events = await ask.stream(
        CHAT, messages=user("hello"), max_tokens=5, ignore_eos=True, stream_options={"include_usage": True}
    )
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]][-1] == "length"
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 5
    assert len({event["id"] for event in events}) == 1
    assert not any("usage" in event for event in await ask.stream(CHAT, messages=user("hello"), max_tokens=2))


async def test_completion_streams_and_answers_alike(ask: Asker) -> None:
    wanted = {"prompt": "hello world", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    whole = await ask.ok(TEXT, **wanted)
    assert whole["object"] == "text_completion"
    assert streamed(await ask.stream(TEXT, **wanted)) == said(whole)


async def test_several_choices_and_prompts_are_numbered(ask: Asker) -> None:
    answer = await ask.ok(TEXT, prompt=["hello", "world"], n=2, max_tokens=3, seed=1)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    events = await ask.stream(CHAT, messages=user("hello"), n=3, max_tokens=4, ignore_eos=True)
    finished = sorted(choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"])
    assert finished == [0, 1, 2]


async def test_tokens_are_a_prompt_too(ask: Asker) -> None:
    answer = await ask.ok(TEXT, prompt=[1, 5, 6], max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == 3
    error = await ask.refused(TEXT, prompt=[1, 10**6], max_tokens=1)
    assert "outside the vocabulary" in error["message"]


async def test_logprobs_are_log_probabilities_of_the_chosen_tokens(ask: Asker) -> None:
    answer = await ask.ok(
        CHAT, messages=user("hello"), max_tokens=4, temperature=0, logprobs=True, top_logprobs=3, ignore_eos=True
    )
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 4
    for entry in content:
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] == max(top["logprob"] for top in entry["top_logprobs"])
    assert said(answer) == b"".join(bytes(entry["bytes"]) for entry in content).decode("utf-8", "replace")


async def test_seed_makes_answers_repeat(ask: Asker) -> None:
    wanted = {"prompt": "hello", "max_tokens": 12, "temperature": 1.5, "top_k": 0, "seed": 42, "ignore_eos": True}
    assert said(await ask.ok(TEXT, **wanted)) == said(await ask.ok(TEXT, **wanted))
    assert said(await ask.ok(TEXT, **wanted)) != said(await ask.ok(TEXT, **{**wanted, "seed": 43}))


async def test_character_that_the_limit_cuts_off_is_left_out(ask: Asker) -> None:
    """The tiny model has a token for each byte, so every limit cuts somewhere else."""
    text = "é€😀a"
    for count in range(1, len(text.encode()) + 1):
        wanted = {"prompt": "x", "grammar": f'root ::= "{text}"', "max_tokens": count}
        whole = text.encode()[:count].decode("utf-8", "ignore")
        answer = await ask.ok(TEXT, **wanted)
        assert said(answer) == whole == streamed(await ask.stream(TEXT, **wanted))
        assert answer["usage"]["completion_tokens"] == count


# -- limits and refusals --------------------------------------------------------------------------------------------------


async def test_runtime_defaults_fill_what_a_request_leaves_out(ask: Asker) -> None:
    answer = await ask.ok(TEXT, prompt="hello", ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 7
    answer = await ask.ok(CHAT, messages=user("hello"), max_completion_tokens=2, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 2


async def test_answer_ends_where_the_context_is_full(ask: Asker) -> None:
    answer = await ask.ok(TEXT, prompt=[1] + [5] * 499, max_tokens=-1, ignore_eos=True)
    assert answer["usage"]["total_tokens"] == CTX_LEN
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_prompt_longer_than_the_context_is_refused_with_both_numbers(ask: Asker) -> None:
    error = await ask.refused(TEXT, prompt=[5] * 600)
    assert error["code"] == "context-length-exceeded"
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (600, CTX_LEN)


async def test_stop_string_ends_the_answer_and_does_not_appear(ask: Asker) -> None:
    wanted = {"prompt": "hello", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    free = said(await ask.ok(TEXT, **wanted))
    stop = free[6:9]
    for shown in (await ask.ok(TEXT, **wanted, stop=stop), await ask.ok(TEXT, **wanted, stop=["not in there", stop])):
        assert said(shown) == free[: free.index(stop)]
        assert shown["choices"][0]["finish_reason"] == "stop"
    events = await ask.stream(TEXT, **wanted, stop=stop)
    assert streamed(events) == free[: free.index(stop)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", "warm"),
        ("top_p", 2),
        ("top_k", -7),
        ("min_p", 1.5),
        ("repeat_penalty", 0),
        ("n", 0),
        ("n", 1000),
        ("max_tokens", -5),
        ("seed", "x"),
        ("mirostat", 3),
        ("stop", [1]),
        ("logit_bias", {"99999999": 1}),
        ("logit_bias", {"5": "much"}),
        ("grammar", "root ::= ("),
        ("samplers", ["top_k"]),
        ("lora", [{"id": 0, "scale": 1}]),
        ("best_of", 3),
        ("suffix", "end"),
        ("echo", True),
        ("dry_base", 1e400),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(ask: Asker, field: str, value: object) -> None:
    status, answer = await ask.raw(TEXT, json.dumps({"prompt": "hello", "max_tokens": 2, field: value}).encode())
    assert status == 400, answer
    assert answer["error"]["param"] == field
    assert answer["error"]["type"] == "invalid_request_error"


async def test_unknown_fields_are_ignored_and_logged(worker: Worker, ask: Asker) -> None:
    await ask.ok(TEXT, prompt="hello", max_tokens=1, frobnicate=True)
    await until(lambda: any("frobnicate" in line for line in worker.last_lines()))


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
async def test_body_that_is_no_object_is_refused(ask: Asker, data: bytes) -> None:
    status, answer = await ask.raw(CHAT, data)
    assert status == 400
    assert answer["error"]["code"] == "bad-json"


async def test_image_for_a_model_that_reads_text_is_refused(ask: Asker) -> None:
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    error = await ask.refused(CHAT, messages=[{"role": "user", "content": parts}])
    assert error["param"] == "messages"


async def test_text_parts_are_joined(ask: Asker) -> None:
    parts = [{"type": "text", "text": "hello"}, {"type": "text", "text": "world"}]
    split = await ask.ok(CHAT, messages=[{"role": "user", "content": parts}], max_tokens=1)
    whole = await ask.ok(CHAT, messages=user("hello\nworld"), max_tokens=1)
    assert split["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


# -- many at once ---------------------------------------------------------------------------------------------------------


async def test_greedy_answers_do_not_depend_on_what_runs_beside_them(ask: Asker) -> None:
    """More conversations than slots, of different lengths: each gets what it gets alone (near-ties aside, which random weights do not have)."""
    prompts = ["hello " * (1 + 7 * number) + str(number) for number in range(10)]

    async def one(prompt: str) -> str:
        return said(
            await ask.ok(TEXT, prompt=prompt, max_tokens=30, temperature=0, ignore_eos=True, cache_prompt=False)
        )

    alone = [await one(prompt) for prompt in prompts]
    assert len(set(alone)) > 5
    together = await asyncio.gather(*(one(prompt) for prompt in prompts))
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 9


async def test_all_conversations_may_fill_their_contexts_at_once(ask: Asker) -> None:
    """The room was taken when they were let in, so that none fails for the others' sake, whatever is still kept of earlier ones."""
    prompts = [[1, *(3 + (number * 7 + at) % 250 for at in range(419))] for number in range(2 * PARALLEL)]
    answers = await asyncio.gather(*(ask.ok(TEXT, prompt=prompt, max_tokens=-1, ignore_eos=True) for prompt in prompts))
    assert [answer["usage"]["total_tokens"] for answer in answers] == [CTX_LEN] * len(prompts)


async def test_prefix_of_a_conversation_is_not_read_again(ask: Asker) -> None:
    prompt = [1, *range(10, 210)]
    first = await ask.ok(TEXT, prompt=prompt, max_tokens=5, temperature=0, ignore_eos=True)
    second = await ask.ok(TEXT, prompt=[*prompt, 8, 9], max_tokens=5, temperature=0, ignore_eos=True)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt)
    again = await ask.ok(TEXT, prompt=prompt, max_tokens=5, temperature=0, ignore_eos=True)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt) - 1
    assert said(again) == said(first)


async def test_prompt_of_several_choices_is_read_once(ask: Asker) -> None:
    prompt = [1, *([9, 8, 7, 6] * 60)]
    before = await metric(ask, "prompt_tokens_total")
    answer = await ask.ok(TEXT, prompt=prompt, n=4, max_tokens=20, temperature=0, ignore_eos=True)
    assert len({choice["text"] for choice in answer["choices"]}) == 1
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["usage"]["completion_tokens"] == 80
    assert await metric(ask, "prompt_tokens_total") - before <= len(prompt) + 3
    again = await ask.ok(TEXT, prompt=prompt, max_tokens=20, temperature=0, ignore_eos=True, cache_prompt=False)
    assert said(again) == said(answer)


async def test_prefix_that_another_conversation_holds_is_shared(ask: Asker) -> None:
    """Four conversations that begin alike and end differently: what they share is read once, and each goes on as it would alone."""
    shared = [1, *([12, 13, 14] * 70)]
    prompts = [[*shared, 20 + number, 40 + number] for number in range(4)]
    answers = await asyncio.gather(
        *(ask.ok(TEXT, prompt=each, max_tokens=12, temperature=0, ignore_eos=True) for each in prompts)
    )
    assert sum(answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in answers) >= 3 * len(shared) - 4
    for prompt, answer in zip(prompts, answers, strict=True):
        alone = await ask.ok(TEXT, prompt=prompt, max_tokens=12, temperature=0, ignore_eos=True, cache_prompt=False)
        assert said(alone) == said(answer)


async def test_client_that_leaves_ends_its_generation(config: WorkerConfig) -> None:
    """The answer would take minutes; the slot is free at once."""
    started = await Worker.start(replace(config, init={**config.init, "n_parallel": 1, "ctx_len": 1 << 17}))
    async with Asker(started.socket) as ask:
        leaving = Asker(started.socket)
        events = leaving.events(TEXT, prompt="hello", ignore_eos=True)
        await anext(events)
        assert await busy(ask)
        await leaving.__aexit__()
        await until(lambda: idle(ask), what="the slot to be free")
        assert await cancelled(ask) == 1
    await started.stop(grace_s=5)


async def test_client_that_leaves_while_it_waits_costs_nothing(worker: Worker, ask: Asker) -> None:
    before = await cancelled(ask)
    running = [
        asyncio.create_task(ask.ok(TEXT, prompt=f"{number}", max_tokens=400, ignore_eos=True))
        for number in range(PARALLEL)
    ]
    await until(lambda: busy(ask))
    leaving = Asker(worker.socket)
    waiting = asyncio.create_task(leaving.ok(TEXT, prompt="never", max_tokens=400, ignore_eos=True))
    await until(lambda: queued(ask), what="the request to wait")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await leaving.__aexit__()
    await asyncio.gather(*running)
    await until(lambda: idle(ask))

    async def is_counted() -> bool:
        return await cancelled(ask) == before + 1

    await until(is_counted, what="the request that left to be counted")


async def idle(ask: Asker) -> bool:
    return not (await ask.get("/health"))["active"]


async def queued(ask: Asker) -> bool:
    return bool((await ask.get("/health"))["queued"])


async def cancelled(ask: Asker) -> int:
    return await metric(ask, "requests_cancelled_total")


async def metric(ask: Asker, name: str) -> int:
    (line,) = [line for line in (await ask.text("/metrics")).splitlines() if line.startswith(f"jand_{name} ")]
    return int(float(line.split()[1]))


async def test_queue_is_bounded(ask: Asker) -> None:
    async def one() -> int:
        status, answer = await ask.post(TEXT, prompt="hello", max_tokens=60, ignore_eos=True)
        if status != 200:
            assert answer["error"]["code"] == "queue-full"
        return status

    statuses = await asyncio.gather(*(one() for _ in range(300)))
    assert set(statuses) == {200, 429}
    assert statuses.count(429) < 60


# -- vectors --------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def embedding(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    """Start a chat model with `embedding: true`: it does both."""
    init = {"ctx_len": CTX_LEN, "n_parallel": 2, "n_threads": 1, "embedding": True}
    config = WorkerConfig("tiny", (str(tiny),), str(tmp_path_factory.mktemp("run") / "w.sock"), init=init)
    async with running(config) as started, Asker(started.socket) as asker:
        yield asker


EMBED = "/v1/embeddings"


def vectors(answer: dict[str, Any]) -> list[list[float]]:
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return [entry["embedding"] for entry in answer["data"]]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_vectors_have_length_one_and_do_not_depend_on_their_batch(embedding: Asker) -> None:
    """Inputs of unequal length in one batch: the trap in which pooling is silently wrong."""
    texts = ["hello " * (1 + 11 * number) + "world" for number in range(12)]
    together = vectors(await embedding.ok(EMBED, input=texts))
    alone = [vectors(await embedding.ok(EMBED, input=text))[0] for text in texts]
    for one, other in zip(alone, together, strict=True):
        assert cosine(one, one) == pytest.approx(1, abs=1e-4)
        assert cosine(one, other) > 0.9999
    assert cosine(alone[0], alone[-1]) < 0.9999


async def test_embedding_model_chats_as_well_and_at_the_same_time(embedding: Asker) -> None:
    chat, vector = await asyncio.gather(
        embedding.ok(CHAT, messages=user("hello"), max_tokens=30, ignore_eos=True), embedding.ok(EMBED, input="hello")
    )
    assert chat["usage"]["completion_tokens"] == 30
    assert len(vectors(vector)) == 1


async def test_dimensions_base64_and_tokens(embedding: Asker) -> None:
    whole = vectors(await embedding.ok(EMBED, input="hello world"))[0]
    short = vectors(await embedding.ok(EMBED, input="hello world", dimensions=8))[0]
    assert len(short) == 8
    assert cosine(short, short) == pytest.approx(1, abs=1e-4)
    encoded = vectors(await embedding.ok(EMBED, input="hello world", encoding_format="base64"))[0]
    assert list(struct.unpack(f"<{len(whole)}f", base64.b64decode(str(encoded)))) == pytest.approx(whole, abs=1e-6)
    answer = await embedding.ok(EMBED, input=[[1, 5, 6], [1, 7]])
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, None),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [[1], "x", 3.5]}, "input"),
        ({"input": "x", "dimensions": 10**6}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": [10**7]}, "input"),
        ({"input": [5] * 5000}, "input"),
        ({}, "input"),
    ],
)
async def test_input_that_cannot_be_embedded_is_refused(
    embedding: Asker, body: dict[str, Any], param: str | None
) -> None:
    status, answer = await embedding.post(EMBED, **body)
    if param is None:  # a model that begins every text with a token has one even for the empty text
        assert status == 200
        return
    assert status == 400
    assert answer["error"]["param"] == param


async def test_model_that_was_not_started_for_vectors_says_how_it_would_be(ask: Asker) -> None:
    error = await ask.refused(EMBED, input="hello")
    assert "parameters.init.embedding" in error["message"]
