"""The pages' programs run, and print what the page says.

Each ```python block is a program of its own; the ```output block right after it is what it prints, with `...` for what differs from run to
run. A block marked ```python fragment is no program, and only has to be Python.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page, and what the page says it prints."""

    language: str
    text: str
    output: str | None


def blocks(page: str) -> list[Block]:
    found = [(match[1].strip(), match[2]) for match in FENCE.finditer(page)]
    following = [*found, ("", "")][1:]
    return [
        Block(language, text, after[1] if after[0] == "output" else None) for (language, text), after in zip(found, following, strict=True)
    ]


def programs() -> list[object]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = [(f"{page.relative_to(ROOT)}-{n}", block) for page in pages for n, block in enumerate(blocks(page.read_text()), 1)]
    return [pytest.param(block, id=name) for name, block in named if block.language.startswith("python")]


def test_a_block_is_read_with_what_it_prints() -> None:
    page = "Text.\n```python\nprint(1)\n```\n\nIt prints\n\n```output\n1\n```\n```console\n$ make\n```\n"

    assert blocks(page)[0] == Block("python", "print(1)\n", "1\n")
    assert blocks(page)[2] == Block("console", "$ make\n", None)


@pytest.mark.parametrize("block", [*programs(), pytest.param(Block("python", "print(6 * 7)\n", "4...\n"), id="sample")])
def test_a_program_of_the_pages_runs_and_prints_what_they_say(block: Block, tmp_path: Path) -> None:
    ast.parse(block.text)
    if block.language == "python fragment":
        return

    (tmp_path / "program.py").write_text(block.text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )

    assert done.returncode == 0, done.stderr
    if block.output is not None:
        assert OutputChecker().check_output(block.output, done.stdout, ELLIPSIS), done.stdout
