"""Accounts that move money by messages, and a counter with one handler of each kind."""

from __future__ import annotations

import asyncio

from perdure.actors import ActorRef, current_actor, durable_actor, on_event, on_signal, query, send_signal, signal


@durable_actor
class Account:
    """Moves money by messages: what one account gives, another gets, or nobody does."""

    def __init__(self) -> None:
        self.balance = 0
        self.received: list[tuple[str, int]] = []

    @on_event
    def deposit(self, cents: int, sender: str = "") -> int:
        self.balance += cents
        self.received.append((sender, cents))
        return self.balance

    @on_event
    def transfer(self, to: ActorRef[Account], cents: int) -> int:
        to.send_event(Account.deposit, cents, current_actor().key)
        self.balance -= cents
        if self.balance < 0:
            raise ValueError(f"{current_actor().key} has not got {cents}")
        return self.balance

    @query
    def total(self) -> int:
        return self.balance

    @query
    def received_from(self, sender: str) -> list[int]:
        return [cents for who, cents in self.received if who == sender]


@durable_actor
class Counter:
    """Counts."""

    renamed = signal(str)

    def __init__(self) -> None:
        self.count = 0
        self.notes: list[str] = []

    @on_event
    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count

    @on_event
    async def add_slowly(self, by: int) -> int:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(by):
                tasks.create_task(self._add_one())
        return self.count

    async def _add_one(self) -> None:
        await asyncio.sleep(0)
        self.count += 1

    @on_event
    def fail_after_adding(self, by: int) -> None:
        self.count += by
        raise LookupError(f"after {by}")

    @on_event
    def hop(self, left: int) -> None:
        self.count += 1
        if left:
            current_actor().ref(Counter, f"hop-{left}").send_event(Counter.hop, left - 1)

    @on_event
    def tell(self, other: ActorRef[Counter], note: str) -> None:
        send_signal(other, Counter.note, note)

    @on_signal
    def note(self, text: str) -> None:
        self.notes.append(text)

    @query
    def value(self) -> int:
        return self.count

    @query
    def all_notes(self) -> list[str]:
        return self.notes
