"""The checks of the house are tests: formatter, linter, types, import contract, docstrings, sizes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MODULES = sorted((ROOT / "jand").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def run(*command: str | Path) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command[0]}:\n{result.stdout[-6000:]}{result.stderr[-2000:]}"


@pytest.mark.timeout(60)
def test_formatter() -> None:
    run(BIN / "ruff", "format", "--check", "-q", "jand", "tests")


@pytest.mark.timeout(60)
def test_linter() -> None:
    run(BIN / "ruff", "check", "-q", "jand", "tests")


@pytest.mark.timeout(300)
def test_types() -> None:
    run(BIN / "mypy")


@pytest.mark.timeout(60)
def test_import_contract() -> None:
    run(BIN / "lint-imports")


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_constraints_hold_hashes_and_no_addresses() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text()
    pins = re.findall(r"^[a-z0-9][a-z0-9._-]*==\S+", text, re.MULTILINE)

    assert len(pins) > 50
    assert "//" not in text
    for block in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
