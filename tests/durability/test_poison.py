"""Messages that kill their host: counted across crashes, put aside after three, and nobody else is charged."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Final

import pytest
from perdure.actors import Client, DeadLetterInfo, Runtime, send_signal
from perdure.actors._breadcrumb import BreadcrumbFile, Crumb, Phase
from perdure.actors._ids import MessageId
from perdure.actors._persistence import PARTITION
from perdure.actors._records import Charge
from perdure.actors._recovery import read_and_charge
from perdure.actors.testing import World
from perdure.storage import Batch, MemoryDisk, MemoryStore

from ..actors.bank import Counter  # noqa: TID252  the same actors as everywhere
from .rig.fuse import Fuse

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

LIVES: Final = 3  # that a message may cost
DEATHS: Final = {"exit": 3, "interrupt": -signal.SIGINT, "kill": -signal.SIGKILL, "block": 70}


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """A store that has been hosted once, so that clients know the types."""
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Fuse]):
        return url


@contextmanager
def hosted(url: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A host in a process of its own, which has begun; stopped in order at the end if it lives."""
    command = [sys.executable, "-m", "tests.durability.rig.fuse", url]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() in {"hosting\n", ""}
            yield process
        finally:
            process.terminate()


def lives(url: str, root: Path, count: int) -> list[int]:
    """Host so many times, each until something ends it; returns how."""
    ends = []
    for _ in range(count):
        with hosted(url, root) as process:
            ends.append(process.wait(30))
    return ends


async def letters(client: Client) -> list[DeadLetterInfo]:
    return [letter async for letter in client.dead_letters()]


@pytest.mark.promise("poison-is-put-aside")
@pytest.mark.reliability(16)
@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
async def test_a_message_that_kills_its_host_is_put_aside(url: str, death: str, pytestconfig: pytest.Config) -> None:
    async with Client(url) as client:
        await client.ref(Fuse, "poison").send_event(death)
        others = [client.ref(Fuse, f"other-{number}") for number in range(5)]
        counts = [asyncio.ensure_future(other.ask(Fuse.add)) for other in others]
        ends = await asyncio.to_thread(lives, url, pytestconfig.rootpath, LIVES)
        with hosted(url, pytestconfig.rootpath):
            again = [await other.ask(Fuse.add) for other in others]
            (letter,) = await letters(client)

    assert ends == [DEATHS[death]] * LIVES
    assert (letter.actor.key, letter.handler, letter.interrupted) == ("poison", death, LIVES)
    assert f"HandlerInterrupted: the host died {LIVES} times" in letter.error
    assert ([await count for count in counts], again) == ([1] * 5, [2] * 5)


@pytest.mark.promise("poison-is-put-aside")
@pytest.mark.slow
async def test_failed_and_interrupted_attempts_are_counted_apart(url: str, pytestconfig: pytest.Config) -> None:
    async with Client(url) as client:
        await client.ref(Fuse, "poison").send_event(Fuse.stumble)
        ends = await asyncio.to_thread(lives, url, pytestconfig.rootpath, 2)
        with hosted(url, pytestconfig.rootpath):
            count = await client.ref(Fuse, "poison").ask(Fuse.add)
            (letter,) = await letters(client)

    assert (ends, count) == ([3, 3], 1)
    assert (letter.failed, letter.interrupted) == (3, 2)


@pytest.mark.promise("quarantine-touches-no-other")
@pytest.mark.slow
async def test_a_state_that_kills_its_host_is_quarantined(url: str, pytestconfig: pytest.Config) -> None:
    async with Client(url) as client:
        poison, other = client.ref(Fuse, "poison"), client.ref(Fuse, "other")
        with hosted(url, pytestconfig.rootpath):
            await poison.ask(Fuse.arm)
        await poison.send_event(Fuse.add)
        ends = await asyncio.to_thread(lives, url, pytestconfig.rootpath, LIVES)
        with hosted(url, pytestconfig.rootpath):
            count = await other.ask(Fuse.add)
            info = await poison.info()

    assert ends == [3] * LIVES
    assert (info.status, info.events) == ("quarantined", 1)
    assert count == 1


@pytest.mark.promise("poison-is-put-aside")
async def test_killing_an_idle_host_charges_nobody(url: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    async with Client(url) as client:
        with hosted(url, pytestconfig.rootpath) as process:
            await client.ref(Fuse, "a").ask(Fuse.add)
            process.kill()
            process.wait()

    assert BreadcrumbFile(tmp_path / "store" / "breadcrumbs").found() is None


async def test_a_host_that_dies_before_it_takes_the_crumb_away_charges_once() -> None:
    store, crumb = MemoryStore(MemoryDisk()), Crumb(Phase.TURN, b"m", 7)
    fence = await store.own(PARTITION)

    interrupted = []
    for found in (crumb, crumb, crumb._replace(epoch=8)):
        batch = Batch()
        interrupted += [charge.interrupted for charge in (await read_and_charge(store, batch, found, 1e9)).values()]
        await store.commit(batch, fence)

    assert interrupted == [1, 1, 2]


@pytest.mark.promise("exactly-once-state")
async def test_a_charged_event_that_waited_while_its_actor_left_memory_is_handled_once(tmp_path: Path) -> None:
    async with World([Counter], store=f"lmdb:{tmp_path}/store", max_active=0) as world:
        counter = world.ref(Counter, "a")
        with world.slow_disk():
            sent = [await sending(counter.send_event(Counter.add, 1))]
            charge_next(world)
            sent.append(await sending(counter.send_event(Counter.add, 10)))
            sent.append(await sending(world.ref(Counter, "b").send_event(Counter.add, 1)))
            sent.append(await sending(send_signal(counter, Counter.note, "heard")))
        await asyncio.gather(*sent)
        await world.settled()

        await world.restart()

        assert (await counter.query(Counter.value), await counter.query(Counter.all_notes)) == (11, ["heard"])


async def sending(sent: Awaitable[None]) -> asyncio.Future[None]:
    """Send, and give everything that does not need the disk the time to happen."""
    sending = asyncio.ensure_future(sent)
    for _ in range(50):
        await asyncio.sleep(0)
    return sending


def charge_next(world: World) -> None:
    """As if a host had died in the message that is sent next."""
    host = world.runtime._host
    assert host is not None
    message = MessageId(copy(host.epoch.entropy).token())
    host.epoch.charges[message] = Charge(message, 1, world.clock.now())
