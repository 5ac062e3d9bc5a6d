"""A story: life after life of a host on one store, each ended by a signal at a moment drawn from the seed, and a last one in peace.

    python -m tests.durability.rig.story PLACE --seed N --kills N …

Another process does business all the while, and is killed now and then too. Lives are forked from a process that has imported everything
and opened nothing, so that a life costs milliseconds. Prints a report as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from perdure.actors._breadcrumb import BreadcrumbFile

from .customer import do_business
from .host import ACCOUNTS, Finding, Life, begin, populate, read_findings

CROWDED: Final[list[dict[str, Any]]] = [{"max_active": 3}, {"max_active": 0}]
CIRCUMSTANCES: Final[list[dict[str, Any]]] = [{}, {}, *CROWDED, {"max_turns": 40, "at_once": 1}]
PATIENCE: Final = 60.0  # seconds that a life may take to begin its work
STOPS_WITHIN: Final = 10.0  # seconds that it may take to end


@final
class Plot(NamedTuple):
    """What a story is about.

    `signal` ends its lives; `bystanders` are actors in the store with nothing to do. `crowded` is whether there is never room for all in
    memory.
    """

    place: Path
    seed: int = 0
    kills: int = 25
    bystanders: int = 0
    signal: int = int(signal.SIGKILL)
    plant: str = ""
    patience: float = 10.0
    crowded: int = 0


@final
class Report(NamedTuple):
    """What a story came to. `recoveries` in seconds, one for each life that got so far; `violations` with the life that found them."""

    kills: int
    promises: int
    recoveries: list[float]
    violations: list[str]


def tell(plot: Plot) -> Report:
    """Live and kill until the story is at its end, or something is found."""
    rng = random.Random(plot.seed)
    troubles: list[str] = []
    if status := wait(fork(lambda working: asyncio.run(populate(plot.place, plot.bystanders)))):
        return report(plot.place, 0, [f"the bystanders' birth ended with status {status}"])
    customer: int | None = None
    number = 0
    for number in range(1, plot.kills + 1):
        customer = customer or fork(partial(visit, plot.place, number))
        troubles += one_life(plot, number, rng)
        if rng.random() < 0.3 or number == plot.kills:
            troubles += end(customer)
            customer = None
        if troubles or found(read_findings(plot.place)):
            break
    else:
        troubles += epilogue(plot)
    if customer is not None:
        end(customer)
    return report(plot.place, number, troubles)


def one_life(plot: Plot, number: int, rng: random.Random) -> list[str]:
    """Begin a life and end it: one in three at any moment from its first on, the others while they work. Returns what is odd about it."""
    serve = plot.signal == signal.SIGTERM
    circumstances = rng.choice(CROWDED if plot.crowded else CIRCUMSTANCES)
    life = Life(plot.place, number, plant=plot.plant, patience=plot.patience, serve=serve, **circumstances)
    read, write = os.pipe()
    process = fork(lambda working: begin(life, lambda: os.close(write)))
    os.close(write)
    if serve or rng.random() < 2 / 3:
        select.select([read], [], [], PATIENCE)
    os.close(read)
    time.sleep(rng.uniform(0.01 * serve, 0.2))
    os.kill(process, plot.signal)
    killed = time.monotonic()
    status = wait(process)
    if (took := time.monotonic() - killed) > STOPS_WITHIN:
        return [f"life {number} ended {took:.1f} s after it was told to"]
    if status != (0 if serve else -plot.signal):
        return [f"life {number} ended with status {status}"]
    if serve and (crumb := BreadcrumbFile(plot.place / "store" / "breadcrumbs").found()):
        return [f"life {number} ended in order, and {crumb} would be charged"]
    return []


def epilogue(plot: Plot) -> list[str]:
    """A last life, that nobody ends; and what LMDB's own checker says about the store (H)."""
    if status := wait(
        fork(lambda working: begin(Life(plot.place, plot.kills + 1, steps=0, plant=plot.plant, patience=plot.patience), working))
    ):
        return [f"the last life ended with status {status}"]
    command = [sys.executable, "-m", "lmdb", "verify", str(plot.place / "store")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"H: {outcome.stdout}{outcome.stderr}"] if outcome.returncode else []


def report(place: Path, kills: int, troubles: list[str]) -> Report:
    """Everything that was found."""
    findings = read_findings(place)
    promises = max((finding.promises for finding in findings), default=0)
    return Report(kills, promises, [finding.recovery for finding in findings], troubles + found(findings))


def found(findings: list[Finding]) -> list[str]:
    """The violations in the findings."""
    return [f"life {finding.life}: {violation}" for finding in findings for violation in finding.violations]


def fork(work: Callable[[Callable[[], None]], None]) -> int:
    """Do some work in a child process, which exits with 1 if that raises; returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work(lambda: None)
        status = 0
    except BaseException:  # noqa: BLE001  nothing of the parent may go on in the child
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def visit(place: Path, number: int, working: Callable[[], None]) -> None:
    """The life of the other process."""
    asyncio.run(do_business(place, number, ACCOUNTS, trades=True))


def end(process: int) -> list[str]:
    """Kill a child that would go on for ever; returns what is odd about its end."""
    os.kill(process, signal.SIGKILL)
    status = wait(process)
    return [] if status == -signal.SIGKILL else [f"a child ended with status {status}"]


def wait(process: int) -> int:
    """The exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main() -> None:
    """Tell the story of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    for name, value in Plot._field_defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    print(json.dumps(tell(Plot(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
