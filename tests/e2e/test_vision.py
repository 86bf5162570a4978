"""Models that see, through the real worker and a real daemon: random weights, but every step from the bytes of an image to a token is llama.cpp's own."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from PIL import Image

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from jand.errors import StartError
from tests.fakes import gguf_files, gguf_vision
from tests.fakes.asking import CHAT, TEXT, Asker, said, streamed, user
from tests.fakes.daemon import DaemonProcess
from tests.fakes.drawing import data_uri, draw, shown
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

ROOT = Path(__file__).resolve().parents[2]
EACH = 4
"""Tokens of an image of the LLaVA-like model."""
GREEDY = {"temperature": 0, "ignore_eos": True}
RED, BLUE, LONG = draw(50, 70, seed=1), draw(64, 64, seed=2), draw(300, 40, seed=3)


def llava(folder: Path) -> tuple[Path, Path]:
    (weights,) = gguf_files.tiny_llama(folder / "llava.gguf")
    return weights, gguf_files.projector(folder / "mmproj.gguf")


async def start(files: tuple[Path, Path], run: Path, **init: Any) -> Worker:
    config = WorkerConfig(
        "seeing",
        (str(files[0]),),
        str(run / "w.sock"),
        projector=str(files[1]),
        init={"ctx_len": 512, "n_parallel": 3, "n_threads": 1, **init},
    )
    return await Worker.start(config)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    folder = tmp_path_factory.mktemp("seeing")
    started = await start(llava(folder), folder)
    yield started
    note = await started.stop(grace_s=5)
    assert note.code == 0, note


@pytest_asyncio.fixture(loop_scope="module")
async def ask(worker: Worker) -> AsyncIterator[Asker]:
    async with Asker(worker.socket) as asker:
        yield asker


async def counted(ask: Asker, name: str) -> float:
    lines = (await ask.text("/metrics")).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"jand_{name} "))


# -- what the model is told -----------------------------------------------------------------------------------------------


async def test_each_image_has_its_tokens_whatever_its_size_and_place(ask: Asker) -> None:
    one = (await ask.ok(CHAT, messages=shown("hello", RED, "the model says"), max_tokens=1))["usage"]["prompt_tokens"]
    for images in ([LONG], [RED, BLUE, LONG], [RED, RED]):
        answer = await ask.ok(CHAT, messages=shown("hello", *images, "the model says"), max_tokens=1)
        assert answer["usage"]["prompt_tokens"] == one + EACH * (len(images) - 1)
        assert answer["timings"]["image_n"] == len(images)


async def test_what_an_image_shows_and_where_it_stands_changes_the_answer(ask: Asker) -> None:
    orders: list[list[str | bytes]] = [
        [RED, BLUE, "hello"],
        [BLUE, RED, "hello"],
        ["hello", RED, BLUE],
        [RED, RED, "hello"],
    ]
    texts = [said(await ask.ok(CHAT, messages=shown(*order), max_tokens=24, **GREEDY)) for order in orders]
    assert len(set(texts)) == len(orders)


@pytest.mark.parametrize(
    "make", [llava, gguf_vision.tiny_qwen2vl, gguf_vision.tiny_gemma3], ids=["llava", "m-rope", "non-causal"]
)
async def test_the_likeliest_answer_is_that_of_llama_cpps_own_helper(
    make: Callable[[Path], tuple[Path, Path]], tmp_path: Path
) -> None:
    weights, projector = make(tmp_path)
    images = [draw(90, 60, seed=4), draw(56, 200, seed=5)]
    for number, image in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(image)
    given = {
        "weights": str(weights),
        "projector": str(projector),
        "prompt": "user: a <__media__> and <__media__> hello\nassistant:",
        "images": [str(tmp_path / f"{number}.png") for number in range(len(images))],
        "tokens": 16,
    }
    reference = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.mtmd_reference"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
    )
    told, _ = await reference.communicate(json.dumps(given).encode())
    expected = json.loads(told)
    started = await start((weights, projector), tmp_path)
    async with Asker(started.socket) as ask:
        messages = shown("a ", images[0], " and ", images[1], " hello")
        first = await ask.ok(CHAT, messages=messages, max_tokens=16, **GREEDY)
        assert first["usage"]["prompt_tokens"] == expected["prompt_tokens"]
        assert said(first) == expected["text"]
        # Again with company, from the memory as far as it goes: with a sliding window that may be nothing.
        company = asyncio.create_task(ask.ok(TEXT, prompt="hello world", max_tokens=60, **GREEDY))
        again = await ask.ok(CHAT, messages=messages, max_tokens=16, **GREEDY)
        await company
        assert said(again) == expected["text"]
        assert again["timings"]["image_encoded_n"] == 0
        # A conversation that goes another way after the first image keeps that much of the memory and no more.
        turned = shown("a ", images[0], " or ", images[1], " hello")
        fresh = await ask.ok(CHAT, messages=turned, max_tokens=16, cache_prompt=False, **GREEDY)
        assert said(await ask.ok(CHAT, messages=turned, max_tokens=16, **GREEDY)) == said(fresh)
    await started.stop(grace_s=5)


async def test_second_turn_encodes_nothing_and_reads_only_what_is_new(ask: Asker) -> None:
    image = draw(80, 80, seed=6)
    first = shown("hello", image, "a model")
    answer = await ask.ok(CHAT, messages=first, max_tokens=8, **GREEDY)
    assert answer["timings"]["image_encoded_n"] == 1
    encoded = await counted(ask, "images_encoded_total")
    second = [*first, {"role": "assistant", "content": said(answer)}, *user("world")]
    again = await ask.ok(CHAT, messages=second, max_tokens=8, **GREEDY)
    assert await counted(ask, "images_encoded_total") == encoded
    assert again["timings"]["image_encoded_n"] == 0
    # All of the first prompt and its image is still in the memory.
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= answer["usage"]["prompt_tokens"]
    assert again["timings"]["prompt_n"] < again["usage"]["prompt_tokens"] - answer["usage"]["prompt_tokens"] + 1


async def test_same_image_in_many_requests_at_once_is_encoded_once(ask: Asker) -> None:
    image = draw(81, 81, seed=7)
    encoded = await counted(ask, "images_encoded_total")
    await asyncio.gather(*(ask.ok(CHAT, messages=shown(f"hello {number}", image), max_tokens=2) for number in range(6)))
    assert await counted(ask, "images_encoded_total") == encoded + 1


async def test_streams_while_others_bring_images(ask: Asker) -> None:
    """A stream of text flows on to its end while images are encoded and decoded, and answers about images stream too.

    Its text is not compared: kernels differ by the size of a batch, and weights made by chance give many near-ties.
    """
    wanted = {"prompt": "hello world", "max_tokens": 200, "seed": 1, "ignore_eos": True, **GREEDY}
    flowing = asyncio.create_task(ask.stream(TEXT, **wanted))
    looked = await asyncio.gather(
        *(
            ask.stream(CHAT, messages=shown("a", draw(70, 50, seed=20 + number), "b"), max_tokens=5, **GREEDY)
            for number in range(8)
        )
    )
    flowed = await flowing
    assert streamed(flowed)
    assert [choice["finish_reason"] for event in flowed[-2:] for choice in event["choices"]][-1] == "length"
    assert all(event["choices"][0]["finish_reason"] for events in looked for event in events[-1:])


async def test_several_choices_share_the_images(ask: Asker) -> None:
    answer = await ask.ok(CHAT, messages=shown("hello", RED), n=3, max_tokens=4, **GREEDY)
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 1


async def test_formats_of_the_web_are_read_and_turned_the_right_way_up(ask: Asker) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # Orientation: to be turned by 90 degrees
    files = {
        "image/jpeg": draw(60, 40, form="JPEG", exif=turned),
        "image/webp": draw(60, 40, form="WEBP"),
        "image/gif": draw(60, 40, form="GIF"),
        "image/bmp": draw(60, 40, form="BMP"),
    }
    for kind, data in files.items():
        # What the address calls it does not matter: the bytes tell.
        for name in (kind, "application/octet-stream"):
            parts = [{"type": "image_url", "image_url": {"url": data_uri(data, name)}}]
            answer = await ask.ok(CHAT, messages=[{"role": "user", "content": parts}], max_tokens=1)
            assert answer["timings"]["image_n"] == 1


# -- what is refused ------------------------------------------------------------------------------------------------------


def image_part(url: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


PNG = base64.b64encode(draw(8, 8)).decode()


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("data:image/png;base64,@@@@", "no valid base64"),
        (f"data:image/png;base64,{PNG[:-3]}", "no valid base64"),
        (f"data:image/png;base64,{PNG[:80]}", "it is broken"),
        (f"data:image/png,{PNG}", "not marked"),
        ("data:image/png;base64,", "none of PNG"),
        (data_uri(b"<svg></svg>", "image/svg+xml"), "none of PNG"),
        (data_uri(b"RIFF\x00\x00\x00\x00WAVEfmt "), "none of PNG"),
        ("file:///etc/passwd", "no data: URI"),
        ("http://127.0.0.1:1/a.png", "remote images are not fetched"),
        ("HTTPS://example.org/a.png", "remote images are not fetched"),
        ("", "has no url"),
        (7, "has no url"),
        (data_uri(draw(1, 4000)), "are a line"),
    ],
)
async def test_image_that_cannot_be_read_is_refused_with_its_place(ask: Asker, url: Any, cause: str) -> None:
    error = await ask.refused(CHAT, messages=[*user("hello"), *image_part(url)], max_tokens=1)
    assert cause in error["message"]
    assert "messages[1].content[0]" in error["message"]
    assert error["param"] == "messages"


async def test_image_of_too_many_bytes_is_refused(ask: Asker, worker: Worker) -> None:
    body = {"messages": image_part("data:image/png;base64," + "A" * (29 << 20)), "max_tokens": 1}
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(worker.socket))) as session:
        data = io.BytesIO(json.dumps(body).encode())
        async with session.post(f"http://worker{CHAT}", data=data) as response:
            assert response.status == 400
            assert "more than 20 MiB" in (await response.json())["error"]["message"]


async def test_image_of_too_many_pixels_is_refused_before_it_is_unpacked(ask: Asker) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (8_000, 50_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9)) + chunk(b"IEND", b"")
        error = await ask.refused(CHAT, messages=shown("hello", bomb), max_tokens=1)
        assert "50,000,000 pixels" in error["message"]


async def test_too_many_tokens_or_images_are_refused(ask: Asker) -> None:
    encoded = await counted(ask, "images_encoded_total")
    error = await ask.refused(CHAT, messages=shown("hello " * 300, *([draw(9, 9, seed=99)] * 60)), max_tokens=1)
    assert error["code"] == "context-length-exceeded"
    assert error["n_prompt_tokens"] > 540
    assert await counted(ask, "images_encoded_total") == encoded, "it was encoded in vain"
    error = await ask.refused(CHAT, messages=shown(*([RED] * 65)), max_tokens=1)
    assert "more than 64 images" in error["message"]


async def test_other_parts_are_refused_by_their_type(ask: Asker) -> None:
    parts = [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]
    error = await ask.refused(CHAT, messages=[{"role": "user", "content": parts}])
    assert "'input_audio'" in error["message"]


async def test_text_cannot_pretend_to_be_an_image(ask: Asker) -> None:
    """Whatever stands for an image elsewhere is text here: the marker is random and never told."""
    for text in ("<__media__>", "<image>", "<|image|>", "<|image 00000000000000000000000000000000|>", "[img-1]"):
        answer = await ask.ok(CHAT, messages=user(text), max_tokens=1)
        assert "image_n" not in answer["timings"]


async def test_model_without_a_projector_says_so(tmp_path: Path) -> None:
    (weights,) = gguf_files.tiny_llama(tmp_path / "blind.gguf")
    started = await Worker.start(WorkerConfig("blind", (str(weights),), str(tmp_path / "w.sock")))
    async with Asker(started.socket) as ask:
        error = await ask.refused(CHAT, messages=shown("hello", RED))
        assert "reads text only" in error["message"]
        assert "projector" in error["message"]
    await started.stop(grace_s=5)


async def test_projector_of_another_model_keeps_it_from_starting(tmp_path: Path) -> None:
    weights, _ = llava(tmp_path)
    (tmp_path / "broken.gguf").write_bytes((tmp_path / "mmproj.gguf").read_bytes()[:5000])
    with pytest.raises(StartError, match="projector") as caught:
        await start((weights, tmp_path / "broken.gguf"), tmp_path)
    assert caught.value.facts["reason"] == "projector-failed"


async def test_template_that_loses_an_image_is_told_apart_from_a_bad_request(tmp_path: Path) -> None:
    (weights,) = gguf_files.tiny_llama(tmp_path / "deaf.gguf", chat_template="nothing of all that\n")
    started = await start((weights, gguf_files.projector(tmp_path / "mmproj.gguf")), tmp_path)
    async with Asker(started.socket) as ask:
        assert "leaves an image out" in (await ask.refused(CHAT, messages=shown("hello", RED)))["message"]
        assert (await ask.ok(CHAT, messages=user("hello"), max_tokens=1))["usage"]["completion_tokens"] == 1
    await started.stop(grace_s=5)


# -- coming and going -----------------------------------------------------------------------------------------------------


async def test_client_that_leaves_ends_the_reading_of_its_images(tmp_path: Path) -> None:
    started = await start(llava(tmp_path), tmp_path)
    async with Asker(started.socket) as ask:
        images = [draw(120, 120, seed=200 + number) for number in range(20)]
        leaving = asyncio.create_task(ask.ok(CHAT, messages=shown(*images), max_tokens=1))
        waiting = asyncio.create_task(ask.ok(CHAT, messages=shown("hello", RED), max_tokens=2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert (await waiting)["usage"]["completion_tokens"] <= 2
        assert await counted(ask, "images_encoded_total") < 21
    note = await started.stop(grace_s=5)
    assert note.code == 0


async def test_stop_waits_for_an_image_that_is_being_read(tmp_path: Path) -> None:
    started = await start(llava(tmp_path), tmp_path)
    async with Asker(started.socket) as ask:
        messages = shown("hello", *(draw(90, 90, seed=300 + number) for number in range(20)))
        asking = asyncio.create_task(ask.ok(CHAT, messages=messages, max_tokens=5, ignore_eos=True))

        async def read() -> bool:
            return bool(await counted(ask, "images_total")) or asking.done()

        await until(read, 20, what="the images to be read")
        note = await started.stop(grace_s=20)
        assert (await asking)["usage"]["completion_tokens"] == 5
    assert note.code == 0


async def test_through_the_daemon_from_a_drop_to_the_second_turn(tmp_path: Path) -> None:
    folder = tmp_path / "janroot" / "models" / "llava"
    folder.mkdir(parents=True)
    llava(folder)
    (folder / "llava.json").write_text(
        json.dumps({"origin": "tests/llava", "parameters": {"init": {"ctx_len": 512, "n_parallel": 2}}})
    )
    async with DaemonProcess(tmp_path / "janroot") as daemon:
        await daemon.until_state("llava", "downloaded")
        messages = shown("hello", RED, BLUE)
        first = {"model": "llava", "max_tokens": 4, "messages": messages, **GREEDY}
        one = await daemon.call("POST", CHAT, {**first, "messages": shown("hello", RED)})
        answer = await daemon.call("POST", CHAT, first)
        assert answer["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"] + EACH
        turn = {"role": "assistant", "content": said(answer)}
        second = await daemon.call("POST", CHAT, {**first, "messages": [*messages, turn, *user("world")]})
        assert second["timings"]["image_encoded_n"] == 0
        assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= answer["usage"]["prompt_tokens"] - 1
        model = await daemon.find("llava")
        assert model is not None
        assert model["details"]["vision"] is True
        error = await daemon.call(
            "POST", CHAT, {**first, "messages": image_part("https://example.org/a.png")}, status=400
        )
        assert "remote_images" in error["error"]["message"]
