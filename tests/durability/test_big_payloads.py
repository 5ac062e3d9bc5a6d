"""A payload of 64 MiB goes wherever a small one goes; where one may be too long, the refusal names the limit, and all goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from perdure.actors import (
    Client,
    PayloadTooLong,
    Runtime,
    current_actor,
    durable_actor,
    emit,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors._frames import MAX_FRAME

pytestmark = [pytest.mark.reliability(20), pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120)]

BIG: Final = 64 << 20  # bytes
TOO_BIG: Final = MAX_FRAME

Port = Runtime | Client


@step
async def fetch(size: int) -> bytes:
    return bytes(size)


@durable_actor
class Crate:
    """Takes, keeps and gives as much as it is told to."""

    note = signal(bytes)

    def __init__(self) -> None:
        self.kept = b""
        self.sizes: list[int] = []

    @on_event
    def take(self, data: bytes) -> int:
        self.sizes.append(len(data))
        return len(data)

    @on_event
    def keep(self, size: int) -> None:
        self.kept = bytes(size)

    @on_event
    def give(self, size: int) -> bytes:
        return bytes(size)

    @on_event
    async def load(self, size: int) -> int:
        return len(await fetch(size))

    @on_event
    async def listen(self) -> int:
        heard = await wait_for_signal(Crate.note)
        return len(heard)

    @on_event
    def pass_on(self, size: int) -> None:
        current_actor().ref(Crate, "other").send_event(Crate.take, bytes(size))

    @on_event
    def publish(self, size: int) -> None:
        emit("item", bytes(size))

    @on_signal
    def hear(self, data: bytes) -> None:
        self.sizes.append(len(data))

    @query
    def look(self, data: bytes = b"") -> tuple[list[int], int]:
        return self.sizes, len(self.kept)

    @query
    def show(self, size: int) -> bytes:
        return bytes(size)

    @workflow
    async def run(self, data: bytes) -> bytes:
        return data


@pytest.fixture(params=["memory", "lmdb", "client"])
async def port(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Port]:
    """What carries requests: a host on each store, and a client of one."""
    url = "memory:" if request.param == "memory" else f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Crate]) as runtime:
        if request.param != "client":
            yield runtime
            return
        async with Client(url, [Crate]) as client:
            yield client


async def test_events_and_signals_carry_big_payloads(port: Port) -> None:
    crate = port.ref(Crate, "a")

    assert await crate.ask(Crate.take, bytes(BIG)) == BIG
    await crate.send_event(Crate.take, bytes(BIG + 1))
    await send_signal(crate, Crate.note, bytes(BIG))
    assert await crate.ask(Crate.listen) == BIG
    await send_signal(crate, Crate.hear, bytes(BIG + 2))
    await crate.ask(Crate.take, b"")

    assert await crate.query(Crate.look) == ([BIG, BIG + 1, BIG + 2, 0], 0)


async def test_states_results_and_streams_may_be_big(port: Port) -> None:
    crate = port.ref(Crate, "a")

    assert await crate.ask(Crate.load, BIG) == BIG
    await crate.ask(Crate.keep, BIG)
    await crate.ask(Crate.pass_on, BIG)
    await crate.ask(Crate.publish, BIG)

    assert await crate.query(Crate.look, bytes(BIG)) == ([], BIG)
    assert len(await crate.query(Crate.show, BIG)) == len(await crate.ask(Crate.give, BIG)) == BIG
    assert len((await anext(aiter(crate.stream()))).payload) == BIG
    assert await port.ref(Crate, "other").ask(Crate.take, b"") == 0
    assert await port.ref(Crate, "other").query(Crate.look) == ([BIG, 0], 0)


async def test_a_workflow_may_be_given_and_return_big_values(port: Port) -> None:
    running = await port.start(Crate.run, "a", bytes(BIG))

    assert len(await running.result()) == BIG


async def test_what_is_too_long_for_a_client_is_refused_with_the_limit(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Crate]) as runtime, Client(url, [Crate]) as client:
        crate, running = client.ref(Crate, "a"), await client.start(Crate.run, "b", bytes(TOO_BIG))

        for asked in (crate.ask(Crate.give, TOO_BIG), crate.query(Crate.show, TOO_BIG), running.result()):
            with pytest.raises(PayloadTooLong, match=f"the answer has .* and {MAX_FRAME} are allowed"):
                await asked
        with pytest.raises(PayloadTooLong, match=f"what 'look' of Crate/a is given .* and {MAX_FRAME} are allowed"):
            await crate.query(Crate.look, bytes(TOO_BIG))

        assert await crate.ask(Crate.take, bytes(TOO_BIG)) == TOO_BIG
        assert len(await runtime.ref(Crate.run, "b").result()) == TOO_BIG


async def test_big_payloads_outlive_their_host(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Crate]) as runtime:
        await runtime.ref(Crate, "a").ask(Crate.keep, BIG)
    async with Client(url) as client:
        await asyncio.gather(*(client.ref(Crate, "a").send_event(Crate.take, bytes(BIG + number)) for number in range(3)))

    async with Runtime(url, [Crate]) as runtime:
        await runtime.settled()
        assert await runtime.ref(Crate, "a").query(Crate.look) == ([BIG, BIG + 1, BIG + 2], BIG)
