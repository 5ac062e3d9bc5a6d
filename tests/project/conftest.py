"""The source text of the three packages, read once."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGES = ("actors", "storage", "tracing")
PLUG_IN = "actors/testing/plugin/__init__.py"  # a package of its own, `perdure.pytest_plugin`, and like a user of the others


@pytest.fixture(scope="session")
def root(pytestconfig: pytest.Config) -> Path:
    """The top of the tree."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def texts(root: Path) -> Mapping[str, str]:
    """Every module's source, by its path from the root."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


@pytest.fixture(scope="session")
def trees(texts: Mapping[str, str]) -> Mapping[str, ast.Module]:
    """Every module's syntax tree, by its path from the root."""
    return {path: ast.parse(text, path) for path, text in texts.items()}


@pytest.fixture(scope="session")
def doors(texts: Mapping[str, str]) -> list[str]:
    """The names under which the packages and their subpackages are imported."""
    return ["perdure." + str(Path(path).parent).replace("/", ".") for path in texts if path.endswith("__init__.py") and path != PLUG_IN]
