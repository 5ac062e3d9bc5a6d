"""The list of changes that no test notices speaks of the code as it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path


def test_each_listed_survivor_is_of_lines_that_are_there(root: Path, texts: Mapping[str, str]) -> None:
    listed = tomllib.loads((root / "tests/mutants/survivors.toml").read_text())["survivor"]
    lines = {module: {line.strip() for line in text.splitlines()} for module, text in texts.items()}

    gone = [row for row in listed if not lines[row["module"]].issuperset(row["before"].split("\n"))]

    assert gone == []
    assert all(row["why"] for row in listed)
