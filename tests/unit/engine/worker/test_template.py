"""Chat templates are code from foreign files: what they may do, and what ends them."""

from __future__ import annotations

import time

import psutil
import pytest

from jand.engine.worker.template import TemplateProcess
from jand.errors import TemplateError

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
MESSAGES = [{"role": "user", "content": "hi <b>"}]


async def render(source: str, patience_s: float = 5.0, **variables: object) -> str:
    process = TemplateProcess(source, "<s>", "</s>", patience_s=patience_s)
    try:
        return await process.render({"messages": MESSAGES, "add_generation_prompt": True, **variables})
    finally:
        await process.close()


async def test_messages_become_a_prompt() -> None:
    assert await render(CHATML) == "<|user|>hi <b></s>\n<|assistant|>"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0] | tojson }}", '<s>{"role": "user", "content": "hi <b>"}'),
        ("{{ {'é': 1} | tojson(indent=1) }}", '{\n "é": 1\n}'),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% if enable_thinking is defined and not enable_thinking %}quiet{% endif %}", "quiet"),
        ("{% if true %}\n  a\n{% endif %}", "  a\n"),
        ("{{ strftime_now('%Y')|length }}", "4"),
    ],
)
async def test_what_templates_of_models_use_is_there(source: str, text: str) -> None:
    assert await render(source, enable_thinking=False) == text


async def test_the_signal_that_ends_a_worker_breaks_no_rendering() -> None:
    """SIGTERM goes to the worker's whole group; a prompt that is being made then is no fault of the client's."""
    process = TemplateProcess(CHATML, "<s>", "</s>")
    try:
        variables = {"messages": MESSAGES, "add_generation_prompt": True}
        text = await process.render(variables)
        (child,) = psutil.Process().children()
        child.terminate()

        assert await process.render(variables) == text
        assert child.is_running()
    finally:
        await process.close()


async def test_refusal_of_a_template_is_told_with_its_words() -> None:
    with pytest.raises(TemplateError, match="to these messages: roles must alternate") as caught:
        await render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ messages.append({}) }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ ('%s' % ''.__class__).format }}{{ '{0.__class__.__mro__}'.format('') }}",
        "{% set x = joiner.__init__ %}{{ x.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10000000)|list }}",
        "{% if %}",
        "{{ undefined.attribute }}",
    ],
)
async def test_template_that_reaches_for_more_is_refused(source: str) -> None:
    with pytest.raises(TemplateError, match="cannot apply the chat template"):
        await render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro again(n) %}{% for i in range(9) %}{{ again(n) }}{% endfor %}{% endmacro %}{{ again(1) }}",
    ],
)
async def test_endless_template_is_cut_and_the_next_one_rendered(source: str) -> None:
    process = TemplateProcess(source + CHATML, "", "", patience_s=1.0)
    began = time.monotonic()
    with pytest.raises(TemplateError):
        await process.render({"messages": MESSAGES})
    assert time.monotonic() - began < 4
    with pytest.raises(TemplateError):
        await process.render({"messages": MESSAGES})
    await process.close()


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**10 }}",
        "{{ 'x'|center(10**10) }}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    ],
)
async def test_template_that_fills_memory_is_ended_before_it_has_much(source: str) -> None:
    with pytest.raises(TemplateError):
        await render(source)


async def test_process_is_used_again_and_ends_with_close() -> None:
    process = TemplateProcess(CHATML, "", "")
    await process.start()
    children = {child.pid for child in psutil.Process().children()}
    for number in range(20):
        assert str(number) in await process.render({"messages": [{"role": "user", "content": str(number)}]})
    assert {child.pid for child in psutil.Process().children()} == children
    await process.close()
