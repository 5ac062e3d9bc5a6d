"""Writes `orders.jsonl`, the demo's feed: the same bytes each time, since chance is seeded.

python -m perdure.actors.ops.demo._generate >orders.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, NamedTuple, TypeAlias

import msgspec

ORDERS: Final = 200
SEED: Final = 20260302
OPENING: Final = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
OPEN_FOR: Final = timedelta(days=5).total_seconds()
PRICES: Final = {
    "mug-blue": 1290,
    "mug-red": 1290,
    "teapot": 4900,
    "kettle-1l": 3450,
    "sencha-100g": 1180,
    "assam-250g": 990,
    "earl-grey-250g": 1050,
    "strainer": 640,
    "honey-dipper": 480,
    "tea-towel": 850,
    "gift-box": 390,
    "sugar-bowl": 1575,
}
CARRIERS: Final = ("parcel", "bike", "locker")
HOURS: Final = {
    "line added": (0.01, 0.2),
    "line removed": (0.01, 0.2),
    "address changed": (0.02, 0.5),
    "payment failed": (0.02, 0.3),
    "paid": (0.02, 2.0),
    "packed": (1.0, 20.0),
    "shipped": (0.5, 9.0),
    "out for delivery": (10.0, 40.0),
    "delivery attempted": (0.5, 6.0),
    "delivered": (0.5, 24.0),
    "reviewed": (20.0, 90.0),
    "returned": (30.0, 150.0),
    "refunded": (3.0, 40.0),
    "cancelled": (0.2, 5.0),
}

Details: TypeAlias = dict[str, str | int]


class Happening(NamedTuple):
    """An event before it has a number."""

    at: datetime
    order: str
    event: str
    details: Details


def life_of(chance: Random) -> Iterator[tuple[str, Details]]:
    """What happens to one order, in its order."""
    yield "placed", {"customer": f"c-{chance.randrange(1, 150):03}"}
    lines: list[tuple[str, int]] = []
    for sku in chance.sample(sorted(PRICES), chance.choice((1, 2, 2, 3, 3, 4, 5))):
        lines.append((sku, chance.choice((1, 1, 1, 2, 2, 4))))
        yield "line added", {"sku": sku, "quantity": lines[-1][1], "cents": PRICES[sku]}
    if len(lines) > 1 and chance.random() < 0.2:
        sku, quantity = lines.pop(0)
        yield "line removed", {"sku": sku, "quantity": quantity, "cents": PRICES[sku]}
    total = sum(PRICES[sku] * quantity for sku, quantity in lines)
    if chance.random() < 0.12:
        yield "address changed", {}
    if chance.random() < 0.08:
        yield "cancelled", {"reason": chance.choice(("changed mind", "found cheaper", "ordered twice"))}
        return
    while chance.random() < 0.15:
        yield "payment failed", {"cents": total}
    yield "paid", {"cents": total}
    yield from _journey(chance, total)


def _journey(chance: Random, total: int) -> Iterator[tuple[str, Details]]:
    yield "packed", {"parcels": chance.choice((1, 1, 1, 2))}
    yield "shipped", {"carrier": chance.choice(CARRIERS)}
    yield "out for delivery", {}
    while chance.random() < 0.25:
        yield "delivery attempted", {}
        yield "out for delivery", {}
    yield "delivered", {}
    if chance.random() < 0.3:
        yield "reviewed", {"stars": chance.choice((2, 4, 4, 5, 5, 5))}
    if chance.random() < 0.15:
        yield "returned", {}
        yield "refunded", {"cents": total}


def happenings(chance: Random) -> Iterator[Happening]:
    """What happens to all orders, one order after the other."""
    for number in range(ORDERS):
        at = OPENING + timedelta(seconds=chance.randrange(int(OPEN_FOR)))
        for event, details in life_of(chance):
            if event in HOURS:
                earliest, latest = HOURS[event]
                at += timedelta(seconds=chance.randrange(int(earliest * 3600), int(latest * 3600)))
            yield Happening(at, f"o-{1001 + number}", event, details)


def feed() -> Iterator[bytes]:
    """The lines of the feed, as all orders' events come in over the days."""
    for number, (at, order, event, details) in enumerate(sorted(happenings(Random(SEED)), key=lambda each: each[:2]), 1):
        yield msgspec.json.encode({"id": f"e-{number:05}", "order": order, "event": event, "at": at, **details}) + b"\n"


if __name__ == "__main__":
    sys.stdout.buffer.writelines(feed())
