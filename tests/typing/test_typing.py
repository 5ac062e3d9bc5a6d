"""Both type checkers infer what a user's program means, and find its mistakes: those, and no others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USES = sorted(Path(__file__).parent.glob("*_use.py"))
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"],
    "pyright": [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable],
}


def marked_lines(use: Path) -> set[int]:
    """The numbers of the lines that hold a mistake."""
    return {number for number, line in enumerate(use.read_text().splitlines(), 1) if re.search(r"# E\d+", line)}


def lines_with_errors(checker: str, use: Path, folder: Path) -> set[int]:
    """The numbers of the lines about which a checker complains, run in an empty folder: as in a user's project, and not in ours."""
    shutil.copy(use, folder)
    output = subprocess.run([*CHECKERS[checker], use.name], cwd=folder, capture_output=True, text=True, check=False).stdout
    return {int(number) for number in re.findall(rf"{use.name}:(\d+)(?::\d+)?:? .*error", output)}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.stem)
def test_a_checker_finds_every_mistake_and_no_other(checker: str, use: Path, tmp_path: Path) -> None:
    found = lines_with_errors(checker, use, tmp_path)

    assert found == marked_lines(use)
