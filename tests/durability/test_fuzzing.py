"""Whatever stands where a record is due is a record or damage; nothing that is in it ever runs, and the host that meets it lives on."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import Runtime, _records
from perdure.actors._envelope import Envelope, Form, Kind, Parent
from perdure.actors._ids import MessageId
from perdure.actors._persistence import PARTITION, scan_pages
from perdure.actors._records import ARRIVAL_ROW, ArrivalRow, DamagedRecord, RecordFormat
from perdure.storage import keys, open_store

from ..actors.bank import Counter  # noqa: TID252  the same actors as everywhere
from .goldens.playing import goldens
from .rig.remains import FORMATS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600), pytest.mark.reliability(26)]

EVERY: dict[str, RecordFormat[Any]] = {name: found for name, found in vars(_records).items() if isinstance(found, RecordFormat)}


class Canary:
    """Sings when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def sealed(body: bytes) -> bytes:
    """A record of that body whose checksum is right."""
    return zlib.crc32(body).to_bytes(4, "little") + body


def mutated(body: bytes, rng: random.Random, canary: bytes) -> bytes:
    """Bits flipped, a piece cut out, doubled, or replaced by what is worse."""
    raw, start = bytearray(body), rng.randrange(len(body) + 1)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice([1, 1, 4])):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 1:
            del raw[start : start + rng.randrange(20)]
        case 2:
            raw[start:start] = raw[: rng.randrange(40)]
        case 3:
            raw[start : start + rng.randrange(20)] = rng.randbytes(rng.randrange(20))
        case _:
            raw[start:start] = rng.choice(
                [canary, b"\x91" * 5_000, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc1", b"\xa2\xff\xfe"]
            )
    return bytes(raw)


@pytest.mark.promise("damage-costs-one-actor")
@given(st.binary(max_size=200))
@pytest.mark.parametrize("name", EVERY)
def test_any_bytes_are_a_record_or_damaged(name: str, body: bytes) -> None:
    assert isinstance(EVERY[name].read(sealed(body)), EVERY[name]._record | DamagedRecord)
    assert isinstance(EVERY[name].read(body), DamagedRecord)


@pytest.fixture
async def bodies(tmp_path: Path) -> dict[tuple[object, ...], tuple[RecordFormat[Any], bytes]]:
    """The records of a golden store, which has all that there can be."""
    store = open_store(goldens()[-1].unpack(tmp_path / "golden"), create=False)
    found = [entry async for page in scan_pages(store, keys.below((PARTITION,))) for entry in page]
    await store.close()
    rows = [(keys.unpack(entry.key), entry.value) for entry in found]
    return {key: (FORMATS[key[1]], value[4:]) for key, value in rows if isinstance(key[1], int) and key[1] in FORMATS}


async def test_mutated_records_are_records_or_damaged(
    bodies: dict[Any, tuple[RecordFormat[Any], bytes]], tmp_path: Path, torture: bool
) -> None:
    canary, rng = tmp_path / "canary", random.Random(26)
    song, kinds = pickle.dumps(Canary(canary)), {format_ for format_, _ in bodies.values()}

    damaged = 0
    for _ in range(200 if torture else 4):
        for format_, body in bodies.values():
            damaged += isinstance(format_.read(sealed(mutated(body, rng, song))), DamagedRecord)

    print(f"{len(bodies)} records of {len(kinds)} kinds, {damaged} damaged")
    assert damaged > len(bodies)
    assert not canary.exists()


def offers(count: int, kinds: list[Kind], song: bytes, *, seal: bool) -> Iterator[bytes]:
    """What somebody may put into an inbox: messages of these kinds, with a pickle where JSON is due; and bytes that are none.

    With `seal` these have a right checksum.
    """
    rng = random.Random(26)
    for number in range(count):
        name = rng.choice(["add", "value", "renamed", "", "(damaged)", "fail_after_adding"])
        payload = rng.choice([song, b"[1]", b"{}", b"\xff"])
        envelope = Envelope(MessageId(number.to_bytes(16, "big")), rng.choice(kinds), name, payload, Form.JSON, ask=rng.random() < 0.5)
        if seal and rng.random() < 0.5:
            envelope = msgspec.structs.replace(envelope, **rng.choice(LIES))
        type_name = rng.choice(["Counter", "Counter", "None", "T" * 600]) if seal else "Counter"
        raw = ARRIVAL_ROW.pack(ArrivalRow(type_name, f"victim {number % 20}", envelope))
        if rng.random() < 0.5:
            other = mutated(raw[4:], rng, song)
            raw = sealed(other) if seal else raw[:4] + other
        yield raw


LIES: list[dict[str, Any]] = [
    {"id": b"x" * 300},
    {"id": b""},
    {"due": 1e300},
    {"due": math.nan},
    {"sent_at": math.inf},
    {"reply_to": (b"x" * 600, 1)},
    {"reply_to": (b"x" * 16, -1)},
    {"asker": ("Counter", "k" * 600, b"")},
    {"asker": ("None", "", b"x" * 600)},
    {"parent": Parent("T" * 600, "", MessageId(b""), Kind.CANCEL, supervised=True)},
    {"key": ("k" * 600, b"")},
    {"headers": {"traceparent": "none"}},
]
SENT = [Kind.EVENT, Kind.SIGNAL, Kind.DECLARED, Kind.RESULT, Kind.DELETE, Kind.RETRY]


@pytest.mark.promise("clients-hold-up-nobody")
@pytest.mark.parametrize(("kinds", "seal"), [(SENT, False), (list(Kind), True)], ids=["damaged", "forged"])
async def test_a_host_outlives_whatever_is_in_its_inbox(tmp_path: Path, kinds: list[Kind], seal: bool, torture: bool) -> None:
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    canary, url = tmp_path / "canary", f"lmdb:{tmp_path}/store"
    store = open_store(url)
    count, song = 10_000 if torture else 400, pickle.dumps(Canary(canary))
    await asyncio.gather(*(store.offer(PARTITION, offer) for offer in offers(count, kinds, song, seal=seal)))
    await store.close()

    async with Runtime(url, [Counter]) as runtime:
        assert await runtime.ref(Counter, "healthy").ask(Counter.add, 1) == 1
        await runtime.settled()
        letters = [letter async for letter in runtime.dead_letters()]

    print(f"{len(letters)} dead letters")
    assert (len(letters) > count // 4, canary.exists()) == (True, False)
