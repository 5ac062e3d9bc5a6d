"""A kiosk: actors whose states hold something of everything, for the tests of the command line."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from perdure.actors import ActorRef, Retry, durable_actor, on_event, on_signal, query, signal


class Colour(Enum):
    """A value that is found by its class."""

    RED = "red"


@dataclass
class Line:
    """A value with attributes."""

    sku: str
    quantity: int


@durable_actor(retry=Retry(max_attempts=1))
class Basket:
    """Pickled; refuses what is less than nothing."""

    approved = signal(str)

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.colour = Colour.RED
        self.since = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
        self.recent: deque[str] = deque(maxlen=3)
        self.friend: ActorRef[Basket] | None = None

    @on_event
    def add(self, sku: str, quantity: int = 1) -> int:
        """Put something in."""
        if quantity < 0:
            raise ValueError("less than nothing")
        self.lines.append(Line(sku, quantity))
        self.recent.append(sku)
        return len(self.lines)

    @on_event
    def befriend(self, friend: ActorRef[Basket]) -> None:
        """Keep a reference: there is no JSON for it, so the handler is opaque."""
        self.friend = friend

    @on_signal
    def clear(self) -> None:
        """Take everything out."""
        self.lines.clear()

    @query
    def skus(self) -> list[str]:
        """What is in it."""
        return [line.sku for line in self.lines]


@durable_actor(retry=Retry(max_attempts=5, initial=timedelta(hours=1), maximum=timedelta(hours=1)))
class Till:
    """Fails at its first event, and waits for an hour."""

    @on_event
    def pay(self, cents: int) -> None:
        """Raise."""
        raise RuntimeError("the drawer is stuck")


@durable_actor(codec="msgspec")
class Note:
    """Readable by anything."""

    text: str = ""

    @on_event
    def write(self, text: str) -> None:
        """Keep a text."""
        self.text = text
