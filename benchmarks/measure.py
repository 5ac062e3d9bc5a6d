"""What the benchmarks have in common: a question, its figures, and how they are shown.

What is compared was measured in one run, turn about, on one disk: the ratios mean something on a busy machine too, the absolute figures
less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, final

import lmdb

T = TypeVar("T")

MAP_SIZE: Final = 1 << 30  # bytes


class Figure(NamedTuple):
    """One measured number; `at_most` or `at_least` is its target, if it has one."""

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met; empty without one."""
        if self.at_most is not None:
            return "met" if self.value <= self.at_most else "missed"
        if self.at_least is not None:
            return "met" if self.value >= self.at_least else "missed"
        return ""

    @property
    def target(self) -> str:
        """The target as text."""
        if self.at_most is not None:
            return f"<= {self.at_most:,g}"
        return "" if self.at_least is None else f">= {self.at_least:,g}"


@final
class Report:
    """The figures that answer one question."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.figures: list[Figure] = []

    def add(self, what: str, value: float, unit: str, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """Take in a figure, with its target if it has one."""
        self.figures.append(Figure(what, value, unit, at_most, at_least))

    def __str__(self) -> str:
        rows = [(figure.what, f"{figure.value:,.4g} {figure.unit}".strip(), figure.target, figure.verdict) for figure in self.figures]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.question, *(f"  {line}" for line in lines)])

    def write(self, path: Path) -> None:
        """Write the figures as JSON, with what they were measured on."""
        machine = {"python": platform.python_version(), "system": platform.platform(), "lmdb": lmdb.__version__}
        figures = [figure._asdict() | {"verdict": figure.verdict} for figure in self.figures]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"question": self.question, "machine": machine, "figures": figures}, indent=2) + "\n")


def answer(question: str | None, measure: Callable[[Report, Path], Coroutine[None, None, None]]) -> None:
    """The main program of a benchmark: let it measure in a directory of its own, print the table, write JSON if that is wanted."""
    first_line = (question or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=first_line)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file, too")
    parser.add_argument("--directory", type=Path, help="where the stores are made (default: the directory for temporary files)")
    options = parser.parse_args()
    report = Report(first_line)
    with tempfile.TemporaryDirectory(prefix="perdure-", dir=options.directory) as directory:
        asyncio.run(measure(report, Path(directory)))
    print(report)
    if options.json is not None:
        report.write(options.json)


@contextmanager
def bare_environment(path: Path) -> Iterator[lmdb.Environment]:
    """An LMDB environment with the options of a store (fsync with each commit, no write map), and nothing around it."""
    path.mkdir()
    with lmdb.open(str(path), MAP_SIZE, mode=0o600, max_readers=1024, max_spare_txns=4, lib_version=0) as environment:
        yield environment


async def together(count: int, calls: Iterator[Awaitable[object]]) -> None:
    """Await all calls, so many at a time."""

    async def work_off() -> None:
        for call in calls:
            await call

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(work_off())


async def durations(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """How long each of some awaited calls took, one after the other; in seconds."""
    measured: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        await call()
        measured.append(time.perf_counter() - begin)
    return measured


def durations_of(count: int, call: Callable[[], object]) -> list[float]:
    """How long each of some plain calls took; in seconds."""
    measured: list[float] = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        measured.append(time.perf_counter() - begin)
    return measured


def percentile(measured: Sequence[float], percent: int) -> float:
    """The value that so many in a hundred do not exceed."""
    return statistics.quantiles(measured, n=100, method="inclusive")[percent - 1]


async def subprocess_answer(program: str | Path, *arguments: object) -> dict[str, float]:
    """The JSON object that a program (its path, or the name of a module) prints in a process of its own."""
    how = (str(program),) if isinstance(program, Path) else ("-m", program)
    command = (sys.executable, *how, *map(str, arguments))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    found: dict[str, float] = json.loads(output)
    return found
