"""Random sentences of a grammar in llama.cpp's notation, so that a test can look at what a grammar allows without a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

TOKEN = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[0-9,]+\}|[A-Za-z0-9-]+|[()|*+?]')
Node = tuple[Any, ...]


def parse(text: str) -> dict[str, Node]:
    rules = {}
    for line in text.splitlines():
        name, _, body = line.partition(" ::= ")
        tokens = [token for token in TOKEN.findall(body) if token.strip()]
        assert "".join(TOKEN.findall(body)) == body, f"cannot read {body!r}"
        node, rest = _choice(tokens)
        assert not rest, f"{rest} is left of {body!r}"
        rules[name] = node
    return rules


def _choice(tokens: list[str]) -> tuple[Node, list[str]]:
    branches = []
    while True:
        items: list[Node] = []
        while tokens and tokens[0] not in "|)":
            item, tokens = _atom(tokens)
            while tokens and (tokens[0] in "*+?" or tokens[0][0] == "{"):
                item, tokens = ("repeat", item, *_bounds(tokens[0])), tokens[1:]
            items.append(item)
        branches.append(("sequence", items))
        if not tokens or tokens[0] == ")":
            return ("choice", branches), tokens
        tokens = tokens[1:]


def _atom(tokens: list[str]) -> tuple[Node, list[str]]:
    token = tokens[0]
    if token == "(":
        node, rest = _choice(tokens[1:])
        assert rest[0] == ")"
        return node, rest[1:]
    if token[0] == '"':
        return ("text", _unescape(token[1:-1])), tokens[1:]
    if token[0] == "[":
        return ("class", token), tokens[1:]
    return ("rule", token), tokens[1:]


def _bounds(token: str) -> tuple[int, int]:
    if token in "*+?":
        return {"*": (0, 6), "+": (1, 6), "?": (0, 1)}[token]
    least, comma, most = token[1:-1].partition(",")
    return int(least), int(most) if most else int(least) + (6 if comma else 0)


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU":
            return chr(int(code[1:], 16))
        return {"n": "\n", "r": "\r", "t": "\t"}.get(code, code)

    return re.sub(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", one, text)


def sentence(rules: dict[str, Node], dice: random.Random) -> str:
    """Return one sentence; deep recursion takes the first branch that ends it."""

    def make(node: Node, depth: int) -> str:
        match node[0]:
            case "text":
                return str(node[1])
            case "rule":
                return make(rules[node[1]], depth + 1)
            case "sequence":
                return "".join(make(item, depth) for item in node[1])
            case "repeat":
                least, most = node[2], min(node[3], node[2] + 6)
                return "".join(make(node[1], depth) for _ in range(least if depth > 40 else dice.randint(least, most)))
            case "choice":
                return make(node[1][-1] if depth > 40 else dice.choice(node[1]), depth)
            case _:
                return _pick(node[1], dice)

    return make(rules["root"], 0)


def _pick(token: str, dice: random.Random) -> str:
    """Return a character of a class: Python's notation is near enough to llama.cpp's."""
    matcher = re.compile(token)
    pool = [*map(chr, range(0x20, 0x7F)), "é", "€", "😀", "\n", "\t"]
    dice.shuffle(pool)
    return next(char for char in pool if matcher.fullmatch(char))
