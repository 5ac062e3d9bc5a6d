"""The report: all that is found in some files, each thing once and in order of place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, final

from ._checks import Finding, findings_in
from ._names import Files
from ._replay import durable_types, replayed
from ._source import Source, Unreadable, python_files, read_source


@final
class Report(NamedTuple):
    """What was found; `files` and `types` are how many were looked at."""

    findings: list[Finding]
    unreadable: list[Unreadable]
    files: int
    types: int


Report.__module__ = "perdure.actors.ops.lint"


def lint(paths: Iterable[Path]) -> Report:
    """Lint files, and folders with all that is in them. What one of them imports from another is followed."""
    read = [read_source(path) for path in python_files(paths)]
    sources = [each for each in read if isinstance(each, Source)]
    types = durable_types(Files(sources))
    found = {finding[:4]: finding for function in replayed(types) for finding in findings_in(function)}
    return Report(sorted(found.values()), [each for each in read if isinstance(each, Unreadable)], len(sources), len(types))
