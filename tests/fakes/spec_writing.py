"""Valid model JSONs of every shape, and the many ways in which people write the same one down."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

if TYPE_CHECKING:
    import random

LINES: Final = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u2028\u2029"), min_size=1, max_size=20
).filter(lambda text: text not in (".", "..") and "\\" not in text and "/" not in text)
PROMPTS: Final = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
).filter(lambda text: text != "..")
SHARES: Final = st.floats(0, 1)

INIT: Final = st.fixed_dictionaries(
    {},
    optional={
        "ctx_len": st.integers(1, 10**6),
        "ngl": st.integers(-1, 100),
        "embedding": st.booleans(),
        "n_parallel": st.integers(1, 256),
        "pre_prompt": PROMPTS,
        "user_prompt": PROMPTS,
        "flash_attn": st.booleans(),
        "cache_type_k": st.sampled_from(["f16", "q8_0"]),
        "tensor_split": st.lists(SHARES, min_size=1, max_size=4),
        "API-KEY": LINES,
        "api-version": st.just("2024-10-21"),
    },
)
RUNTIME: Final = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 5),
        "token_limit": st.integers(-1, 10**6),
        "top_k": st.integers(-1, 1000),
        "top_p": SHARES,
        "stop": st.lists(PROMPTS, max_size=3, unique=True),
        "stream": st.booleans(),
        "seed": st.integers(-1, 2**63 - 1),
        "response_format": st.just({"type": "json_object"}),
    },
)
METADATA: Final = st.fixed_dictionaries(
    {},
    optional={
        "quantization": st.just("Q4_K_M"),
        "sha256": st.just("ab" * 32) | st.just({"x.gguf": "cd" * 32}),
        "autostart": st.booleans(),
        "keep_alive": st.floats(-1, 10**6),
        "tags": st.lists(LINES, max_size=3, unique=True),
        "description": PROMPTS,
    },
)
MODELS: Final = st.fixed_dictionaries(
    {"origin": st.just("TheBloke/zephyr-7B-beta-GGUF") | LINES},
    optional={
        "import_format": st.sampled_from(["default", "thebloke", "janhq"]),
        "download_url": st.just("a.gguf") | st.lists(LINES, max_size=3, unique=True),
        "id": LINES,
        "object": st.just("model"),
        "created": st.integers(0, 10**10),
        "owned_by": LINES,
        "parameters": st.fixed_dictionaries({"init": INIT}, optional={"runtime": RUNTIME}),
        "metadata": METADATA,
    },
)
"""What `json.dumps` of is a valid model JSON without an unknown field."""


@dataclass
class Hand:
    """Somebody who writes a JSON by hand, in a manner that *dice* decide anew at every place.

    *at* has where each value came to stand; *commas* those that may not be left out, each with the end of the value before it.
    """

    dice: random.Random
    text: str = ""
    at: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    commas: list[tuple[int, int]] = field(default_factory=list)

    def write(self, data: Any) -> str:
        """Write *data*, a whole file, and return the text."""
        self._put(self.dice.choice(("", "", "\ufeff")))
        self._gap()
        self._value(data, ())
        self._gap()
        return self.text

    def _put(self, piece: str) -> None:
        self.text += piece

    def _gap(self) -> None:
        comment = "a \"b', {c: [1], /* d"
        while self.dice.random() < 0.5:
            self._put(
                self.dice.choice(
                    (" ", "\n", "\r\n", "\t", "\u00a0", f"// {comment}\n", f"# {comment} // e\n", f"/* # {comment}\n*/")
                )
            )

    def _value(self, value: Any, path: tuple[str | int, ...]) -> None:
        self.at[path] = len(self.text)
        if isinstance(value, dict):
            self._several("{", [((*path, name), name, each) for name, each in value.items()], "}")
        elif isinstance(value, list):
            self._several("[", [((*path, index), None, each) for index, each in enumerate(value)], "]")
        elif isinstance(value, str):
            self._put(self._quoted(value))
        else:
            plain = json.dumps(value)
            in_quotes = path[-1] not in ("response_format", "type")
            self._put(
                self.dice.choice(
                    (plain, f'"{plain}"' if in_quotes else plain, plain if not plain[0].isdigit() else f"+{plain}")
                )
            )

    def _several(self, begin: str, items: list[tuple[tuple[str | int, ...], str | None, Any]], end: str) -> None:
        self._put(begin)
        for number, (path, name, value) in enumerate(items):
            self._gap()
            if name is not None:
                bare = re.fullmatch(r"[A-Za-z_][\w-]*", name) and self.dice.random() < 0.5
                self._put(name if bare else self._quoted(name))
                self._gap()
                self._put(":")
                self._gap()
            self._value(value, path)
            end_of_value = len(self.text)
            self._gap()
            if number < len(items) - 1:
                self.commas.append((len(self.text), end_of_value))
            if number < len(items) - 1 or self.dice.random() < 0.3:
                self._put(",")
        self._gap()
        self._put(end)

    def _quoted(self, text: str) -> str:
        plain = json.dumps(text, ensure_ascii=self.dice.random() < 0.5)
        if self.dice.random() < 0.5:
            return plain
        return "'" + plain[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
