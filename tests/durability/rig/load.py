"""The load: senders that do everything a user can do, as fast as they are answered, and write down what was acknowledged.

A sender has a name that no other one ever had, so its numbers start at 1. What it asks with an idempotency key depends on the key alone,
and may be asked again by anybody, in this life or another one.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final, Protocol, final

from perdure.actors import ActorRef, send_signal

from .bank import Account, Overdrawn
from .ledger import Acknowledgement, Ledger

KEYS: Final = 12  # idempotency keys of each name

Step = Callable[[], Coroutine[Any, Any, None]]
Take = Callable[[Step], Coroutine[Any, Any, None]]


class Bank(Protocol):
    """Whatever gives references: a runtime or a client."""

    def ref(self, actor: type[Account], key: str, /) -> ActorRef[Account]:
        """A reference to an account."""
        ...


@final
class Sender:
    """One sender. `at_once`: its requests that may wait for their answers. `take` takes a step, once or until it succeeds."""

    def __init__(self, bank: Bank, ledger: Ledger, name: str, accounts: int, at_once: int = 8, take: Take = lambda step: step()) -> None:
        self._bank = bank
        self._ledger = ledger
        self._name = name
        self._take = take
        self._room = asyncio.Semaphore(at_once)
        self._keys = [f"account-{number}" for number in range(accounts)]
        self._random = random.Random(name)
        self._deposits: dict[str, int] = defaultdict(int)
        self._notes: dict[str, int] = defaultdict(int)
        self._labels = (f"{name}/{number}" for number in count())
        self._verbs: list[Callable[[str], Step]] = [
            *[self._ask, self._send, self._send_along] * 3,
            *[self._transfer] * 4,
            *[self._signal] * 2,
            self._send_late,
        ]

    async def run(self, steps: int | None = None) -> None:
        """Send until cancelled, or so many times."""
        async with asyncio.TaskGroup() as tasks:
            for _ in count() if steps is None else range(steps):
                await self._room.acquire()
                step = self._random.choice(self._verbs)(self._random.choice(self._keys))
                tasks.create_task(self._take(step)).add_done_callback(lambda _: self._room.release())

    async def repeat(self, name: str) -> None:
        """Ask all that is asked with keys under a name, each twice at once."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(KEYS):
                for _ in range(2):
                    tasks.create_task(self._ask_with_key(f"{name}:{number}"))

    def _ref(self, key: str) -> ActorRef[Account]:
        return self._bank.ref(Account, key)

    def _next_deposit(self, key: str) -> tuple[str, int, int]:
        self._deposits[key] += 1
        return self._name, self._deposits[key], self._random.randrange(1, 100)

    def _note(self, kind: str, key: str, peer: str, number: int) -> None:
        self._ledger.note(Acknowledgement(kind, key, peer, number))

    def _ask(self, key: str) -> Step:
        deposit = self._next_deposit(key)

        async def step() -> None:
            self._note("deposit", key, self._name, await self._ref(key).ask(Account.deposit, *deposit))

        return step

    def _send(self, key: str) -> Step:
        return self._sent(key, ())

    def _send_along(self, key: str) -> Step:
        return self._sent(key, tuple(self._random.choices(self._keys, k=self._random.randrange(1, 6))))

    def _sent(self, key: str, route: tuple[str, ...]) -> Step:
        deposit = self._next_deposit(key)

        async def step() -> None:
            await self._ref(key).send_event(Account.deposit, *deposit, route)
            self._note("deposit", key, self._name, deposit[1])

        return step

    def _send_late(self, key: str) -> Step:
        deposit = self._next_deposit(key)

        async def step() -> None:
            await self._ref(key).send_event(Account.deposit_late, *deposit)
            self._note("deposit", key, self._name, deposit[1])

        return step

    def _signal(self, key: str) -> Step:
        self._notes[key] += 1
        number = self._notes[key]

        async def step() -> None:
            await send_signal(self._ref(key), Account.note, self._name, number)
            self._note("note", key, self._name, number)

        return step

    def _transfer(self, key: str) -> Step:
        payee, cents, label = self._random.choice(self._keys), self._random.randrange(1, 150), next(self._labels)

        async def step() -> None:
            try:
                self._note("transfer", key, label, await self._ref(key).ask(Account.transfer, label, payee, cents))
            except Overdrawn:
                return

        return step

    async def _ask_with_key(self, idempotency_key: str) -> None:
        draw = random.Random(idempotency_key)
        key, payee, cents = draw.choice(self._keys), draw.choice(self._keys), draw.randrange(1, 150)
        ref = self._ref(key).options(idempotency_key=idempotency_key)
        if draw.random() < 0.5:
            sender = f"key {idempotency_key}"
            self._note("deposit", key, sender, await ref.ask(Account.deposit, sender, 1, cents))
            return
        try:
            self._note("transfer", key, idempotency_key, await ref.ask(Account.transfer, idempotency_key, payee, cents))
        except Overdrawn:
            return
