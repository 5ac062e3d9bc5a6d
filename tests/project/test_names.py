"""What the house calls things, and that it says what they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

FORBIDDEN_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")

Documentable = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def needs_no_docstring(node: Documentable) -> bool:
    """An overload and a setter are documented where the name is; the event loop's methods are documented by asyncio."""
    decorators = {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in node.decorator_list}
    return node.name.startswith("_") or bool(decorators & {"overload", "setter", "override"})


def undocumented(body: list[ast.stmt]) -> Iterator[Documentable]:
    for node in body:
        if not isinstance(node, Documentable) or needs_no_docstring(node):
            continue
        if not ast.get_docstring(node):
            yield node
        if isinstance(node, ast.ClassDef) and "AbstractEventLoop" not in map(ast.unparse, node.bases):
            yield from undocumented(node.body)


def test_every_module_states_what_it_keeps(trees: Mapping[str, ast.Module]) -> None:
    assert [path for path, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_every_public_name_is_documented(trees: Mapping[str, ast.Module]) -> None:
    assert [f"{path}:{node.lineno} {node.name}" for path, tree in trees.items() for node in undocumented(tree.body)] == []


def test_no_module_is_a_drawer_for_odds_and_ends(texts: Mapping[str, str]) -> None:
    assert [path for path in texts if Path(path).stem.strip("_") in FORBIDDEN_MODULES] == []


def test_nothing_is_left_for_later(texts: Mapping[str, str]) -> None:
    lines = [(f"{path}:{number}", line) for path, text in texts.items() for number, line in enumerate(text.splitlines(), 1)]

    assert [place for place, line in lines if UNFINISHED.search(line)] == []
