"""Damaged records: each opens and gives right data or a typed error, and costs no actor but its own."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb
import pytest
from perdure.actors import ActorId, Runtime, send_signal
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._failure import Failure
from perdure.actors._ids import MessageId
from perdure.actors._persistence import (
    PARTITION,
    arrival_key,
    put_arrival,
    put_charge,
    put_dead_letter,
    put_quarantine,
    put_reply,
    suffix_of,
)
from perdure.actors._records import Charge, DeadLetter, QuarantineRow, ReplyRow, Value
from perdure.storage import Batch, PerdureError, keys, open_store

from ..actors.bank import Counter  # noqa: TID252  the same actors as everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1200)]

HEALTHY = [f"healthy-{number}" for number in range(6)]
ODD = ["waiting", "failed", "keyed", "told", "quarantined", "arriving"]


class Variant(NamedTuple):
    """One damage: the row, and the actor that it is about, if it is about one."""

    row: tuple[object, ...]
    actor: str


@pytest.fixture
async def place(tmp_path: Path) -> Path:
    """A store with rows in every table, and nobody hosting it."""
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)
    place = tmp_path / "store"
    async with Runtime(f"lmdb:{place}", [Counter]) as runtime:
        for key in HEALTHY + ODD:
            await runtime.ref(Counter, key).ask(Counter.add, len(key))
        await runtime.ref(Counter, "keyed").options(idempotency_key="k").ask(Counter.add, 1)
        await send_signal(runtime.ref(Counter, "told"), Counter.renamed, "x")
        await runtime.ref(Counter, "waiting").send_event(Counter.fail_after_adding, 1)
        await runtime.ref(Counter, "waiting").send_event(Counter.add, 1)
    await put_rare_rows(f"lmdb:{place}")
    return place


async def put_rare_rows(url: str) -> None:
    """Those that exist only for a moment, or after a crash."""
    store = open_store(url)
    batch = Batch()
    payload = Counter.__name__.encode()
    put_arrival(batch, arrival_key(1, 1), ActorId("Counter", "arriving"), Envelope(MessageId(b"a" * 16), Kind.DECLARED, "renamed", payload))
    put_charge(batch, Charge(MessageId(b"c" * 16), 1, 2e9))
    put_reply(batch, (b"r" * 16, 1), ReplyRow(Value(payload), 2e9))
    letter = DeadLetter(Envelope(MessageId(b"d" * 16), Kind.SIGNAL, "note", payload), Failure.of(ValueError("in vain")), 3, 0, 1.0)
    put_dead_letter(batch, ActorId("Counter", "failed"), 1, letter)
    put_quarantine(batch, suffix_of(ActorId("Counter", "quarantined")), QuarantineRow(Failure.of(ValueError("stands still")), 1.0))
    await store.commit(batch, await store.own(PARTITION))
    await store.close()


async def answers(url: str) -> dict[str, object]:
    """What a host says about each actor, and what it lists; a typed error by its name."""
    said: dict[str, object] = {}
    async with Runtime(url, [Counter]) as runtime:
        refs = {key: runtime.ref(Counter, key) for key in HEALTHY + ODD}
        said |= {f"value of {key}": await outcome(ref.query(Counter.value)) for key, ref in refs.items()}
        said["again of keyed"] = await outcome(refs["keyed"].options(idempotency_key="k").ask(Counter.add, 1))
        del refs["waiting"]  # behind an event in back-off, where an ask waits too
        said |= {f"sum of {key}": await outcome(ref.ask(Counter.add, 1)) for key, ref in refs.items()}
        said["list"] = sorted([info.id.key async for info in runtime.actors()])
        said["letters"] = len([letter async for letter in runtime.dead_letters()])
        return said


async def outcome(answer: Awaitable[int]) -> int | str:
    """A value, or the name of a typed error: any other one is raised."""
    try:
        return await answer
    except PerdureError as error:
        return type(error).__name__


@contextmanager
def opened(place: Path) -> Iterator[lmdb.Transaction[bytes]]:
    """A transaction beside the back of the store."""
    with lmdb.open(str(place), lib_version=0) as environment, environment.begin(write=True) as transaction:
        yield transaction


def damage(place: Path, rng: random.Random) -> Variant:
    """Flip some bits of one value, of a table drawn first, so that rare rows have their turn."""
    with opened(place) as transaction:
        rows = {key: value for key, value in transaction.cursor() if value and key >= keys.pack((PARTITION,))}
        tables = sorted({str(keys.unpack(key)[1]) for key in rows})
        table = rng.choice(tables)
        key = rng.choice([key for key in rows if str(keys.unpack(key)[1]) == table])
        value = bytearray(rows[key])
        for _ in range(rng.choice([1, 1, 4])):
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        transaction.put(key, bytes(value))
    row = keys.unpack(key)
    return Variant(row, str(row[3]) if len(row) > 3 else "")


def wrong(sound: dict[str, object], found: dict[str, object], actor: str) -> list[str]:
    """What differs, and may not: its own actor may be refused, and what cannot be read of a message is one more dead letter."""
    may = {what for what, said in found.items() if what.endswith(f" of {actor}") and isinstance(said, str)}
    if int(str(found["letters"])) > int(str(sound["letters"])):
        may.add("letters")
    return [f"{what}: {found[what]}, not {said}" for what, said in sound.items() if found[what] != said and what not in may]


@pytest.mark.promise("damage-costs-one-actor")
@pytest.mark.reliability(12)
@pytest.mark.slow
async def test_a_damaged_record_costs_no_actor_but_its_own(place: Path, tmp_path: Path, torture: bool) -> None:
    sound = await answers(f"lmdb:{shutil.copytree(place, tmp_path / 'sound')}")

    found: dict[Variant, list[str]] = {}
    for seed in range(5_000 if torture else 500):
        copy = shutil.copytree(place, tmp_path / "copy")
        variant = damage(copy, random.Random(seed))
        found[variant] = wrong(sound, await answers(f"lmdb:{copy}"), variant.actor)
        shutil.rmtree(copy)

    assert {variant: problems for variant, problems in found.items() if problems} == {}


async def test_pages_that_were_never_written_are_no_damage(place: Path, tmp_path: Path) -> None:
    with opened(place) as transaction:
        for number in range(2_000):
            transaction.put(b"row %d" % number, bytes(50))
        for number in range(2_000):
            transaction.delete(b"row %d" % number)
    with lmdb.open(str(place), lib_version=0) as environment:
        counted = (environment.info()["last_pgno"] + 1) * 4096

    assert (place / "data.mdb").stat().st_size < counted
    assert (await answers(f"lmdb:{place}"))["list"] == sorted(HEALTHY + ODD)
