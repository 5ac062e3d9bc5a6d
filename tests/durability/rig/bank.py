"""Accounts that can be audited: whatever reached one is written down in it, in order, with who sent it and that sender's number for it.

A sender numbers what it sends to one account, in each lane, from 1. So whatever is lost, doubled or out of order is a number in the wrong
place, and money that is made or lost is a sum that does not fit.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple, final

from perdure.actors import Retry, current_actor, durable_actor, on_event, on_signal, query, send_signal


@final
class Facts(NamedTuple):
    """All that an account knows: its cents; (sender, number, cents) received; (sender, number) heard; transfers made; payments by payee."""

    balance: int
    received: list[tuple[str, int, int]]
    heard: list[tuple[str, int]]
    made: list[str]
    sent: dict[str, int]


class Overdrawn(Exception):
    """There is less in the account than was to be paid."""


@durable_actor(retry=Retry(max_attempts=12, initial=timedelta(milliseconds=4), factor=1.1))
class Account:
    """Moves money by messages."""

    def __init__(self) -> None:
        self.balance = 0
        self.received: list[tuple[str, int, int]] = []
        self.heard: list[tuple[str, int]] = []
        self.made: list[str] = []
        self.sent: dict[str, int] = {}

    @on_event
    def deposit(self, sender: str, number: int, cents: int, route: tuple[str, ...] = ()) -> int:
        self.balance += cents
        self.received.append((sender, number, cents))
        if route:
            self.pay(route[0], cents, route[1:])
        return number

    @on_event
    def deposit_late(self, sender: str, number: int, cents: int) -> int:
        if current_actor().attempt == 1:
            self.balance += cents
            raise TimeoutError("the first attempt fails")
        self.balance += cents
        self.received.append((sender, number, cents))
        return number

    @on_event
    def transfer(self, label: str, payee: str, cents: int) -> int:
        self.made.append(label)
        self.pay(payee, cents, ())
        if self.balance < 0:
            raise Overdrawn(f"{current_actor().key} has not got {cents}")
        return self.sent[payee]

    @on_signal
    def note(self, sender: str, number: int) -> None:
        self.heard.append((sender, number))

    @query
    def facts(self) -> Facts:
        return Facts(self.balance, self.received, self.heard, self.made, self.sent)

    def pay(self, payee: str, cents: int, route: tuple[str, ...]) -> None:
        me, ref = current_actor().key, current_actor().ref(Account, payee)
        number = self.sent[payee] = self.sent.get(payee, 0) + 1
        self.balance -= cents
        ref.send_event(Account.deposit, me, number, cents, route)
        send_signal(ref, Account.note, me, number)


@durable_actor
class Bystander:
    """Lies in the store and has nothing to do, as most actors at most times."""

    def __init__(self) -> None:
        self.name = ""

    @on_event
    def be(self, name: str) -> str:
        self.name = name
        return name

    @query
    def called(self) -> str:
        return self.name


ACTORS = (Account, Bystander)
