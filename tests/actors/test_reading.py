"""Reading actors: queries that only read, infos and lists that tell the truth, and nobody brought into memory for it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from perdure.actors import (
    ActorNotFound,
    ActorRef,
    NotDurable,
    QueryChangedState,
    Transient,
    current_actor,
    durable_actor,
    on_activate,
    on_event,
    query,
)

from .bank import Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Library:
    """Lends, with a catalogue that belongs to the process."""

    catalogue: Transient[dict[str, int]]

    def __init__(self) -> None:
        self.lent: list[str] = []

    @on_activate
    def open(self) -> None:
        self.catalogue = current_actor().resources["catalogue"]

    @on_event
    def lend(self, title: str) -> int:
        self.lent.append(title)
        return self.catalogue[title]

    @query
    def titles(self) -> list[str]:
        return self.lent

    @query
    def cheat(self) -> int:
        self.lent.append("stolen")
        return len(self.lent)

    @query
    def gossip(self, other: ActorRef[Library]) -> None:
        other.send_event(Library.lend, "dune")


@pytest.mark.promise("queries-only-read")
async def test_a_query_that_changes_state_is_found_out_and_undone(make_world: MakeWorld) -> None:
    world = await make_world(Library, resources={"catalogue": {"dune": 1}})
    library = world.ref(Library, "a")
    await library.ask(Library.lend, "dune")

    with pytest.raises(QueryChangedState, match="cheat"):
        await library.query(Library.cheat)

    assert await library.query(Library.titles) == ["dune"]


@pytest.mark.promise("queries-only-read")
async def test_a_query_may_send_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Library, resources={"catalogue": {"dune": 1}})
    library = world.ref(Library, "a")

    with pytest.raises(NotDurable, match="send from an event"):
        await library.query(Library.gossip, library)


@pytest.mark.promise("queries-only-read")
async def test_a_query_brings_nobody_into_memory(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.ask(Counter.add, 4)
    await world.restart()

    assert await counter.query(Counter.value) == 4
    assert world.runtime.statistics().active == 0


async def test_transient_attributes_are_set_again_and_never_stored(make_world: MakeWorld) -> None:
    world = await make_world(Library, resources={"catalogue": {"dune": 1}})
    library = world.ref(Library, "a")
    await library.ask(Library.lend, "dune")

    await world.restart()

    assert await library.ask(Library.lend, "dune") == 1


async def test_an_actor_that_never_was_answers_queries_and_has_no_info(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    assert await world.ref(Counter, "a").query(Counter.value) == 0
    with pytest.raises(ActorNotFound, match="Counter/a"):
        await world.ref(Counter, "a").info()


async def test_lists_are_ordered_filtered_and_complete(make_world: MakeWorld) -> None:
    world = await make_world(Counter, Library, resources={"catalogue": {"dune": 1}})
    for number in range(300):
        await world.ref(Counter, f"{number:03}").send_event(Counter.add, 1)
    await world.ref(Library, "x").ask(Library.lend, "dune")
    await world.settled()

    assert [info.id.key async for info in world.actors(Counter)] == [f"{number:03}" for number in range(300)]
    assert [info.id.key async for info in world.actors(Counter, prefix="29")] == [f"29{digit}" for digit in range(10)]
    assert len([info async for info in world.actors()]) == 301
    assert [info.id.key async for info in world.actors(prefix="x")] == ["x"]
    with pytest.raises(ValueError, match="there are idle"):
        [info async for info in world.actors(status="asleep")]


async def test_an_info_tells_what_waits_and_until_when(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.ask(Counter.add, 1)
    await world.advance(timedelta(hours=1))
    await counter.send_event(Counter.fail_after_adding, 1)
    await counter.send_event(Counter.add, 1)
    await world.settled()

    info = await counter.info()

    assert (info.status, info.events, info.interrupts, info.attempts) == ("idle", 2, 0, 1)
    assert info.cursor.event == 1
    assert info.retry_at is not None
    assert 0.4 < info.retry_at - world.clock.now() < 2.1
    assert info.updated - info.created == 3600


async def test_references_travel_in_arguments_state_and_answers(make_world: MakeWorld) -> None:
    world = await make_world(Postman, Counter)
    postman = world.ref(Postman, "p")

    returned = await postman.ask(Postman.remember, world.ref(Counter, "c"))
    await world.restart()
    await postman.ask(Postman.deliver, 3)
    await world.settled()

    assert returned == world.ref(Counter, "c")
    assert await returned.query(Counter.value) == 3


@durable_actor
class Postman:
    """Keeps a reference in its state."""

    to: ActorRef[Counter] | None = None

    @on_event
    def remember(self, to: ActorRef[Counter]) -> ActorRef[Counter]:
        self.to = to
        return to

    @on_event
    def deliver(self, by: int) -> None:
        assert self.to is not None
        self.to.send_event(Counter.add, by)
