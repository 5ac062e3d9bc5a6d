"""Clients: what they send is durable at once, what they ask is answered whatever becomes of the host, and mistakes are refused before."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from perdure.actors import (
    ActorCompleted,
    ActorNotFound,
    ActorRef,
    AskTimeout,
    Client,
    HostNotRunning,
    IdempotencyMismatch,
    RuntimeNotRunning,
    UnknownActorType,
    UnknownHandler,
    _link,
    durable_actor,
    on_event,
    send_signal,
    workflow,
)
from perdure.actors._persistence import read_host
from perdure.actors.testing import CrashPoint, World
from perdure.storage import StoreError, below, open_store

from .bank import Account, Counter
from .conftest import MakeWorld
from .host import HostProcess

pytestmark = pytest.mark.anyio

REPLIES = 10  # the number of their table
AT_ONCE = timedelta(seconds=0.05)


@durable_actor
class Stranger:
    """A type that no host of the store has ever served."""

    @on_event
    def greet(self) -> None: ...


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """Only a store on the disk has clients."""
    return f"lmdb:{tmp_path}/store"


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """Hosts the store, in the client's own process."""
    return await make_world(Account, Counter)


@pytest.fixture
async def client(world: World, store_url: str) -> AsyncIterator[Client]:
    """A client of the world's store."""
    async with Client(store_url) as client:
        yield client


@pytest.fixture
async def lonely(store_url: str) -> AsyncIterator[Client]:
    """A client of a store that had a host once, and has none now."""
    async with World([Account, Counter], store=store_url) as world:
        await world.ref(Counter, "old").ask(Counter.add, 7)
    async with Client(store_url) as client:
        yield client


async def reply_count(url: str) -> int:
    """How many outcomes are kept for clients."""
    store = open_store(url, create=False)
    try:
        return len(await store.scan(below((0, REPLIES)), limit=1000))
    finally:
        await store.close()


async def door_of(url: str) -> Path:
    """The socket of whoever hosts the store, or hosted it last."""
    store = open_store(url, create=False)
    try:
        host = await read_host(store)
    finally:
        await store.close()
    assert host is not None
    return Path(host.door)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds; a test's time-out ends the wait."""
    while not await condition():  # noqa: ASYNC110  (what is waited for happens in another process, or in the store)
        await asyncio.sleep(0.005)


@durable_actor
class Errand:
    """Has a workflow, by which alone a client learns of it."""

    @workflow
    async def run(self, what: str) -> str:
        return f"{what} is done"


# --- with a host ---


async def test_a_workflow_alone_leads_a_client_to_its_class(make_world: MakeWorld, store_url: str) -> None:
    await make_world(Errand)

    async with Client(store_url) as client:
        errand = await client.start(Errand.run, "e", "shopping")

        assert await client.ref(Errand.run, "e").result() == await errand.result() == "shopping is done"


async def test_a_client_reaches_actors_with_every_verb(client: Client) -> None:
    counter = client.ref(Counter, "a")

    assert await counter.ask(Counter.add, 3) == 3
    await counter.send_event(Counter.add, by=2)
    await send_signal(counter, Counter.note, "hello")
    await send_signal(counter, Counter.renamed, "b")
    assert await counter.ask(Counter.add, 0) == 5
    assert await counter.query(Counter.all_notes) == ["hello"]
    assert (await counter.info()).events == 0


async def test_what_a_handler_raises_reaches_the_client(client: Client) -> None:
    counter = client.ref(Counter, "a")

    with pytest.raises(LookupError, match="after 3") as raised:
        await counter.ask(Counter.fail_after_adding, 3)

    assert "in fail_after_adding" in raised.value.__notes__[0]
    assert await counter.query(Counter.value) == 0


async def test_references_from_a_client_work_in_the_host(client: Client) -> None:
    ada, bob = client.ref(Account, "ada"), client.ref(Account, "bob")
    await ada.ask(Account.deposit, 100)

    await ada.ask(Account.transfer, bob, 30)
    await bob.ask(Account.deposit, 0)

    assert await bob.query(Account.received_from, "ada") == [30]


@pytest.mark.promise("order-per-sender-and-lane")
async def test_messages_of_one_client_keep_their_order(client: Client) -> None:
    bob = client.ref(Account, "bob")

    await asyncio.gather(*(bob.send_event(Account.deposit, cents, "ada") for cents in range(100)))
    await bob.ask(Account.deposit, 0)

    assert await bob.query(Account.received_from, "ada") == list(range(100))


@pytest.mark.promise("keys-happen-once")
async def test_the_same_key_happens_once_over_all_processes(world: World, client: Client, store_url: str) -> None:
    async with Client(store_url) as other:
        everywhere = [each.ref(Counter, "a").options(idempotency_key="k") for each in (world, client, other)]

        answers = await asyncio.gather(*(counter.ask(Counter.add, 3) for counter in everywhere for _ in range(5)))

        assert answers == [3] * 15
        with pytest.raises(IdempotencyMismatch):
            await everywhere[1].ask(Counter.add, 4)


async def test_a_delete_tells_every_client_that_waits(world: World, client: Client) -> None:
    counter = client.ref(Counter, "a")
    await counter.send_event(Counter.fail_after_adding, 1)  # its back-off holds up all that follows
    waiting = [asyncio.ensure_future(counter.ask(Counter.add, 1)) for _ in range(600)]  # more than the host keeps in memory
    await until(lambda: is_waiting(world, "a", 601))

    await counter.delete()

    assert {type(outcome) for outcome in await asyncio.gather(*waiting, return_exceptions=True)} == {ActorCompleted}
    with pytest.raises(ActorNotFound):
        await counter.info()


async def is_waiting(world: World, key: str, events: int) -> bool:
    try:
        return (await world.ref(Counter, key).info()).events == events
    except ActorNotFound:
        return False


@pytest.mark.promise("nobody-waits-in-vain")
async def test_whoever_waits_when_the_client_ends_is_told(world: World, store_url: str) -> None:
    client = Client(store_url)
    with world.slow_disk():
        async with client:
            waiting = asyncio.ensure_future(client.ref(Counter, "a").ask(Counter.add, 1))
            await asyncio.sleep(0.02)

        with pytest.raises(RuntimeNotRunning, match="still to come"):
            await waiting
    with pytest.raises(RuntimeNotRunning):
        await client.ref(Counter, "a").send_event(Counter.add, 1)


async def test_what_is_raised_inside_leaves_as_it_was(world: World, store_url: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Client(store_url):
            raise KeyError("mine")


# --- while hosts come and go ---


@pytest.mark.promise("asks-outlive-hosts")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("nth", [1, 2])
async def test_an_ask_survives_a_crash_at_any_commit(world: World, client: Client, point: CrashPoint, nth: int) -> None:
    counter = client.ref(Counter, "a")

    world.crash_at(point, nth)
    answers = await asyncio.gather(*(counter.ask(Counter.add, 1) for _ in range(3)))
    assert await counter.ask(Counter.add, 1) == 4

    assert sorted(answers) == [1, 2, 3]
    assert world.store.crashes == 1


@pytest.mark.promise("asks-outlive-hosts")
async def test_an_ask_survives_the_death_of_its_host(lonely: Client, store_url: str) -> None:
    counter = lonely.ref(Counter, "old")
    with HostProcess(store_url) as host:
        await counter.ask(Counter.add, 1)
        host.send_signal(signal.SIGSTOP)
        waiting = [asyncio.ensure_future(counter.ask(Counter.add, 1)) for _ in range(10)]
        await counter.send_event(Counter.add, 100)
        host.kill()

    with HostProcess(store_url):
        assert sorted(await asyncio.gather(*waiting)) == list(range(109, 119))  # the tasks begin after the event
        assert await counter.ask(Counter.add, 0) == 118


async def test_a_client_leaves_what_a_killed_host_has_forked(lonely: Client, store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "LOOK_AGAIN", 0.05)
    counter = lonely.ref(Counter, "old")
    with HostProcess(store_url) as host:
        assert await counter.ask(Counter.add, 1) == 8
        child = host.fork()
        host.kill()

    try:
        with HostProcess(store_url):
            assert await counter.ask(Counter.add, 1) == 9
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_killed_hosts_door_is_cleared_away_by_the_next(lonely: Client, store_url: str) -> None:
    with HostProcess(store_url) as host:
        left = await door_of(store_url)
        host.kill()
        assert left.exists()

    async with World([Counter], store=store_url):
        assert not left.parent.exists()
        own = await door_of(store_url)
        assert own.parent.stat().st_mode & 0o777 == 0o700

    assert not own.parent.exists()


@pytest.mark.promise("acknowledged-is-kept", "asks-outlive-hosts")
async def test_what_was_sent_without_a_host_is_handled_by_the_next(lonely: Client, store_url: str) -> None:
    counter = lonely.ref(Counter, "old")
    await counter.send_event(Counter.add, 1)
    await send_signal(counter, Counter.note, "before")
    waiting = asyncio.ensure_future(counter.ask(Counter.add, 1))

    async with World([Counter], store=store_url):
        assert await waiting == 9
        assert await counter.query(Counter.all_notes) == ["before"]


async def test_asking_again_after_a_timeout_hears_the_outcome(lonely: Client, store_url: str) -> None:
    counter = lonely.ref(Counter, "old").options(idempotency_key="k", timeout=AT_ONCE)
    with pytest.raises(AskTimeout, match="may still be handled"):
        await counter.ask(Counter.add, 1)

    async with World([Counter], store=store_url):
        assert await lonely.ref(Counter, "old").options(idempotency_key="k").ask(Counter.add, 1) == 8


async def test_without_a_host_a_client_reads_and_says_what_it_cannot(lonely: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "PATIENCE", 0.05)

    assert [info.id.key async for info in lonely.actors(Counter, status="idle", prefix="o")] == ["old"]
    assert [info async for info in lonely.actors("Account")] == []
    assert [letter async for letter in lonely.dead_letters()] == []
    assert (await lonely.ref(Counter, "old").info()).turn == 1
    with pytest.raises(HostNotRunning, match="perdure run MODULE --store lmdb:"):
        await lonely.ref(Counter, "old").query(Counter.value)


async def test_dead_letters_are_listed_by_type_and_key(world: World, client: Client) -> None:
    for key in ("a", "b"):
        await client.ref(Counter, key).send_event(Counter.fail_after_adding, 1)
        await until(partial(is_waiting, world, key, 1))
    await world.run_until_idle()

    assert [letter.actor.key async for letter in client.dead_letters(Counter)] == ["a", "b"]
    assert [letter.handler async for letter in client.dead_letters("Counter", "b")] == ["fail_after_adding"]
    assert [letter async for letter in client.dead_letters(Account)] == []


# --- replies at rest ---


async def test_a_reply_that_has_arrived_is_kept_no_longer(world: World, client: Client, store_url: str) -> None:
    await client.ref(Counter, "a").ask(Counter.add, 1)

    async def is_gone() -> bool:
        await world.ref(Counter, "b").ask(Counter.add, 1)
        return await reply_count(store_url) == 0

    await until(is_gone)


async def test_a_reply_that_nobody_fetches_expires(world: World, store_url: str) -> None:
    async with Client(store_url) as client:
        with pytest.raises(AskTimeout), world.slow_disk():
            await client.ref(Counter, "a").options(timeout=AT_ONCE).ask(Counter.add, 1)
    await until(lambda: exists(world, "a"))
    kept = await reply_count(store_url)

    await world.advance(timedelta(days=2))
    await world.restart()
    await world.ref(Counter, "a").ask(Counter.add, 1)

    assert (kept, await reply_count(store_url)) == (1, 0)


async def exists(world: World, key: str) -> bool:
    return [info.id.key async for info in world.actors(Counter)] == [key]


# --- mistakes ---


async def test_mistakes_are_refused_before_anything_is_stored(world: World, client: Client) -> None:
    counter = ActorRef[Counter](client.ref(Counter, "a").id, client)
    stranger = client.ref(Stranger, "s")

    with pytest.raises(UnknownActorType, match="There is: Account, Counter"):
        await stranger.send_event(Stranger.greet)
    with pytest.raises(UnknownHandler, match="Did you mean 'add'"):
        await counter.ask("ad", 1)
    with pytest.raises(UnknownHandler, match="There is: note, renamed"):
        await send_signal(counter, "approved")

    await world.settled()
    assert [info async for info in client.actors()] == []
    assert await world.dead_letters() == []


async def test_a_class_that_has_outgrown_its_host_is_refused(world: World, client: Client) -> None:
    newer = client.ref(durable_actor(name="Counter", version=2)(NewerCounter), "a")

    with pytest.raises(UnknownHandler, match="Counter has no event 'subtract'"):
        await newer.ask(NewerCounter.subtract, 1)


class NewerCounter:
    """What a client of the next release has."""

    @on_event
    def subtract(self, by: int) -> None: ...


async def test_a_store_without_clients_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to one process"):
        Client("memory:")
    with pytest.raises(StoreError, match="start the host first"):
        async with Client(f"lmdb:{tmp_path}/none"):
            pass


async def test_an_ask_for_a_type_that_is_gone_is_told(lonely: Client, store_url: str) -> None:
    waiting = asyncio.ensure_future(lonely.ref(Counter, "old").ask(Counter.add, 1))

    async with World([Account], store=store_url) as world:
        with pytest.raises(UnknownActorType, match="There is: Account"):
            await waiting
        assert await world.dead_letters() == []
