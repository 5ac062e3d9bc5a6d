"""A key is any text of at most 200 bytes, in every place where a key goes; anything else is refused by a typed error at the call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from perdure.actors import Client, InvalidKey, KeyTooLong, Retry, Runtime, current_actor, durable_actor, on_event, workflow

pytestmark = [pytest.mark.anyio, pytest.mark.promise("a-key-is-any-text"), pytest.mark.reliability(20)]

GOOD: Final = {
    "empty": "",
    "200 bytes": "k" * 200,
    "200 bytes of two each": "é" * 100,
    "200 times NUL": "\0" * 200,
    "NUL": "a\0b",
    "emoji": "👩\u200d👩\u200d👧🏳\ufe0f\u200d🌈",
    "beyond all planes": "\U0010ffff" * 50,
    "slash": "/a//b/",
    "path": "../../etc",
    "newline": "a\r\nb\n",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd",
    "combining": "e\u0301",
    "composed": "\u00e9",
    "bytes of no text": "\xff\xfe",
    "format": "%s {} \\",
    "space": " ",
}
BAD: Final[dict[str, tuple[object, type[Exception]]]] = {
    "201 bytes": ("k" * 201, KeyTooLong),
    "201 bytes of few characters": ("é" * 100 + "k", KeyTooLong),
    "lone surrogate": ("a\ud800b", InvalidKey),
    "number": (7, InvalidKey),
    "bytes": (b"k", InvalidKey),
    "nothing": (None, InvalidKey),
}

Port = Runtime | Client


@durable_actor(retry=Retry(max_attempts=1))
class Locker:
    """Has a key."""

    def __init__(self) -> None:
        self.opened = 0

    @on_event
    def open(self) -> int:
        self.opened += 1
        return self.opened

    @on_event
    def jam(self) -> None:
        raise OSError("it does not open")

    @on_event
    async def open_another(self, key: str) -> int:
        return await current_actor().ref(Locker, key).ask(Locker.open)

    @on_event
    async def start_another(self, key: str) -> str:
        return await (await current_actor().start(Locker.run, key)).result()

    @workflow
    async def run(self) -> str:
        return current_actor().key


@pytest.fixture(params=["memory", "lmdb", "client"])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Port]:
    """What carries requests: a host on each store, and a client of one; the key's neighbours exist already."""
    url = "memory:" if request.param == "memory" else f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Locker]) as runtime:
        for neighbour in ("j", "k", "l"):
            await runtime.ref(Locker, neighbour).ask(Locker.open)
        if request.param != "client":
            yield runtime
            return
        async with Client(url, [Locker]) as client:
            yield client


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
async def test_an_odd_key_reaches_one_actor_by_every_way(port: Port, key: str) -> None:
    locker, other = port.ref(Locker, key), port.ref(Locker, "other")

    assert await locker.ask(Locker.open) == 1
    assert await other.ask(Locker.open_another, key) == 2
    assert (await locker.info()).id.key == key
    assert await other.ask(Locker.start_another, key) == key
    assert await (await port.start(Locker.run, key)).result() == key


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
async def test_an_odd_key_is_found_in_every_list(port: Port, key: str) -> None:
    locker = port.ref(Locker, key)
    await locker.send_event(Locker.jam)
    await locker.ask(Locker.open)

    listed = [info.id.key async for info in port.actors(Locker)]
    assert listed == sorted({*listed, key}, key=str.encode)
    assert [info.id.key async for info in port.actors(Locker, prefix=key)] == [each for each in listed if each.startswith(key)]
    assert [letter.actor.key async for letter in port.dead_letters(Locker, key)] == [key]
    assert [letter.actor.key async for letter in port.dead_letters()] == [key]


@pytest.mark.parametrize("key", [*GOOD.values(), "k" * 201, "k" * 100_000], ids=[*GOOD, "201 bytes", "100,000 bytes"])
async def test_an_odd_idempotency_key_is_one_key(port: Port, key: str) -> None:
    locker = port.ref(Locker, "a")

    first = await locker.options(idempotency_key=key).ask(Locker.open)
    await locker.options(idempotency_key=f"{key}.").send_event(Locker.open)
    again = await locker.options(idempotency_key=key, timeout=timedelta(seconds=30)).ask(Locker.open)

    assert (first, again) == (1, 1)
    assert await locker.ask(Locker.open) == 3


@pytest.mark.parametrize(("key", "error"), BAD.values(), ids=BAD)
async def test_what_is_no_key_is_refused_at_the_call(port: Port, key: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        port.ref(Locker, key)
    with pytest.raises(error):
        await port.start(Locker.run, key)
    for handler in (Locker.open_another, Locker.start_another):
        with pytest.raises(error):
            await port.ref(Locker, "a").ask(handler, key)


@pytest.mark.parametrize("key", ["a\ud800b", 7, b"k"])
async def test_what_is_no_idempotency_key_is_refused_at_the_call(port: Port, key: str) -> None:
    with pytest.raises(InvalidKey):
        await port.ref(Locker, "a").options(idempotency_key=key).ask(Locker.open)
    with pytest.raises(InvalidKey):
        await port.options(idempotency_key=key).start(Locker.run, "a")


@pytest.mark.parametrize("key", ["a\ud800b", "k" * 201])
async def test_what_is_no_key_is_looked_for_in_no_list(port: Port, key: str) -> None:
    for listing in (port.actors(prefix=key), port.actors(Locker, prefix=key), port.dead_letters(Locker, key)):
        with pytest.raises(InvalidKey):
            await anext(aiter(listing))
