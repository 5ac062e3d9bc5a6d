"""A buyer: orders what follows from a name alone, so that anybody may do it again, in this life or another one.

Everything it sends is idempotent: whatever it is not sure of, it sends once more.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final, final

from perdure.actors import Client, Runtime, send_signal

from .ledger import Acknowledgement, Ledger
from .orders import APPROVALS, LINES, Order, account_of

ORDERS: Final = 6  # of each name


@final
class Buyer:
    """Buys, and writes down what was acknowledged."""

    def __init__(self, shop: Runtime | Client, ledger: Ledger, accounts: int) -> None:
        self._shop = shop
        self._ledger = ledger
        self._accounts = accounts

    async def buy(self, name: str) -> None:
        """Make all orders of a name, and wait for what they come to."""
        await self.order(name)
        await self.earn(name)

    async def order(self, name: str) -> None:
        """Make them, and tell them all that they wait for."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(ORDERS):
                tasks.create_task(self._order(f"{name}/{number}"))

    async def earn(self, name: str) -> None:
        """Wait for what they come to; that moves no money."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(ORDERS):
                tasks.create_task(self._earn(f"{name}/{number}"))

    async def _order(self, key: str) -> None:
        draw = random.Random(key)
        sent = [self._start(key, draw.randrange(1, 50)), self._approve(key), self._add_lines(key)]
        draw.shuffle(sent)
        await asyncio.gather(*sent)

    async def _earn(self, key: str) -> None:
        self._note("earned", key, await self._shop.ref(Order.run, key).result())

    async def _start(self, key: str, price: int) -> None:
        await self._shop.start(Order.run, key, price, account_of(key, self._accounts))
        self._note("order", key, price)

    async def _approve(self, key: str) -> None:
        for number in range(1, APPROVALS + 1):
            await send_signal(self._shop.ref(Order, key).options(idempotency_key=f"approval {number}"), Order.approved, number)
            self._note("approval", key, number)

    async def _add_lines(self, key: str) -> None:
        for number in range(1, LINES + 1):
            ref = self._shop.ref(Order, key).options(idempotency_key=f"line {number}")
            if number % 2:
                await ref.send_event(Order.add_line, number)
            else:
                await ref.ask(Order.add_line, number)
            self._note("line", key, number)

    def _note(self, kind: str, key: str, number: int) -> None:
        self._ledger.note(Acknowledgement(kind, key, "", number))
