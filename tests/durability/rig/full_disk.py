"""A host under load on a disk that is full again and again: what senders and readers meet meanwhile, and what is there afterwards.

    python -m tests.durability.rig.full_disk PLACE ROUNDS SECONDS

PLACE/disk is a small disk, with the store on it; the ledger is beside it. In each round something else takes what is left of the disk,
keeps it for so many seconds, and gives it back; the host is never started again. Prints a report as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, final

from perdure.actors import Client, Runtime
from perdure.storage import StoreFull

from .bank import Bystander
from .host import ACCOUNTS, Life, Past, audit, facts_of, hosted, live, read_findings
from .ledger import Ledger
from .load import Sender, Step
from .remains import Remains

SENDERS: Final = 6  # of the host's own
CUSTOMERS: Final = 2  # that come by a client
ABSENT: Final = "read from the store"
LOAD: Final = 30  # acknowledgements of each sender before each round
PATIENCE: Final = 60.0  # seconds that anything may take to come about
NOTICED: Final = 0.1  # seconds until a host that has given up its reserve has said so
AGAIN: Final = 0.05  # seconds between tries
CHUNKS: Final = (1 << 20, 1 << 12)  # bytes, in which a disk is filled


@final
class Report(NamedTuple):
    """What came of it: how many sends were refused, and how many acknowledged in all; the slowest of each kind in seconds."""

    refusals: int
    slowest_refusal: float
    reads: int
    slowest_read: float
    slowest_resumption: float
    acknowledged: int
    violations: list[str]


@final
class Meter:
    """Takes the senders' steps until they succeed, and notes how often and how soon they were refused."""

    def __init__(self) -> None:
        self.taken: list[float] = []  # when
        self.refused: list[float] = []  # after how many seconds

    async def take(self, step: Step) -> None:
        """Take a step; what is refused has not happened, so it is taken again."""
        while True:
            began = time.monotonic()
            try:
                await step()
            except StoreFull:
                self.refused.append(time.monotonic() - began)
                await asyncio.sleep(AGAIN)
            else:
                self.taken.append(time.monotonic())
                return


@final
class Filler:
    """A file that takes all that is left of a disk, also what becomes free meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def grow(self) -> None:
        """Take what there is."""
        with self._path.open("ab", buffering=0) as file:
            for size in CHUNKS:
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def go(self) -> None:
        """Give everything back."""
        self._path.unlink()


@final
class Crowd:
    """Senders that never give up, at a host, on a disk where something else may take all the room."""

    def __init__(self, bank: Runtime, client: Client, place: Path) -> None:
        self._bank = bank
        self._filler = Filler(place / "disk" / "filler")
        self.meters = [Meter() for _ in range(SENDERS + CUSTOMERS)]
        self._ballast = place / "disk" / "store" / "ballast"
        self.reads: list[float] = []
        self.sends: list[float] = []  # of those who came while the disk was full
        self.resumptions: list[float] = []
        ledger, ports = Ledger(place / "ledger"), [bank] * SENDERS + [client] * CUSTOMERS
        self._senders = [
            Sender(port, ledger, f"sender {number}", ACCOUNTS, 1, meter.take)
            for number, (port, meter) in enumerate(zip(ports, self.meters, strict=True))
        ]

    async def work(self) -> None:
        """Send for ever."""
        await asyncio.gather(*(sender.run() for sender in self._senders))

    async def round(self, seconds: float, *, greedy: bool) -> None:
        """Fill the disk, look around for so many seconds, and give the room back.

        Who is greedy takes what the store gives up, too: then the batch under way waits, and who asks for what is in it, even to read.
        """
        before = [len(meter.taken) for meter in self.meters]
        await until(lambda: all(len(meter.taken) > LOAD + count for meter, count in zip(self.meters, before, strict=True)), "no load")
        own = self.meters[:SENDERS]
        refused = [len(meter.refused) for meter in own]
        await until(self._full, "the store does not notice that its disk is full")
        if greedy:
            await asyncio.sleep(NOTICED)
        else:
            await until(lambda: all(len(meter.refused) > count for meter, count in zip(own, refused, strict=True)), "somebody sends still")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if greedy:
                self._filler.grow()
            else:
                await self._timed(self.reads, facts_of(self._bank, "account-0"))
            await self._look_around()
        free = time.monotonic()
        self._filler.go()
        self.resumptions.append(await until(lambda: all(meter.taken[-1] > free for meter in self.meters), "not everybody goes on"))

    def report(self, violations: list[str]) -> Report:
        """What came of it."""
        refused = self.sends + [took for meter in self.meters for took in meter.refused]
        reads, taken = self.reads, sum(len(meter.taken) for meter in self.meters)
        return Report(len(refused), max(refused), len(reads), max(reads), max(self.resumptions), taken, violations)

    def _full(self) -> bool:
        if not self._ballast.exists():
            return True
        self._filler.grow()
        return False

    async def _look_around(self) -> None:
        """Send, as somebody who has just come, and read."""
        with suppress(StoreFull):
            await self._timed(self.sends, self._bank.ref(Bystander, "new").send_event(Bystander.be, "new"))
            raise AssertionError("a send is taken on a full disk")
        await self._timed(self.reads, self._bank.ref(Bystander, ABSENT).query(Bystander.called))
        await asyncio.sleep(0.01)

    async def _timed(self, times: list[float], done: Awaitable[object]) -> None:
        began = time.monotonic()
        try:
            await done
        finally:
            times.append(time.monotonic() - began)


async def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for something; returns how many seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(what)
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def run(place: Path, rounds: int, seconds: float) -> Report:
    """All rounds; what is wrong is looked for at their end, and by the next host."""
    life = Life(place, 1, rows=False)
    async with hosted(life) as bank, Client(life.url) as client:
        await bank.ref(Bystander, ABSENT).ask(Bystander.be, ABSENT)
        crowd = Crowd(bank, client, place)
        working = asyncio.ensure_future(crowd.work())
        for number in range(rounds):
            await crowd.round(seconds, greedy=number % 2 == 1)
        working.cancel()
        await asyncio.wait([working])
        _, wrong = await audit(bank, life, Past(Remains(), []))
    await live(Life(place, 2, steps=0), lambda: None)
    (finding,) = read_findings(place)
    return crowd.report(wrong + finding.violations)


def main() -> None:
    """Do as the command line says."""
    _, place, rounds, seconds = sys.argv
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that first attempts fail is part of the load
    (Path(place) / "store").symlink_to(Path(place) / "disk" / "store")
    print(json.dumps(asyncio.run(run(Path(place), int(rounds), float(seconds)))))


if __name__ == "__main__":
    main()
