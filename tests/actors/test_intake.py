"""What other processes offer gets in whole, whatever state the host is in, and whatever they offer."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from perdure.actors import Runtime
from perdure.actors._define import definition_of
from perdure.actors._envelope import Envelope, Form, Kind, Parent
from perdure.actors._ids import MessageId
from perdure.actors._records import ARRIVAL_ROW, ArrivalRow
from perdure.actors.testing import World
from perdure.storage import Batch, Fence, Limits, MemoryStore, Store, StoreFull
from perdure.storage import _commit as commit_module

from .bank import Counter

pytestmark = pytest.mark.anyio


async def refuse(store: MemoryStore, batch: Batch, fence: Fence) -> bool:
    raise StoreFull("memory:")


async def offer_addition(store: Store, number: int, key: str = "a") -> None:
    payload = definition_of(Counter).event("add").encode_call((1,), {})
    envelope = Envelope(MessageId(number.to_bytes(16, "big")), Kind.EVENT, "add", payload)
    await store.offer(0, ARRIVAL_ROW.pack(ArrivalRow("Counter", key, envelope)))


@pytest.mark.promise("a-full-disk-loses-nothing")
async def test_offers_wait_while_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_module, "RETRY_WHEN_FULL", 0.01)
    store = MemoryStore()
    async with Runtime(store, [Counter], max_uncommitted=Limits(turns=1)) as runtime:
        with monkeypatch.context() as full:
            full.setattr(MemoryStore, "commit", refuse)
            for number in range(5):
                await offer_addition(store, number)
                await asyncio.sleep(0.03)
        await asyncio.sleep(0.1)

        assert await runtime.ref(Counter, "a").query(Counter.value) == 5


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_an_offer_to_an_impossible_key_becomes_a_dead_letter() -> None:
    store = MemoryStore()
    async with Runtime(store, [Counter]) as runtime:
        await offer_addition(store, 1, key="a" * 600)
        await offer_addition(store, 2)
        await runtime.settled()

        assert await runtime.ref(Counter, "a").query(Counter.value) == 1
        assert [letter.actor.type async for letter in runtime.dead_letters()] == ["(inbox)"]


@pytest.mark.promise("nothing-is-dropped-silently")
@pytest.mark.parametrize(
    "lie",
    [
        {"kind": Kind.OUTCOME},
        {"sender": "Counter/b"},
        {"asker": ("Counter", "k" * 600, b"")},
        {"parent": Parent("Counter", "b", MessageId(b""), Kind.CANCEL)},
        {"due": 1e300},
        {"id": b"x" * 300},
        {"sent_at": math.nan},
        {"reply_to": (b"x" * 16, -1)},
        {"reply_to": (b"x" * 600, 1)},
        {"type": "T" * 600},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_what_no_client_sends_is_put_aside(lie: dict[str, Any]) -> None:
    said = {"id": bytes(16), "kind": Kind.EVENT, "name": "add", "payload": b"[1]", "form": Form.JSON, **lie}
    type_name = said.pop("type", "Counter")
    store = MemoryStore()
    async with Runtime(store, [Counter]) as runtime:
        await store.offer(0, ARRIVAL_ROW.pack(ArrivalRow(type_name, "a", Envelope(**said))))
        await offer_addition(store, 2)
        await runtime.settled()

        assert await runtime.ref(Counter, "a").query(Counter.value) == 1
        assert [letter.actor.type async for letter in runtime.dead_letters()] == ["(inbox)"]


async def test_the_same_first_message_begins_the_same_life() -> None:
    lives = []
    for seed in (1, 2):
        async with World([Counter], seed=seed) as world:
            await offer_addition(world.store, 1)
            await world.settled()
            lives.append((await world.ref(Counter, "a").info()).incarnation)

    assert lives[0] == lives[1]
