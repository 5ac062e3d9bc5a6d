"""What does an ask from another process cost, beside one inside the host? In time, at its 50th percentile.

Baseline `inside`: a sequential ask of one actor, by the process that hosts it. `client`: the same by a `Client` in a process of its own,
while the host does nothing else: its message is made durable in the inbox first, then by the host together with its turn, so there are two
durable writes one after the other. They take turns in rounds of `ROUND`, and the medians over all rounds are compared.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

from perdure.actors import Client, Runtime

from .measure import Report, answer, durations, percentile
from .tally import Tally

ROUNDS: Final = 12
ROUND: Final = 50


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    url = f"lmdb:{directory / 'actors'}"
    async with Runtime(url, actors=[Tally]) as runtime:
        tally = runtime.ref(Tally, "inside")
        other = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.client", url, stdin=PIPE, stdout=PIPE)
        await one_round(other)  # not counted: it connects
        inside: list[float] = []
        outside: list[float] = []
        for _ in range(ROUNDS):
            inside += await durations(ROUND, lambda: tally.ask(Tally.add, 1))
            outside += await one_round(other)
        await other.communicate(b"")  # the end of its input
    base = statistics.median(inside)
    report.add("ask inside, p50", base * 1e6, "µs")
    report.add("ask by a client, p50", statistics.median(outside) * 1e6, "µs")
    report.add("ask by a client, p99", percentile(outside, 99) * 1e6, "µs")
    report.add("ask by a client / inside", statistics.median(outside) / base, "", at_most=3)


async def one_round(other: asyncio.subprocess.Process) -> list[float]:
    """Let the other process ask, and get its durations in seconds."""
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(b"\n")
    measured: list[float] = json.loads(await other.stdout.readline())
    return measured


async def ask_from_here(url: str) -> None:
    """In the other process: a round for each line of input."""
    async with Client(url) as client:
        tally = client.ref(Tally, "outside")
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await durations(ROUND, lambda: tally.ask(Tally.add, 1))), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].startswith("lmdb:"):
        asyncio.run(ask_from_here(sys.argv[1]))
    else:
        answer(__doc__, measure)
