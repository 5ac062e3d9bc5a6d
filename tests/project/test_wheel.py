"""The packages are listed by hand in `pyproject.toml`; the list must follow the tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = ("actors", "storage", "tracing")
NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """What a wheel is made from, where nothing lies about from earlier builds."""
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=NOT_SHIPPED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    return tmp_path


def installed(path: Path) -> str:
    """Where a file of the tree is in the wheel."""
    return f"perdure/{path}".replace("actors/testing/plugin", "pytest_plugin")


def test_the_wheel_holds_exactly_the_tree(copy: Path) -> None:
    tree = {installed(path.relative_to(copy)) for package in PACKAGES for path in (copy / package).rglob("*") if path.is_file()}

    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)

    with zipfile.ZipFile(next((copy / "dist").glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if name.startswith("perdure/")} == tree
