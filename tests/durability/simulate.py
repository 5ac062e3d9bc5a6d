"""Simulations from seeds: `python -m tests.durability.simulate --seed 123 -v` plays one and prints its trace; `--seeds 1000` plays many."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from .simulation.plants import PLANTS
from .simulation.run import Report, simulate


def main() -> int:
    """Play what the arguments say; returns how many seeds found something, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="play one, and say what it found")
    parser.add_argument("--seeds", type=int, default=500, help="how many to play")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--plant", default="", help="break the product so, and play until that is found")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the trace")
    arguments = parser.parse_args()
    if arguments.plant:
        PLANTS[arguments.plant]()
    if arguments.plant and arguments.seed is None:
        return find(range(arguments.first, arguments.first + arguments.seeds))
    if arguments.seed is not None:
        return play_one(arguments.seed, verbose=arguments.verbose)
    return play_many(range(arguments.first, arguments.first + arguments.seeds), arguments.workers)


def play_one(seed: int, *, verbose: bool) -> int:
    """Play a seed, and print all there is to know."""
    report = simulate(seed, keeps_lines=verbose)
    for line in report.lines:
        print(line)
    print_problems(report)
    counts = f"{report.operations} operations, {report.turns} turns, {report.hosts} hosts"
    print(f"seed {seed}: trace {report.digest}, {counts}, {report.seconds:.2f} s")
    return bool(report.problems)


def print_problems(report: Report) -> None:
    """Print what a seed found, and how to see it again."""
    for problem in report.problems:
        print(f"seed {report.seed}: {problem}")
    if report.problems:
        print(f"    {sys.executable} -m tests.durability.simulate --seed {report.seed} -v")


def find(seeds: range) -> int:
    """Play seeds until one finds something; returns 1 if none does."""
    for seed in seeds:
        report = simulate(seed)
        if report.problems:
            print(f"seed {seed}, the {seed - seeds.start + 1}. of them: {report.problems[0][:500]}")
            return 0
    print(f"nothing was found in {len(seeds)} seeds")
    return 1


def play_many(seeds: range, workers: int) -> int:
    """Play seeds in several processes, and print how far it is."""
    failed: list[int] = []
    operations = turns = 0
    seconds, begun, said = 0.0, time.monotonic(), time.monotonic()
    with multiprocessing.Pool(workers) as pool:
        for done, report in enumerate(pool.imap_unordered(simulate, seeds, chunksize=4), 1):
            operations, turns, seconds = operations + report.operations, turns + report.turns, seconds + report.seconds
            if report.problems:
                failed.append(report.seed)
                print_problems(report)
            if time.monotonic() > said + 5 or done == len(seeds):
                said = time.monotonic()
                speed = f"{operations / seconds:,.0f} operations/s of one core"
                print(f"{done} of {len(seeds)} seeds, {len(failed)} of them found something; {speed}", flush=True)
    print(f"{operations:,} operations, {turns:,} turns, {time.monotonic() - begun:.0f} s")
    print(f"seeds that found something: {sorted(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
