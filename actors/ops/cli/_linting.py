"""What `perdure lint` prints: a line for each finding, as other linters do, so that editors and build servers know what to do with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer
from rich.console import Console
from rich.text import Text

from .._tree import printable
from .._wording import counted
from ..lint import Finding, Report, Unreadable, lint
from ._looking import print_json
from ._screen import console


def report_on(paths: Iterable[Path], *, as_json: bool) -> None:
    """Lint, and print what is found. Raises typer.Exit: with 2 if a file could not be read, else with 1 if anything is found."""
    report = lint(paths)
    if as_json:
        print_json([{**finding._asdict(), "path": str(finding.path)} for finding in report.findings])
    else:
        _print(report)
    for each in report.unreadable:
        Console(stderr=True, highlight=False, emoji=False, soft_wrap=True).print(_text_of_unreadable(each))
    if report.unreadable:
        raise typer.Exit(2)
    if report.findings:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    screen = console()
    for finding in report.findings:
        screen.print(_text_of(finding), soft_wrap=True)
    if report.findings:
        screen.print(f"Found {counted(len(report.findings), 'problem')}.")
    elif not report.unreadable:
        screen.print(f"All good: {counted(report.files, 'file')}, {counted(report.types, 'durable type')}.")


def _text_of(finding: Finding) -> Text:
    place = f":{finding.line}:{finding.column}: "
    return Text.assemble((_shown(finding.path), "bold"), (place, "cyan"), (finding.code, "bold red"), f" {printable(finding.message)}")


def _text_of_unreadable(unreadable: Unreadable) -> Text:
    place = f":{unreadable.line}" if unreadable.line else ""
    return Text.assemble(("error: ", "bold red"), f"{_shown(unreadable.path)}{place}: {printable(unreadable.reason)}")


def _shown(path: Path) -> str:
    return printable(str(path))
