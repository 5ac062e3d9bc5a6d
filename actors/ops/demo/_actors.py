"""The actors of the demo: an order of a shop, and a case of any process log.

Neither of them looks whether it has seen an event before: that each is applied once is the host's promise, and what the demo counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, final

from ... import durable_actor, on_event, query

STATUSES: Final = frozenset(("placed", "paid", "packed", "shipped", "delivered", "returned", "refunded", "cancelled"))


@final
@durable_actor
class Order:
    """An order: what is in it, what is owed and paid for it in cents, and the ids of the events it was told, in their order."""

    __module__ = "perdure.actors.ops.demo"

    def __init__(self) -> None:
        self.status = "new"
        self.lines: dict[str, int] = {}
        self.owed = 0
        self.paid = 0
        self.events: list[str] = []
        self.updated: datetime | None = None

    @on_event
    def record(self, id: str, event: str, at: datetime, sku: str = "", quantity: int = 1, cents: int = 0) -> int:  # noqa: A002  as in the feed
        """Take one event of the feed into account; returns how many there are now. `cents` is the price of one, or the sum paid."""
        if event in STATUSES:
            self.status = event
        match event:
            case "line added":
                self.lines[sku] = self.lines.get(sku, 0) + quantity
                self.owed += quantity * cents
            case "line removed":
                self.lines[sku] = self.lines.get(sku, 0) - quantity
                self.owed -= quantity * cents
            case "paid":
                self.paid += cents
            case "refunded":
                self.paid -= cents
        self.events.append(id)
        self.updated = at
        return len(self.events)

    @query
    def history(self) -> list[str]:
        """The ids of all events, in the order in which they were applied."""
        return self.events


@final
@durable_actor
class Case:
    """A case of a process log: its last activity, and the ids of its events in their order."""

    __module__ = "perdure.actors.ops.demo"

    def __init__(self) -> None:
        self.status = "new"
        self.events: list[str] = []
        self.updated: datetime | None = None

    @on_event
    def record(self, id: str, event: str, at: datetime) -> int:  # noqa: A002  as in the feed
        """Note one event; returns how many there are now."""
        self.status = event
        self.events.append(id)
        self.updated = at
        return len(self.events)

    @query
    def history(self) -> list[str]:
        """The ids of all events, in the order in which they were applied."""
        return self.events
