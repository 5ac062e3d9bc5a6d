"""A tearoom before a deploy: accounts that are idle, orders that wait, and what has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from perdure.actors import Runtime, durable_actor, on_event, on_timer, send_signal, set_timer, signal, step, wait_for_signal, workflow

AT_ONCE: Final = 500


@step(name="charge")
async def charge(what: str) -> str:
    """Take the money."""
    return f"charged {what}"


@durable_actor
class Account:
    """Idle between two events."""

    def __init__(self) -> None:
        self.cents = 0

    @on_event
    def add(self, cents: int) -> int:
        """Add something."""
        self.cents += cents
        return self.cents

    @on_event
    def remind(self) -> None:
        """Set a timer."""
        set_timer(Account.reminded, after=timedelta(days=30))

    @on_timer
    def reminded(self) -> None:
        """Hear of it."""


@durable_actor
class Order:
    """Waits for approval, and hears of changes meanwhile."""

    approved = signal(str)

    def __init__(self) -> None:
        self.changes: list[str] = []

    @workflow
    async def run(self, what: str) -> str:
        """Charge, and wait."""
        await charge(what)
        await wait_for_signal(Order.approved)
        return what

    @on_event
    def change(self, what: str) -> None:
        """Remember a change."""
        self.changes.append(what)

    @on_event
    async def hold(self) -> None:
        """Let other events wait."""
        await asyncio.sleep(86400)


async def order(runtime: Runtime, number: int, changes: int) -> None:
    """An order, one of which is for ham, and changes of it."""
    ref = await runtime.start(Order.run, f"o-{number}", "ham" if number == 1 else "tea")
    for change in range(changes):
        await ref.send_event(Order.change, f"change {change}")


def batched(numbers: range) -> Iterator[range]:
    """As many at a time as may be under way together."""
    return (numbers[start : start + AT_ONCE] for start in range(0, len(numbers), AT_ONCE))


async def trade(url: str, accounts: int = 2, orders: int = 2, changes: int = 1) -> None:
    """Leave so many of each, and one order that has ended."""
    async with Runtime(url, actors=[Account, Order]) as runtime:
        for numbers in batched(range(accounts)):
            await asyncio.gather(*(runtime.ref(Account, f"a-{number}").send_event(Account.add, number) for number in numbers))
        for numbers in batched(range(orders)):
            await asyncio.gather(*(order(runtime, number, changes) for number in numbers))
        ended = await runtime.start(Order.run, "ended", "cup")
        await send_signal(ended, Order.approved, "ada")
        await ended.result()
        await runtime.settled()
