"""A JSON schema as a grammar whose every sentence the schema accepts.

The grammar may allow less than the schema does (no further properties where some are named, no escapes in a class); it never allows more. A keyword that cannot be
kept is refused by its name. Exceptions: `oneOf` is read as `anyOf`, and an unknown `format` is the annotation that the standard says it is.
"""

from __future__ import annotations

import json
from typing import Any, Final

from jand.engine.worker import gbnf
from jand.engine.worker.numbers import UnsupportedBoundsError, number_rule
from jand.engine.worker.patterns import UnsupportedPatternError, pattern_rule
from jand.errors import BadRequestError

MOST_RULES: Final = 4000
MOST_DEPTH: Final = 100
MOST_BYTES: Final = 1 << 18

_REFUSED: Final = frozenset(
    {
        *(
            "not",
            "if",
            "then",
            "else",
            "contains",
            "uniqueItems",
            "patternProperties",
            "propertyNames",
            "dependentRequired",
        ),
        *("dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef", "unevaluatedItems"),
    }
)
_FORMATS: Final = {
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}
_TYPES: Final = ("object", "array", "string", "number", "integer", "boolean", "null")
_KEYWORDS: Final = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
Schema = dict[str, Any]


def schema_to_grammar(schema: object, *, param: str = "response_format") -> str:
    """Return the grammar of *schema*; BadRequestError with *param* where it cannot be kept."""
    text = "".join(f"{name} ::= {rule}\n" for name, rule in schema_rules(schema, param=param).items())
    if len(text) > MOST_BYTES:
        raise BadRequestError("cannot follow the JSON schema: it is too large", param=param)
    return text


def schema_rules(schema: object, *, param: str) -> dict[str, str]:
    """Return the rules of that grammar by name; `root` is the schema, `space` is what may stand between tokens."""
    try:
        return _Grammar(schema).rules()
    except (UnsupportedSchemaError, UnsupportedPatternError, UnsupportedBoundsError) as error:
        raise BadRequestError(f"cannot follow the JSON schema: {error}", param=param) from error
    except RecursionError as error:
        raise BadRequestError("cannot follow the JSON schema: it is nested too deeply", param=param) from error
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise BadRequestError(
            "cannot follow the JSON schema: a keyword has a value of the wrong type", param=param
        ) from error


class UnsupportedSchemaError(ValueError):
    """The schema says what a grammar cannot keep, or makes no sense."""


class _Grammar:
    """Rules by name; `root` is the schema itself. A reference is one rule, however often it is used, so that a schema may contain itself."""

    def __init__(self, schema: object) -> None:
        self._document = schema
        self._rules: dict[str, str] = {"space": gbnf.SPACE, "char": gbnf.CHARACTER}
        self._references: dict[str, str] = {}
        self._depth = 0
        self._rules["root"] = self._visit(schema)

    def rules(self) -> dict[str, str]:
        if "value" in self._rules:
            self._rules["string"] = r'"\"" char* "\""'
            self._rules["object"] = (
                '"{" space (string space ":" space value space ("," space string space ":" space value space)*)? "}"'
            )
            self._rules["array"] = '"[" space (value space ("," space value space)*)? "]"'
        return dict(self._rules)

    def _rule(self, text: str) -> str:
        """Name *text* and return the name; one that is an atom already stays."""
        if len(self._rules) >= MOST_RULES:
            raise UnsupportedSchemaError(f"it needs more than {MOST_RULES} rules")
        name = f"r{len(self._rules)}"
        self._rules[name] = text
        return name

    # -- which kind ---------------------------------------------------------------------------------------------------

    def _visit(self, schema: object) -> str:
        """Return the expression of *schema*, to be named or put in parentheses by whoever joins it to others."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise UnsupportedSchemaError("it is nested too deeply")
        try:
            if schema is True:
                return self._any()
            if not isinstance(schema, dict):
                raise UnsupportedSchemaError(f"{json.dumps(schema)[:80]} is no schema")
            return self._visit_object(schema)
        finally:
            self._depth -= 1

    def _visit_object(self, schema: Schema) -> str:
        for keyword in sorted(_REFUSED & schema.keys()):
            if schema[keyword] is not False and not (
                keyword.startswith(("pattern", "depend")) and schema[keyword] == {}
            ):
                raise UnsupportedSchemaError(f'"{keyword}" is not supported')
        if "$ref" in schema:
            rest = {key: value for key, value in schema.items() if key != "$ref" and key in _MERGED}
            return (
                self._visit(self._merge(self._resolve(schema["$ref"]), rest)) if rest else self._refer(schema["$ref"])
            )
        if "allOf" in schema:
            merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
            for part in schema["allOf"]:
                merged = self._merge(merged, self._flat(part))
            return self._visit(merged)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = {key: value for key, value in schema.items() if key != keyword and key in _MERGED}
                return self._either([self._merge(self._flat(part), rest) if rest else part for part in schema[keyword]])
        if schema.get("nullable") is True:
            rest = {key: value for key, value in schema.items() if key != "nullable"}
            return self._either([rest, {"type": "null"}])
        return self._visit_plain(schema)

    def _visit_plain(self, schema: Schema) -> str:
        if "const" in schema:
            return gbnf.literal(json.dumps(schema["const"], ensure_ascii=False))
        if "enum" in schema:
            kinds = schema.get("type")
            values = [value for value in schema["enum"] if kinds is None or _is_of(value, kinds)]
            if not values:
                raise UnsupportedSchemaError("an enum without values")
            return " | ".join(gbnf.literal(json.dumps(value, ensure_ascii=False)) for value in values)
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._either([{**schema, "type": each} for each in kind])
        if kind is None:
            kind = next((name for name, keywords in _KEYWORDS.items() if any(key in schema for key in keywords)), None)
        return self._of_kind(kind, schema)

    def _of_kind(self, kind: object, schema: Schema) -> str:
        match kind:
            case None:
                return self._any()
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
            case "number" | "integer":
                return number_rule(schema, whole=kind == "integer")
            case "boolean":
                return '"true" | "false"'
            case "null":
                return '"null"'
            case _:
                raise UnsupportedSchemaError(f"there is no type {json.dumps(kind)[:80]}")

    def _any(self) -> str:
        self._rules.setdefault("value", f'object | array | string | ({gbnf.NUMBER}) | "true" | "false" | "null"')
        return "value"

    def _either(self, schemas: list[Any]) -> str:
        if not schemas:
            raise UnsupportedSchemaError("a choice of nothing")
        return " | ".join(self._rule(self._visit(each)) for each in schemas)

    # -- references and joined schemas --------------------------------------------------------------------------------

    def _refer(self, pointer: object) -> str:
        target = self._resolve(pointer)
        key = str(pointer)
        if key not in self._references:
            name = f"ref{len(self._references)}"
            self._references[key] = name
            self._rules[name] = '""'
            depth, self._depth = self._depth, self._depth + 1
            self._rules[name] = self._visit(target)
            self._depth = depth
            if self._rules[name] == name:
                raise UnsupportedSchemaError("a reference to itself")
        return self._references[key]

    def _resolve(self, pointer: object) -> Any:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise UnsupportedSchemaError(f"the reference {json.dumps(pointer)[:80]} leads elsewhere")
        target: Any = self._document
        for part in pointer[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise UnsupportedSchemaError(f"the reference {json.dumps(pointer)[:80]} leads nowhere") from error
        return target

    def _flat(self, schema: Any) -> Any:
        """Follow references of *schema* itself, so that it can be joined with another."""
        seen: set[str] = set()
        while isinstance(schema, dict) and "$ref" in schema:
            if schema["$ref"] in seen:
                raise UnsupportedSchemaError("a reference to itself")
            seen.add(schema["$ref"])
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = self._merge(self._resolve(schema["$ref"]), rest)
        return schema

    def _merge(self, left: Any, right: Any) -> Any:
        """Return what says both; only what can be joined exactly is."""
        if left is True or left == {}:
            return right
        if right is True or right == {}:
            return left
        if not isinstance(left, dict) or not isinstance(right, dict):
            raise UnsupportedSchemaError("schemas that exclude one another")
        merged = dict(left)
        for key, value in right.items():
            merged[key] = value if key not in merged else self._merge_keyword(key, merged[key], value)
        return merged

    def _merge_keyword(self, key: str, left: Any, right: Any) -> Any:
        if left == right or key not in _MERGED:
            return left
        if key == "properties":
            return {name: self._merge(left.get(name, True), right.get(name, True)) for name in {**left, **right}}
        if key == "required":
            return [*left, *(name for name in right if name not in left)]
        if key in {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}:
            return max(left, right)
        if key in {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}:
            return min(left, right)
        if key == "items":
            return self._merge(left, right)
        if key == "additionalProperties" and (left is False or right is False):
            return False
        raise UnsupportedSchemaError(f'two different "{key}" at once')

    # -- containers and strings ---------------------------------------------------------------------------------------

    def _object(self, schema: Schema) -> str:
        properties: Schema = dict(schema.get("properties") or {})
        more = schema.get("additionalProperties", True)
        required = list(schema.get("required") or [])
        for name in required:
            if name not in properties:
                if more is False:
                    raise UnsupportedSchemaError(f'"{name}" is required and not allowed')
                properties[name] = more
        if not properties:
            return self._map(schema, False if "properties" in schema and "additionalProperties" not in schema else more)
        return '"{" space ' + self._members(properties, _choose(schema, list(properties), set(required))) + ' "}"'

    def _members(self, properties: Schema, chosen: list[tuple[str, bool]]) -> str:
        """Return the members in their order, the optional ones left out or not, with commas only between them."""
        pairs = [
            (
                self._rule(
                    f'{gbnf.literal(json.dumps(name, ensure_ascii=False))} space ":" space {self._rule(self._visit(properties[name]))} space'
                ),
                needed,
            )
            for name, needed in chosen
        ]
        following = '""'  # what may come after a member, each with its comma before it
        first = ""  # the same where no member has come before
        for pair, needed in reversed(pairs):
            begins = f"{pair} {following}"
            if first and not needed:
                begins = f"{begins} | {first}"
            first = self._rule(begins if needed or first else f'{begins} | ""')
            after = f'"," space {pair} {following}'
            following = self._rule(after if needed else f"{after} | {following}")
        return first

    def _map(self, schema: Schema, values: Any) -> str:
        least = int(schema.get("minProperties", 0))
        if values is False:
            if least:
                raise UnsupportedSchemaError("the number of properties cannot be met")
            return '"{" space "}"'
        if least > 1:
            raise UnsupportedSchemaError(
                '"minProperties" of free properties is not supported'
            )  # two of them could have one name
        pair = self._rule(f'"\\"" char* "\\"" space ":" space {self._rule(self._visit(values))} space')
        return '"{" space ' + _listed(pair, least, _bounded(schema.get("maxProperties"))) + ' "}"'

    def _array(self, schema: Schema) -> str:
        items = schema.get("items", True)
        prefix = schema.get("prefixItems") or (items if isinstance(items, list) else [])
        if isinstance(items, list):
            items = schema.get("additionalItems", False)
        least, most = int(schema.get("minItems", 0)), _bounded(schema.get("maxItems"))
        if least > gbnf.MOST_REPEATED or (most is not None and least > most):
            raise UnsupportedSchemaError("the number of items cannot be met")
        if not prefix:
            if items is False and least:
                raise UnsupportedSchemaError("the number of items cannot be met")
            item = self._rule(f"{self._rule(self._visit(items))} space") if items is not False else ""
            return '"[" space ' + (_listed(item, least, most) if item else "") + ' "]"'
        if most is not None and most < len(prefix):
            prefix = prefix[:most]
        parts = [self._rule(self._visit(each)) + " space" for each in prefix]
        rest = ""
        if least > len(prefix):
            if items is False:
                raise UnsupportedSchemaError("the number of items cannot be met")
            item = self._rule(self._visit(items))
            rest = gbnf.repeat(
                f'("," space {item} space)', least - len(prefix), None if most is None else most - len(prefix)
            )
        return '"[" space ' + ' "," space '.join(parts) + f' {rest} "]"'

    def _string(self, schema: Schema) -> str:
        least, most = int(schema.get("minLength", 0)), _bounded(schema.get("maxLength"))
        if "pattern" in schema:
            if least > 0 or most is not None:
                raise UnsupportedSchemaError('"pattern" together with a length is not supported')
            return f'"\\"" {self._rule(pattern_rule(str(schema["pattern"])))} "\\""'
        known = schema.get("format")
        if known == "date-time":
            return f'"\\"" {_FORMATS["date"]} "T" {_FORMATS["time"]} "\\""'
        if known in _FORMATS:
            return f'"\\"" {_FORMATS[known]} "\\""'
        if least > gbnf.MOST_REPEATED or (most is not None and least > most):
            raise UnsupportedSchemaError("the length of a string cannot be met")
        return f'"\\"" {gbnf.repeat("char", least, most)} "\\""'


_MERGED: Final = frozenset(
    {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *(key for keys in _KEYWORDS.values() for key in keys)}
)
"""Keywords that say something of a value; the others are annotations."""


def _choose(schema: Schema, names: list[str], wanted: set[str]) -> list[tuple[str, bool]]:
    """Return the properties that may appear, in their order, and whether they must: as many as `minProperties` and `maxProperties` say."""
    least, most = int(schema.get("minProperties", 0)), int(schema.get("maxProperties", len(names)))
    for name in names:
        if len(wanted) < least:
            wanted.add(name)
    spare = most - len(wanted)
    if spare < 0 or len(wanted) < least:
        raise UnsupportedSchemaError("the number of properties cannot be met")
    optional = [name for name in names if name not in wanted][:spare]
    return [(name, name in wanted) for name in names if name in wanted or name in optional]


def _is_of(value: object, kinds: object) -> bool:
    names = kinds if isinstance(kinds, list) else [kinds]
    if isinstance(value, bool):
        return "boolean" in names
    if isinstance(value, int | float):
        return "number" in names or ("integer" in names and float(value).is_integer())
    return {str: "string", list: "array", dict: "object", type(None): "null"}[type(value)] in names


def _bounded(most: object) -> int | None:
    return None if most is None else min(int(most), gbnf.MOST_REPEATED)  # type: ignore[call-overload]


def _listed(item: str, least: int, most: int | None) -> str:
    """Return *least* to *most* of *item* with commas between them."""
    if most == 0:
        return ""
    rest = gbnf.repeat(f'("," space {item})', max(0, least - 1), None if most is None else most - 1)
    return f"{item} {rest}" if least else f"({item} {rest})?"
