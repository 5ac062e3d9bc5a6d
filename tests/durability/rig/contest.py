"""A contest: users in the host and in other processes contend for a few actors, life after life of the host, each ended by SIGKILL.

    python -m tests.durability.rig.contest PLACE --seed N --kills N …

The other processes are killed now and then, too. Prints a report as JSON: what was found in the history of it all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import select
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, final

from perdure.actors import Client, Runtime

from .lapses import LAPSES
from .registers import ACTORS, SUBJECTS, History, User, anomalies
from .story import PATIENCE, end, fork, wait

USERS: Final = {"host": 6, "client 1": 3, "client 2": 3}  # of each line of processes
FAREWELL: Final = 30  # calls of each user of the last host, which nobody kills


@final
class Contest(NamedTuple):
    """What a contest is like.

    `max_active` is what its hosts keep in memory; `lapse` is planted in all of them but the first, which makes the store.
    """

    place: Path
    seed: int = 0
    kills: int = 10
    max_active: int = 10_000
    lapse: str = ""

    @property
    def url(self) -> str:
        """The store."""
        return f"lmdb:{self.place}/store"

    @property
    def history(self) -> History:
        """What has happened; one of its own for each process."""
        return History(self.place / "history")


@final
class Report(NamedTuple):
    """What it came to: `calls` by subject, those of unknown outcome among them, and `violations`."""

    kills: int
    calls: dict[str, int]
    unheard: int
    violations: list[str]


def hold(contest: Contest) -> Report:
    """Let them contend, kill, and look at what they have heard."""
    rng = random.Random(contest.seed)
    if status := wait(fork(partial(host, contest, 0, 0))):
        return report(contest, [f"the first host ended with status {status}"])
    troubles: list[str] = []
    clients: dict[str, int] = {}
    for number in range(1, contest.kills + 1):
        for line in USERS.keys() - {"host"} - clients.keys():
            clients[line] = fork(partial(visit, contest, line, number))
        troubles += one_life(contest, number, rng)
        for line in [line for line in sorted(clients) if rng.random() < 0.3]:
            troubles += end(clients.pop(line))
    if status := wait(fork(partial(host, contest, contest.kills + 1, FAREWELL))):
        troubles.append(f"the last host ended with status {status}")
    for client in clients.values():
        troubles += end(client)
    return report(contest, troubles)


def one_life(contest: Contest, number: int, rng: random.Random) -> list[str]:
    """Begin a host and kill it: one in three at any moment from its first on, the others while they serve. Returns what is odd."""
    read, write = os.pipe()
    process = fork(lambda _: host(contest, number, None, lambda: os.close(write)))
    os.close(write)
    if rng.random() < 2 / 3:
        select.select([read], [], [], PATIENCE)
    os.close(read)
    time.sleep(rng.uniform(0.01, 0.25))
    return end(process)


def host(contest: Contest, number: int, calls: int | None, working: Callable[[], None]) -> None:
    """One life of the host; `working` is called when it serves. With `calls`, its users call so often each, and it stops in order."""
    if contest.lapse and number:
        LAPSES[contest.lapse](setattr)

    async def live() -> None:
        async with Runtime(contest.url, ACTORS, max_active=contest.max_active) as runtime:
            working()
            await contend(contest, runtime, "host", number, calls)

    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    asyncio.run(live())


def visit(contest: Contest, line: str, number: int, working: Callable[[], None]) -> None:
    """The life of another process."""

    async def live() -> None:
        async with Client(contest.url) as client:
            await contend(contest, client, line, number, None)

    asyncio.run(live())


async def contend(contest: Contest, port: Runtime | Client, line: str, number: int, calls: int | None) -> None:
    """Let the users of a process call, and one of them ask again for what those before it have not heard of."""
    history = contest.history
    users = [User(port, history, f"{line} {number}.{each}", watches=not each) for each in range(USERS[line])]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(users[0].ask_again(line))
        for user in users:
            tasks.create_task(user.run(calls))


def report(contest: Contest, troubles: list[str]) -> Report:
    """Everything that was found."""
    history = contest.history
    operations = history.operations()
    calls = {subject: len(operations[subject]) for subject in SUBJECTS}
    unheard = sum(call.returned is None for found in operations.values() for call in found.values())
    return Report(contest.kills, calls, unheard, troubles + anomalies(history))


def main() -> None:
    """Hold the contest of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    for name, value in Contest._field_defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    print(json.dumps(hold(Contest(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
