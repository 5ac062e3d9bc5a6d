"""The table of docs/reliability.md and the tests that are marked with its numbers name each other, number by number and file by file."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def marked(path: Path) -> set[int]:
    """The numbers that a file of tests bears."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "reliability"]
    return {int(ast.literal_eval(mark.args[0])) for mark in marks}


def test_every_number_has_the_tests_that_its_row_names(root: Path) -> None:
    page = root / "docs" / "reliability.md"
    rows = [re.match(r"\| (\d+) \|", line) for line in page.read_text().splitlines()]
    listed = {
        (int(row[1]), (page.parent / link).resolve()) for row in rows if row is not None for link in re.findall(r"\]\((.+?)\)", row.string)
    }

    held = {(number, path.resolve()) for path in (root / "tests").rglob("test_*.py") for number in marked(path)}

    assert listed == held
    assert sum(row is not None for row in rows) == len({number for number, _ in listed})
