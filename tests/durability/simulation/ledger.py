"""What the world outside has seen of the steps of a simulation."""

from __future__ import annotations

from typing import NamedTuple, final


class Entry(NamedTuple):
    """One call of a step's function: for which actor and operation, what it does, under which idempotency key.

    `is_durable` is whether it was on the disk that it was asked for.
    """

    actor: str
    number: int
    what: str
    key: str
    is_durable: bool


@final
class Ledger:
    """The calls of all steps, in their order. No host has a hand in it, and no crash takes anything from it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def enter(self, actor: str, number: int, what: str, key: str, *, is_durable: bool) -> int:
        """Note a call; returns its place."""
        self.entries.append(Entry(actor, number, what, key, is_durable))
        return len(self.entries) - 1
