"""How modules know each other; import-linter holds the layers, in `make check`."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

from .conftest import PLUG_IN

PACKAGES = {"actors", "storage", "tracing"}


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def module_package(path: str) -> str:
    return str(Path(path).parent).replace("/", ".")


def is_for_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_at_run_time(body: list[ast.stmt]) -> Iterator[ast.ImportFrom]:
    """Those that run with the module: not the ones in functions, not the ones for checkers."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With) and not is_for_checkers(node):
            yield from imports_at_run_time(node.body)


def targets(path: str, node: ast.ImportFrom, names: set[str]) -> Iterator[str]:
    """The modules of ours that a relative import loads."""
    parts = module_package(path).split(".")
    origin = ".".join([*parts[: len(parts) - node.level + 1], *(node.module or "").split(".")]).strip(".")
    for alias in node.names:
        submodule = f"{origin}.{alias.name}".strip(".")
        yield submodule if submodule in names else origin


def absolute_imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""


def test_inside_the_package_imports_are_relative(trees: Mapping[str, ast.Module]) -> None:
    inside = {path: tree for path, tree in trees.items() if path != PLUG_IN}

    found = [f"{path}:{line} {name}" for path, tree in inside.items() for line, name in absolute_imports(tree)]

    assert [row for row in found if row.split()[1].split(".")[0] in {"perdure", *PACKAGES}] == []


def test_outside_the_package_imports_are_a_users(root: Path) -> None:
    paths = [path for folder in ("tests", "benchmarks", "docs") for path in (root / folder).rglob("*.py")]

    found = [f"{path}:{line} {name}" for path in paths for line, name in absolute_imports(ast.parse(path.read_text()))]

    assert [row for row in found if row.split()[1].split(".")[0] in PACKAGES] == []


def test_a_package_is_entered_by_its_door_alone(trees: Mapping[str, ast.Module]) -> None:
    found = [
        (path, node.lineno, origin)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for origin in targets(path, node, {module_name(each) for each in trees})
    ]

    strangers = [row for row in found if row[0].split("/")[0] != row[2].split(".")[0]]
    assert [row for row in strangers if "._" in row[2]] == []


def test_no_modules_import_each_other_in_a_circle(trees: Mapping[str, ast.Module]) -> None:
    names = {module_name(path) for path in trees}
    graph = {
        module_name(path): {target for node in imports_at_run_time(tree.body) if node.level for target in targets(path, node, names)}
        for path, tree in trees.items()
    }
    doors = {module_name(path) for path in trees if path.endswith("__init__.py")}

    # A package's own door runs before its members in any case, so that a member may name it is no circle.
    inner = {name: {target for target in found if not (target in doors and name.startswith(f"{target}."))} for name, found in graph.items()}
    TopologicalSorter(inner).prepare()


def test_no_second_copy_of_a_package_is_loaded(doors: list[str]) -> None:
    for door in doors:
        importlib.import_module(door)

    assert PACKAGES & sys.modules.keys() == set()
