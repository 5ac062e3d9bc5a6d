"""Ways out of a host that are easily forgotten: with a disk that is stuck, nobody learns anything by them either."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from perdure.actors import Client, durable_actor, on_signal, send_signal
from perdure.actors.testing import World

from ..actors.bank import Counter  # noqa: TID252  the same actors as everywhere

pytestmark = [pytest.mark.anyio, pytest.mark.promise("nothing-leaves-before-durable")]


@durable_actor
class Mute:
    """Fails whatever it is told."""

    @on_signal
    def speak(self) -> None:
        raise RuntimeError("no voice")


@pytest.mark.promise("linearizable")
async def test_an_answer_to_another_process_waits_for_the_disk(tmp_path: Path) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with World([Counter], store=url) as world, Client(url) as client:
        await client.ref(Counter, "a").ask(Counter.add, 1)
        with world.slow_disk():
            asked = asyncio.ensure_future(client.ref(Counter, "a").ask(Counter.add, 1))
            read = asyncio.ensure_future(client.ref(Counter, "a").query(Counter.value))
            await asyncio.sleep(0.1)
            early = asked.done() or (read.done() and read.result() == 2)
        answers = await asked, await client.ref(Counter, "a").query(Counter.value)
        await read

    assert (early, answers) == (False, (2, 2))


@pytest.mark.promise("linearizable")
async def test_an_actor_that_left_memory_is_not_read_before_it_is_durable(tmp_path: Path) -> None:
    async with World([Counter], store=f"lmdb:{tmp_path}/store", max_active=0) as world:
        counter = world.ref(Counter, "a")
        with world.slow_disk():
            sent = asyncio.ensure_future(counter.send_event(Counter.add, 1))
            await passes_by()
            told = [asyncio.ensure_future(counter.query(Counter.value)), asyncio.ensure_future(counter.info())]
            await passes_by()
            early = [future.done() for future in told]
        await asyncio.gather(sent, *told)

    assert early == [False, False]


async def test_a_dead_letter_is_not_told_before_it_is_durable(tmp_path: Path) -> None:
    told: list[str] = []
    async with World([Mute], store=f"lmdb:{tmp_path}/store", on_dead_letter=lambda letter: told.append(letter.actor.key)) as world:
        with world.slow_disk():
            sent = asyncio.ensure_future(send_signal(world.ref(Mute, "a"), Mute.speak))
            await passes_by()
            early = list(told)
        await sent
        await world.settled()

    assert (early, told) == ([], ["a"])


async def passes_by() -> None:
    """Enough rounds of the loop for everything that could happen without the disk."""
    for _ in range(50):
        await asyncio.sleep(0)
