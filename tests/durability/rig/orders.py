"""Orders that can be audited: whatever one has done, heard and been told is written down in it, in order.

What an order comes to follows from its price alone, whenever its host is killed. A step writes its idempotency key into a journal before
anybody can know that it ran.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Final, NamedTuple, final

from perdure.actors import (
    Retry,
    Step,
    StepFailed,
    current_actor,
    durable_actor,
    emit,
    on_event,
    on_timer,
    query,
    set_timer,
    signal,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)

from .bank import Account
from .ledger import Run

APPROVALS: Final = 2
LINES: Final = 3
PAYMENTS: Final = 2
NAPS: Final = 3
STEPS: Final = 3
INTERRUPTED_AT_MOST: Final = 3  # attempts that die with their host before a step is given up
WORTH: Final = sum(range(APPROVALS + 1)) + sum(range(LINES + 1)) + sum(range(PAYMENTS + 1)) + NAPS + 1  # the last for the bell


@final
class Book(NamedTuple):
    """All that an order knows: keys of its steps that were done, or given up; what it heard, was told and paid, in order; its timers.

    `idle` is whether it waits for nobody but its buyer; `earned` what it came to, None while it has not ended.
    """

    begun: bool
    idle: bool
    done: list[str]
    given_up: list[str]
    approvals: list[int]
    lines: list[int]
    payments: list[int]
    naps: int
    rung: int
    early: list[str]
    earned: int | None


def account_of(order: str, accounts: int) -> str:
    """Whom an order pays."""
    return f"account-{random.Random(order).randrange(accounts)}"


# --- steps ---


def note_run(*, fails: bool = False) -> str:
    """Write down that this attempt is made; returns the idempotency key."""
    info = step_info()
    info.resources["journal"].note(Run(info.idempotency_key, info.attempt, info.resources["life"], fails))
    return info.idempotency_key


@step
async def reserve(price: int) -> str:
    """Done at the first attempt."""
    return note_run()


@step
def charge(price: int) -> str:
    """The same in a thread."""
    return note_run()


@step(retry=Retry(max_attempts=50, initial=timedelta(milliseconds=4), factor=1.1))
async def ship(price: int) -> str:
    """The first attempt fails."""
    fails = step_info().attempt == 1
    key = note_run(fails=fails)
    if fails:
        raise ConnectionError("the first attempt fails")
    return key


# --- the order ---


@durable_actor
class Order:
    """Waits in every way: for steps, time, signals, events, another actor, and for its own state."""

    approved = signal(int)

    def __init__(self) -> None:
        self.begun = False
        self.idle = True
        self.adding = 0
        self.done: list[str] = []
        self.given_up: list[str] = []
        self.approvals: list[int] = []
        self.lines: list[int] = []
        self.payments: list[int] = []
        self.naps = 0
        self.rung = 0
        self.early: list[str] = []
        self.earned: int | None = None

    @on_event
    async def add_line(self, number: int) -> int:
        self.adding += 1
        await asyncio.sleep(0.001)
        self.adding -= 1
        self.lines.append(number)
        return number

    @on_timer
    def ring(self) -> None:
        self.rung += 1

    @workflow
    async def run(self, price: int, account: str) -> int:
        self.begun, self.idle = True, False
        set_timer(Order.ring, after=timedelta(days=1))
        set_timer(Order.ring, after=timedelta(milliseconds=price))
        await self.do(reserve, price)
        emit("reserved", price)
        await self.hear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.do(charge, price))
            for number in range(NAPS):
                tasks.create_task(self.nap(number * price / 5_000))
            tasks.create_task(self.pay(account, price))
        emit("paid", price)
        await wait_until(lambda: self.rung > 0)
        self.idle = True
        await wait_until(lambda: len(self.lines) >= LINES)
        self.idle = False
        await self.do(ship, price)
        emit("shipped", price)
        self.idle = True
        self.earned = price * (sum(self.approvals) + sum(self.lines) + sum(self.payments) + self.naps + self.rung)
        return self.earned

    @query
    def book(self) -> Book:
        return Book(
            self.begun,
            self.idle and not self.adding,
            self.done,
            self.given_up,
            self.approvals,
            self.lines,
            self.payments,
            self.naps,
            self.rung,
            self.early,
            self.earned,
        )

    async def do(self, work: Step[[int], str], price: int) -> None:
        """Have a step done, and ask for it anew where hosts died under it too often."""
        while True:
            try:
                self.done.append(await work(price))
                return
            except StepFailed as failed:
                if failed.interrupted < INTERRUPTED_AT_MOST:
                    raise
                self.given_up.append(failed.idempotency_key)

    async def hear(self) -> None:
        self.idle = True
        for _ in range(APPROVALS):
            self.approvals.append(await wait_for_signal(Order.approved))
        self.idle = False

    async def nap(self, seconds: float) -> None:
        begun = current_actor().now()
        await asyncio.sleep(seconds)
        slept = (current_actor().now() - begun).total_seconds()
        self.naps += 1
        if slept < seconds - 1e-5:  # moments are told in microseconds
            self.early.append(f"{slept} s, and not {seconds}")

    async def pay(self, account: str, cents: int) -> None:
        me, ref = current_actor().key, current_actor().ref(Account, account)
        self.payments += await asyncio.gather(*(ref.ask(Account.deposit, me, number, cents) for number in range(1, PAYMENTS + 1)))
