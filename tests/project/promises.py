"""The promise map: each promise is written down once, and the tests that hold it say so themselves.

    python -m tests.project.promises

writes docs/promises.md. The tests are read, not imported.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/promises.md"
MARK: Final = "pytest.mark.promise"

INTRODUCTION: Final = """\
# What is promised, and what holds it

Every promise that these pages make, with the tests that hold it: those that fail if it is broken. A test says itself which one it
holds, by `@pytest.mark.promise("atomic-turns")`; the promises are in `tests/project/promises.toml`. A promise without a test fails the
suite, and so does a mark that names none.

This page is written by `make promises`. A test is called by what it claims: `.venv/bin/pytest -k money_is_conserved` runs the one that says
"money is conserved …". "All of" a module means that each of its tests holds the promise.
"""

BUGS: Final = """\
## What was broken, and what keeps it mended

The defects that taught most, latest first, each with a test that shows it. Where it takes a seed, a figure or a moment to meet one, that is
said.
"""


class Promise(NamedTuple):
    """What users may rely on: a name, a sentence, the part of the map that it stands in, and where it is documented."""

    id: str
    part: str
    sentence: str
    documented: str


class Bug(NamedTuple):
    """Something that was broken, the test that shows it (`path.py::test_name`), how it was mended, and the seed or moment that it takes."""

    what: str
    test: str
    mended: str
    moment: str = ""


class Holder(NamedTuple):
    """What holds a promise: a test, a class of tests, or with no name all of a module."""

    path: str
    name: str

    @property
    def claim(self) -> str:
        """What the test says, in words."""
        return self.name.removeprefix("test_").replace("_", " ")


def read_promises() -> list[Promise]:
    """All promises, in the order of the map."""
    return [Promise(**row) for row in tomllib.loads((ROOT / "tests/project/promises.toml").read_text())["promise"]]


def read_bugs() -> list[Bug]:
    """All bugs that are told, the latest first."""
    return [Bug(**row) for row in tomllib.loads((ROOT / "tests/project/bugs.toml").read_text())["bug"]]


def marks(text: str, path: str) -> Iterator[tuple[str, Holder]]:
    """The promises that a module's tests say they hold, each with what stands under its mark."""
    for statement in ast.parse(text, path).body:
        name = getattr(statement, "name", "")
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == MARK:
                for promise in node.args:
                    yield ast.literal_eval(promise), Holder(path, name)


def read_holders() -> Mapping[str, list[Holder]]:
    """What holds each promise that any test names, in the order of the files."""
    found: dict[str, list[Holder]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.parent.name != "project" and MARK in (text := path.read_text()):
            for promise, holder in marks(text, path.relative_to(ROOT).as_posix()):
                found.setdefault(promise, []).append(holder)
    return found


def page() -> str:
    """The text of docs/promises.md."""
    holders = read_holders()
    parts = groupby(read_promises(), key=lambda promise: promise.part)
    lines = [INTRODUCTION]
    for part, promises in parts:
        lines += [f"## {part}\n", *(promised(promise, holders.get(promise.id, [])) for promise in promises)]
    return "\n".join([*lines, BUGS, *table(read_bugs())]) + "\n"


def promised(promise: Promise, holders: Iterable[Holder]) -> str:
    """One promise, and a line for each file that holds it."""
    lines = [f"**{promise.id}**: {promise.sentence} ({link(promise.documented)})\n"]
    for path, group in groupby(holders, key=lambda holder: holder.path):
        claims = [holder.claim for holder in group]
        lines.append(f"- {'; '.join(claims)} ({link(path)})" if all(claims) else f"- all of {link(path)}")
    return "\n".join([*lines, ""])


def table(bugs: Iterable[Bug]) -> Iterator[str]:
    """The lines of the table of bugs."""
    yield "| what went wrong | shown by | seed or moment | how it was mended |"
    yield "| --- | --- | --- | --- |"
    for bug in bugs:
        path, _, name = bug.test.partition("::")
        yield f"| {bug.what} | {Holder(path, name).claim} ({link(path)}) | {bug.moment} | {bug.mended} |"


def link(target: str) -> str:
    """A link from docs/ to a file of the tree, or to a heading in one."""
    path, _, heading = target.partition("#")
    shown = f"`{Path(path).name}`" if path.endswith(".py") else heading.replace("-", " ") or path
    beside = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
    return f"[{shown}]({beside}{'#' if heading else ''}{heading})"


def headings(target: str) -> set[str]:
    """The names under which a page's headings are linked."""
    found = re.findall(r"^#+ (.*)$", (ROOT / target).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in found}


if __name__ == "__main__":
    PAGE.write_text(page())
