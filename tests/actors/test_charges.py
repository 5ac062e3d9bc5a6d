"""What a host died in is charged once, and of the steps that ran with it the outcome is in doubt."""

from __future__ import annotations

import pytest
from perdure.actors import ActorId
from perdure.actors._breadcrumb import Crumb, Phase
from perdure.actors._ids import MessageId
from perdure.actors._persistence import PARTITION, PREFIX, Table, put_charge, put_request, suffix_of
from perdure.actors._records import Charge, RequestKind, RequestRow
from perdure.actors._recovery import read_and_charge, read_and_charge_requests
from perdure.storage import Batch, MemoryDisk, MemoryStore

pytestmark = pytest.mark.anyio

NOW = 1e9
WEEK = 7 * 86_400.0
CLERK = ActorId("Clerk", "c")


def id_of(name: str) -> MessageId:
    return MessageId(name.encode().rjust(25, b"."))


def request(name: str, kind: RequestKind = RequestKind.STEP, *, uncertain: bool = False) -> RequestRow:
    return RequestRow(kind, name, id_of(name), b"", uncertain=uncertain)


@pytest.fixture
def disk() -> MemoryDisk:
    """What the last host left."""
    return MemoryDisk()


@pytest.fixture
async def store(disk: MemoryDisk) -> MemoryStore:
    return MemoryStore(disk)


def left(disk: MemoryDisk, *rows: RequestRow | Charge) -> None:
    batch = Batch()
    for row in rows:
        if isinstance(row, Charge):
            put_charge(batch, row)
        else:
            put_request(batch, suffix_of(CLERK), row)
    disk.apply(batch, PARTITION)


async def doubts(store: MemoryStore, steps: dict[bytes, Phase], *, is_lost: bool = False) -> tuple[dict[str, tuple[int, bool]], int]:
    """(interrupted, uncertain) of what is outstanding, and how many records of it are written anew."""
    batch = Batch()
    outstanding = await read_and_charge_requests(store, batch, steps, is_lost=is_lost)
    return {row.name: (row.interrupted, row.uncertain) for _, row in outstanding}, len(batch.puts)


@pytest.mark.parametrize(("phase", "what"), [(Phase.TURN, "a turn"), (Phase.DECODE, "decoding an actor")])
async def test_it_is_said_what_a_host_died_in(store: MemoryStore, caplog: pytest.LogCaptureFixture, phase: Phase, what: str) -> None:
    await read_and_charge(store, Batch(), Crumb(phase, b"m", 1), NOW)

    assert f"the last host died in {what} (6d), for the 1. time" in caplog.text


async def test_a_charge_of_a_late_epoch_is_known_again(store: MemoryStore, disk: MemoryDisk) -> None:
    left(disk, Charge(MessageId(b"m"), 2, NOW - 1, epoch=100_000))

    charges = await read_and_charge(store, Batch(), Crumb(Phase.TURN, b"m", 100_000), NOW)

    assert charges[MessageId(b"m")].interrupted == 2


async def test_a_charge_is_forgotten_after_a_week(store: MemoryStore, disk: MemoryDisk) -> None:
    left(disk, Charge(MessageId(b"old"), 1, NOW - WEEK - 1), Charge(MessageId(b"young"), 1, NOW - WEEK + 1))

    assert [*await read_and_charge(store, Batch(), None, NOW)] == [b"young"]


async def test_a_step_that_ran_is_charged_and_one_that_ended_is_in_doubt(
    store: MemoryStore, disk: MemoryDisk, caplog: pytest.LogCaptureFixture
) -> None:
    left(disk, request("ran"), request("ended"), request("waits"), request("asks", RequestKind.ASK))

    found = await doubts(store, {id_of("ran"): Phase.STEP, id_of("ended"): Phase.ENDED})

    assert found == ({"ran": (1, True), "ended": (0, True), "waits": (0, False), "asks": (0, False)}, 2)
    assert [record.message for record in caplog.records] == ["the last host died while the step ran of Clerk/c ran, for the 1. time"]


async def test_all_steps_are_in_doubt_once_nobody_knows_which_ran(store: MemoryStore, disk: MemoryDisk) -> None:
    left(disk, request("step"), request("doubted", uncertain=True), request("asks", RequestKind.ASK), request("sleeps", RequestKind.TIMER))

    found = await doubts(store, {}, is_lost=True)

    assert found == ({"step": (0, True), "doubted": (0, True), "asks": (0, False), "sleeps": (0, False)}, 1)


async def test_a_damaged_request_hides_no_other(store: MemoryStore, disk: MemoryDisk, caplog: pytest.LogCaptureFixture) -> None:
    left(disk, request("first"), request("second"))
    first = min(key for key in disk.rows if key.startswith(PREFIX[Table.REQUEST]))
    disk.rows[first] = disk.rows[first][:-1] + b"?"

    assert [*(await doubts(store, {}))[0]] == ["second"]
    assert "Clerk/c waits for something whose record is damaged" in caplog.text
