"""What does `import perdure.actors` cost beyond `import asyncio`? In a new process each time, with compiled files on the disk.

Baseline: a process that has imported asyncio and then imports nothing. The median of `TIMES` is told, and the longest.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

from .measure import Report, answer, subprocess_answer

TIMES: Final = 15

PROGRAM: Final = """
import asyncio, importlib, json, time
begin = time.perf_counter()
importlib.import_module("perdure.actors")
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    program = directory / "imports.py"
    program.write_text(PROGRAM)
    elapsed = [(await subprocess_answer(program))["seconds"] * 1000 for _ in range(TIMES)]
    report.add("import perdure.actors, median", statistics.median(elapsed), "ms", at_most=80)
    report.add("import perdure.actors, longest", max(elapsed), "ms")


if __name__ == "__main__":
    answer(__doc__, measure)
