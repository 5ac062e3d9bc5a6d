"""What a host takes up of a store when it starts, and what it lets stand, though others stand beside it that are none of its business."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from perdure.actors import ActorId, MigrationFailed, NotDeserializable, UnknownActorType
from perdure.actors._activation import Delivery
from perdure.actors._define import definition_of
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._failure import Failure
from perdure.actors._ids import MessageId
from perdure.actors._mailbox import LaneQueue
from perdure.actors._persistence import (
    PARTITION,
    PREFIX,
    Table,
    arrival_key,
    put_arrival,
    put_lane,
    put_quarantine,
    put_registry_entry,
    read_registered,
    scan_quarantined,
    suffix_of,
)
from perdure.actors._records import Lane, QuarantineRow
from perdure.actors._recovery import find_work, put_registry
from perdure.actors._registry import Registry
from perdure.storage import Batch, MemoryDisk, MemoryStore

from .bank import Account, Counter

pytestmark = pytest.mark.anyio

UNREADABLE = NotDeserializable("lost.Guilder", "its class is gone")
MENDED = MigrationFailed(ActorId("Counter", "c"), 1, 2, "no path")
BROKEN = ValueError("a bug")


class Found:
    """A store of the last host, and what the next one, which serves counters and accounts, makes of it: an epoch and a dispatcher."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.batch = Batch()
        self.work: list[str] = []
        self.delivered: list[str] = []
        self.buried: list[tuple[str, str, str]] = []
        self.commit = SimpleNamespace(overlay=MemoryStore(self.disk), batch=self.batch)
        self.registry = Registry([definition_of(cls) for cls in (Account, Counter)])
        self.listener = None
        self.settlement = SimpleNamespace(books=SimpleNamespace(telling=self))

    def put(self, put: Any, *arguments: Any) -> None:
        """Stage something as the last host did."""
        batch = Batch()
        put(batch, *arguments)
        self.disk.apply(batch, PARTITION)

    def stands(self, actor: ActorId, why: Exception) -> None:
        self.put(put_quarantine, suffix_of(actor), QuarantineRow(Failure.of(why), 1e9))

    def damage(self, table: Table) -> None:
        """Change the first row of a table."""
        first = min(key for key in self.disk.rows if key.startswith(PREFIX[table]))
        self.disk.rows[first] = self.disk.rows[first][:-1] + b"?"

    def found_with_work(self, actor: ActorId) -> None:
        self.work.append(str(actor))

    def deliver(self, actor: ActorId, delivery: Delivery) -> None:
        if not self.registry.serves(actor.type):
            raise UnknownActorType(actor.type, ["Account", "Counter"])
        self.delivered.append(f"{actor} {delivery.envelope.name}")

    def bury(self, actor: ActorId, envelope: Envelope, why: Exception) -> None:
        self.buried.append((str(actor), envelope.name, type(why).__name__))

    async def take_up(self) -> None:
        await find_work(self, self)  # type: ignore[arg-type]
        self.disk.apply(self.batch, PARTITION)


@pytest.fixture
async def found() -> Found:
    return Found()


def event(name: str) -> Envelope:
    return Envelope(id=MessageId(b""), kind=Kind.EVENT, name=name, payload=b"")


async def test_what_stood_still_for_want_of_its_class_is_tried_again(found: Found) -> None:
    standing = {"a": UNREADABLE, "b": BROKEN, "c": MENDED, "d": UNREADABLE}
    for key, why in standing.items():
        found.stands(ActorId("Counter", key), why)
    found.stands(ActorId("Archive", "z"), UNREADABLE)

    await found.take_up()

    assert found.work == ["Counter/a", "Counter/c", "Counter/d"]
    assert [str(actor) async for actor, _ in scan_quarantined(found.commit.overlay)] == ["Archive/z", "Counter/b", "Counter/c"]


async def test_a_damaged_reason_to_stand_still_stays_and_hides_no_other(found: Found) -> None:
    for key in "ab":
        found.stands(ActorId("Counter", key), UNREADABLE)
    found.damage(Table.QUARANTINE)

    await found.take_up()

    assert found.work == ["Counter/b"]
    assert [str(actor) async for actor, _ in scan_quarantined(found.commit.overlay)] == ["Counter/a"]


async def test_each_mailbox_with_messages_is_found_once(found: Found) -> None:
    for key in "ab":
        lane = LaneQueue(0)
        for seq in (1, 2):
            lane.append(seq, event("add"))
        found.put(put_lane, suffix_of(ActorId("Counter", key)), Lane.EVENTS, lane)

    await found.take_up()

    assert found.work == ["Counter/a", "Counter/b"]


async def test_arrivals_come_in_their_order_or_are_buried(found: Found) -> None:
    for number, name in enumerate(["Counter", "Archive", "Account", "Counter"]):
        found.put(put_arrival, arrival_key(1, number), ActorId(name, "a"), event(f"event-{number}"))
    found.damage(Table.ARRIVAL)
    first = min(found.disk.rows)

    await found.take_up()

    assert found.delivered == ["Account/a event-2", "Counter/a event-3"]
    assert found.buried == [(f"(arrivals)/{first.hex()}", "(damaged)", "DamagedRecord"), ("Archive/a", "event-1", "UnknownActorType")]
    assert sorted(found.disk.rows) == [arrival_key(1, 2), arrival_key(1, 3)]


async def test_the_registry_names_what_is_hosted_and_what_others_host(found: Found) -> None:
    for name, version in (("Archive", 1), ("Counter", 1), ("Counter", 7)):
        found.put(put_registry_entry, name, version, b"of before")

    await put_registry(found)  # type: ignore[arg-type]
    found.disk.apply(found.batch, PARTITION)

    registered = {(name, version): entry == b"of before" for name, version, entry in await read_registered(found.commit.overlay)}
    assert registered == {("Account", 1): False, ("Archive", 1): True, ("Counter", 1): False}


@pytest.mark.parametrize(("name", "count"), [("Archive", 1), ("Counter", 0), ("Shelf", 0)])
async def test_actors_of_a_type_that_is_not_served_are_told_of(
    found: Found, name: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    for registered in ("Archive", "Counter", "Shelf"):
        found.put(put_registry_entry, registered, 1, b"")
    for of in ("Archive", "Counter"):
        found.put(lambda batch, key: batch.put(key, b""), PREFIX[Table.ACTOR] + suffix_of(ActorId(of, "a")))

    await put_registry(found)  # type: ignore[arg-type]

    assert sum(f"the store has actors of type {name}, which is not served here" in line for line in caplog.messages) == count
