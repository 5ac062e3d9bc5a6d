"""What is damaged stands still, and nothing is written over it."""

from __future__ import annotations

import pytest
from perdure.actors import ActorId, ActorQuarantined, Runtime
from perdure.actors._activation import MAX_INTERRUPTED
from perdure.actors._ids import MessageId
from perdure.actors._persistence import PREFIX, Table, key_digest, put_charge
from perdure.actors._records import Charge
from perdure.storage import Batch, MemoryDisk, MemoryStore

from .bank import Counter

pytestmark = pytest.mark.anyio


@pytest.fixture
async def disk() -> MemoryDisk:
    """Holds a counter with three messages that wait."""
    disk = MemoryDisk()
    async with Runtime(MemoryStore(disk), [Counter]) as runtime:
        for _ in range(3):
            await runtime.ref(Counter, "a").send_event(Counter.fail_after_adding, 1)
    return disk


def rows(disk: MemoryDisk, table: Table) -> dict[bytes, bytes]:
    return {key: value for key, value in disk.rows.items() if key.startswith(PREFIX[table])}


@pytest.mark.promise("quarantine-keeps-everything", "quarantine-touches-no-other", "damage-costs-one-actor")
@pytest.mark.parametrize("table", [Table.ACTOR, Table.MAILBOX])
async def test_nothing_is_written_over_the_messages_of_a_damaged_actor(disk: MemoryDisk, table: Table) -> None:
    damaged = max(rows(disk, table))
    disk.rows[damaged] = disk.rows[damaged][:-1] + b"?"
    before = rows(disk, Table.MAILBOX)

    async with Runtime(MemoryStore(disk), [Counter], max_active=0) as runtime:
        for _ in range(3):
            with pytest.raises(ActorQuarantined):
                await runtime.ref(Counter, "a").send_event(Counter.add, 1)
            await runtime.ref(Counter, "b").ask(Counter.add, 1)
        with pytest.raises(ActorQuarantined):
            await runtime.ref(Counter, "a").retry()

    assert rows(disk, Table.MAILBOX) == before


@pytest.mark.parametrize("verb", ["retry", "delete"])
async def test_what_killed_hosts_while_it_was_decoded_is_tried_again_when_told(disk: MemoryDisk, verb: str) -> None:
    charges = Batch()
    put_charge(charges, Charge(MessageId(key_digest(str(ActorId("Counter", "a")))), MAX_INTERRUPTED, at=1e12))
    disk.apply(charges, 0)

    async with Runtime(MemoryStore(disk), [Counter]) as runtime:
        counter = runtime.ref(Counter, "a")
        with pytest.raises(ActorQuarantined):
            await counter.ask(Counter.add, 1)
        await (counter.retry() if verb == "retry" else counter.delete())

        assert (await counter.info()).status == "idle" if verb == "retry" else await counter.ask(Counter.add, 1) == 1
