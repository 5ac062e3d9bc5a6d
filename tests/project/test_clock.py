"""Time comes from the clock that a host is given, so that tests and replay can drive it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

WALL_CLOCKS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
THE_CLOCK = "actors/_clock.py"


def wall_clocks(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCKS:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from ((node.lineno, alias.name) for alias in node.names if f"time.{alias.name}" in WALL_CLOCKS)


def test_only_the_clock_reads_the_time_of_day(trees: Mapping[str, ast.Module]) -> None:
    readers = {f"{path}:{line}": name for path, tree in trees.items() if path != THE_CLOCK for line, name in wall_clocks(tree)}

    assert readers == {}
