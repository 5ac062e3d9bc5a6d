"""One life of a host: recover, let everything come to rest, check, then work until somebody kills it.

    python -m tests.durability.rig.host PLACE [--life N] [--steps N] …

A place is a directory with a store, the ledger of what was acknowledged, and the findings: one line for each life that got as far as that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, final

from perdure.actors import Runtime
from perdure.storage import Limits, open_store

from . import plants
from .bank import ACTORS, Account, Bystander, Facts
from .buyer import Buyer
from .checker import violations
from .ledger import Acknowledgement, Ledger, Run, read_journal, read_ledger
from .load import Sender
from .order_checker import OF_ORDERS, broken_orders, broken_steps
from .orders import Order
from .peace import peace
from .remains import Remains, remains_of

SENDERS: Final = 4
ACCOUNTS: Final = 12
BIRTH: Final = 200  # bystanders that are asked at once
PEACE_WITHIN: Final = 10.0  # seconds that another process may take to come to the end of its business
TYPES: Final = (*ACTORS, Order)


@final
class Life(NamedTuple):
    """What a life is like.

    `steps`: of one sender alone; None: of several, for ever. `at_once`: requests of a sender that wait for their answer; only one where
    `max_turns`, the work that may be uncommitted, is so little that callers wait, and may overtake each other. `patience`: seconds for
    messages to be handled that are on their way. `rows`: whether every row of the store is looked at first. `serve`: until SIGTERM, and
    not until a kill.
    """

    place: Path
    life: int = 0
    steps: int | None = None
    max_active: int = 10_000
    max_turns: int = 20_000
    at_once: int = 8
    plant: str = ""
    patience: float = 10.0
    rows: bool = True
    serve: bool = False

    @property
    def url(self) -> str:
        """The store."""
        return f"lmdb:{self.place}/store"


@final
class Finding(NamedTuple):
    """What a life found when it began. `recovery`: seconds until the first ask was answered; `promises`: acknowledgements checked."""

    life: int
    recovery: float
    promises: int
    violations: list[str]


@final
class Past(NamedTuple):
    """What was there when a life began: the store's rows, and the steps' journal."""

    remains: Remains
    runs: list[Run]


async def live(life: Life, working: Callable[[], None]) -> None:
    """Live; `working` is called when the checks are done."""
    past = Past(await remains_in(life) if life.rows else Remains(), list(read_journal(life.place / "journal")) if life.rows else [])
    begun = time.perf_counter()
    async with hosted(life) as bank:
        await bank.ref(Bystander, "first").ask(Bystander.be, str(life.life))
        recovery = time.perf_counter() - begun
        try:
            async with asyncio.timeout(PEACE_WITHIN) as waiting, peace(life.place):
                waiting.reschedule(None)
                promises, found = await audit(bank, life, past)
        except TimeoutError:
            promises, found = 0, [f"A: after {PEACE_WITHIN} s another process still waits for an answer"]
        note_finding(life.place, Finding(life.life, recovery, promises, [*past.remains.problems, *found]))
        working()
        await (serve(bank, life) if life.serve else do_everything(bank, life))


def hosted(life: Life) -> Runtime:
    """The host, which lends its steps their journal."""
    resources = {"journal": Ledger(life.place / "journal"), "life": life.life}
    limits = Limits(life.max_turns, 64 << 20)
    return Runtime(life.url, TYPES, resources=resources, max_active=life.max_active, max_uncommitted=limits)


async def serve(bank: Runtime, life: Life) -> None:
    """Work until a signal says that it is enough."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(do_everything(bank, life))
        await bank.serve()
        working.cancel()


async def remains_in(life: Life) -> Remains:
    """What the last life left behind."""
    store = open_store(life.url)
    try:
        return await remains_of(store)
    finally:
        await store.close()


async def audit(bank: Runtime, life: Life, past: Past) -> tuple[int, list[str]]:
    """(how many acknowledgements there are, what is wrong), when all that is on its way has had time to arrive."""
    acknowledged = list(read_ledger(life.place / "ledger"))
    end = time.monotonic() + life.patience
    while True:
        wrong = await what_is_wrong(bank, acknowledged, life)
        if not wrong or time.monotonic() > end:
            since = [run for run in read_journal(life.place / "journal") if run.life == life.life]
            return len(acknowledged), wrong + list(broken_steps(past.remains, past.runs, since))
        await asyncio.sleep(0.005)


async def what_is_wrong(bank: Runtime, acknowledged: list[Acknowledgement], life: Life) -> list[str]:
    """At this moment: too much, as long as messages are waiting, or orders are at work."""
    for actor in (Account, Order):
        if waiting := [info async for info in bank.actors(actor) if info.events + info.interrupts or info.error]:
            return [f"A: after {life.patience} s messages are waiting still: {waiting}"]
    books = {info.id.key: await bank.ref(Order, info.id.key).query(Order.book) async for info in bank.actors(Order)}
    if busy := {key: book for key, book in books.items() if not book.idle}:
        return [f"F: after {life.patience} s orders are at work still: {busy}"]
    accounts = {info.id.key: await facts_of(bank, info.id.key) async for info in bank.actors(Account)}
    letters = [f"a dead letter: {letter}" async for letter in bank.dead_letters()]
    of_accounts = [promise for promise in acknowledged if promise.kind not in OF_ORDERS]
    return [*violations(accounts, of_accounts), *broken_orders(books, accounts, acknowledged), *letters]


async def facts_of(bank: Runtime, key: str) -> Facts:
    """All that an account knows."""
    return await bank.ref(Account, key).query(Account.facts)


async def work(bank: Runtime, life: Life) -> None:
    """Let the senders of this life work, and ask again for what the last one has asked with keys."""
    ledger = Ledger(life.place / "ledger")
    names = [f"sender {life.life}.{number}" for number in range(SENDERS if life.steps is None else 1)]
    senders = [Sender(bank, ledger, name, ACCOUNTS, life.at_once) for name in names]
    async with asyncio.TaskGroup() as tasks:
        for again in (life.life - 1, life.life):
            tasks.create_task(senders[0].repeat(f"life {again}"))
        for sender in senders:
            tasks.create_task(sender.run(life.steps))


async def trade(bank: Runtime, life: Life) -> None:
    """Make the orders of this life, and those of the last one again."""
    buyer = Buyer(bank, Ledger(life.place / "ledger"), ACCOUNTS)
    async with asyncio.TaskGroup() as tasks:
        for again in (life.life - 1, life.life):
            tasks.create_task(buyer.buy(f"order of life {again}"))


async def do_everything(bank: Runtime, life: Life) -> None:
    """Work and trade."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work(bank, life))
        tasks.create_task(trade(bank, life))


def note_finding(place: Path, finding: Finding) -> None:
    """Add a line to the findings."""
    with (place / "findings").open("a") as file:
        file.write(json.dumps(finding) + "\n")


def read_findings(place: Path) -> list[Finding]:
    """All that was found by the lives of a place."""
    path = place / "findings"
    return [Finding(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


async def populate(place: Path, bystanders: int) -> None:
    """Make a store with many actors that have nothing to do."""
    async with Runtime(f"lmdb:{place}/store", TYPES) as bank:
        for start in range(0, bystanders, BIRTH):
            keys = [f"bystander-{number}" for number in range(start, min(start + BIRTH, bystanders))]
            await asyncio.gather(*(bank.ref(Bystander, key).ask(Bystander.be, key) for key in keys))


def parsed(arguments: list[str]) -> Life:
    """A life from a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    for name, value in Life._field_defaults.items():
        kind = int if value is None else type(value)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=value)
    return Life(**vars(parser.parse_args(arguments)))


def begin(life: Life, working: Callable[[], None]) -> None:
    """A life in this process, which has nothing else to do."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that first attempts fail is part of the load
    plants.plant(life.plant)
    asyncio.run(live(life, working))


def main() -> None:
    """Live as the command line says, and say when the work begins."""
    begin(parsed(sys.argv[1:]), lambda: print("working", flush=True))


if __name__ == "__main__":
    main()
    os._exit(0)
