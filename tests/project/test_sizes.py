"""The budget: modules and functions fit on a screen or two. Docstrings, comments and blank lines cost nothing."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator, Mapping

import pytest

MODULE_LINES = 400
FUNCTION_LINES = 40
MEDIAN_LINES = 8
P90_LINES = 20

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                yield from range(docstring.lineno, (docstring.end_lineno or 0) + 1)


def code_lines(text: str, tree: ast.Module) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    written = {line for token in tokens if token.type not in SILENT for line in range(token.start[0], token.end[0] + 1)}
    return written - set(docstring_lines(tree))


@pytest.fixture(scope="module")
def modules(texts: Mapping[str, str], trees: Mapping[str, ast.Module]) -> Mapping[str, set[int]]:
    """The numbers of each module's code lines."""
    return {path: code_lines(texts[path], tree) for path, tree in trees.items()}


@pytest.fixture(scope="module")
def functions(modules: Mapping[str, set[int]], trees: Mapping[str, ast.Module]) -> Mapping[str, int]:
    """Each function's code lines, by path, line and name."""
    return {
        f"{path}:{node.lineno} {node.name}": len(modules[path] & set(range(node.lineno, (node.end_lineno or 0) + 1)))
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_docstrings_comments_and_blank_lines_are_not_counted() -> None:
    text = '"""Doc\nstring."""\n\n# why\ndef one() -> str:\n    """Doc."""\n    return """two\nlines"""\n'

    assert code_lines(text, ast.parse(text)) == {5, 7, 8}


def test_no_module_exceeds_its_budget_of_lines(modules: Mapping[str, set[int]]) -> None:
    assert {path: len(lines) for path, lines in modules.items() if len(lines) > MODULE_LINES} == {}


def test_no_function_exceeds_its_budget_of_lines(functions: Mapping[str, int]) -> None:
    assert {function: lines for function, lines in functions.items() if lines > FUNCTION_LINES} == {}


def test_the_usual_function_is_read_at_a_glance(functions: Mapping[str, int]) -> None:
    lengths = sorted(functions.values())

    assert statistics.median(lengths) <= MEDIAN_LINES
    assert lengths[int(len(lengths) * 0.9)] <= P90_LINES
