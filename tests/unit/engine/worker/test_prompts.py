"""Prompts from the JSON's own parts, and ChatML where nothing is known."""

from __future__ import annotations

import pytest

from jand.engine.worker.prompts import ChatMLPrompter, JsonPrompter

USER = {"role": "user", "content": "hello"}
BOT = {"role": "assistant", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("parts", "messages", "text"),
    [
        (("A chat.", "USER: ", "ASSISTANT: "), [USER], "A chat.\nUSER: hello\nASSISTANT:"),
        (
            ("A chat.", "USER: ", "ASSISTANT: "),
            [USER, BOT, USER],
            "A chat.\nUSER: hello\nASSISTANT: hi\nUSER: hello\nASSISTANT:",
        ),
        (("A chat.", "USER: ", "ASSISTANT: "), [SYSTEM, USER], "Be brief.\nUSER: hello\nASSISTANT:"),
        (("", "USER: ", "ASSISTANT: "), [USER], "USER: hello\nASSISTANT:"),
        (
            ("", "<|user|>\n", "</s>\n<|assistant|>\n"),
            [USER, BOT],
            "<|user|>\nhello</s>\n<|assistant|>\nhi</s>\n<|assistant|>\n",
        ),
        (("", "[INST] ", " [/INST]"), [USER], "[INST] hello [/INST]"),
        (("", "", "### Response:"), [USER], "hello\n### Response:"),
    ],
)
async def test_parts_of_the_json_surround_the_messages(
    parts: tuple[str, str, str], messages: list[dict[str, str]], text: str
) -> None:
    prompt = await JsonPrompter(*parts).render(messages, {})
    assert prompt.text == text


async def test_user_prompt_is_where_an_answer_ends() -> None:
    assert (await JsonPrompter("", "USER: ", "BOT: ").render([USER], {})).stops == ("USER:",)
    assert (await JsonPrompter("", "", "BOT: ").render([USER], {})).stops == ()


async def test_chatml_is_the_last_resort() -> None:
    prompt = await ChatMLPrompter("Be kind.").render([USER], {})
    assert (
        prompt.text
        == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "<|im_end|>" in prompt.stops
    without = await ChatMLPrompter("").render([USER, BOT], {"add_generation_prompt": False})
    assert without.text.endswith("hi<|im_end|>\n")
