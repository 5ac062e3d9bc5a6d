"""A turn happens whole or not at all, runs alone, and shares nothing with anybody."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from perdure.actors import (
    NotDurable,
    NotInActor,
    NotSerializable,
    TurnDidNotEnd,
    UnknownHandler,
    WrongArguments,
    current_actor,
    durable_actor,
    on_event,
    query,
)

from .bank import Account, Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Scribe:
    """Keeps what it is given, and tries what an actor may not do."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @on_event
    def keep_context(self) -> None:
        resources: Any = current_actor().resources
        resources.update(context=contextvars.copy_context(), counter=current_actor().ref(Counter, "b"))

    @on_event
    def keep(self, value: Any) -> list[Any]:
        self.kept.append(value)
        return self.kept

    @on_event
    def keep_a_lock(self) -> None:
        self.kept.append({"lock": threading.Lock()})

    @on_event
    async def wait_for(self, what: str) -> None:
        self.kept.append(what)
        await FORBIDDEN[what]()

    @on_event
    async def spin(self) -> None:
        while True:  # noqa: ASYNC110  a loop without an end is what this is about
            await asyncio.sleep(0)

    @on_event
    async def leave_a_task_behind(self) -> None:
        self.kept.append("left")
        self.kept[0] = repr(asyncio.create_task(self._wait_for_ever()))

    async def _wait_for_ever(self) -> None:
        await asyncio.get_running_loop().create_future()

    @on_event
    def draw_and_fail(self) -> None:
        DRAWN.append((str(current_actor().uuid4()), current_actor().random.random()))
        raise RuntimeError("drawn")

    @query
    def everything(self) -> list[Any]:
        return self.kept


async def connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def foreign() -> None:
    await asyncio.Future(loop=OTHER_LOOP)


DRAWN: list[tuple[str, float]] = []
OTHER_LOOP = asyncio.new_event_loop()
OTHER_LOOP.close()

FORBIDDEN: dict[str, Callable[[], Awaitable[object]]] = {
    "a socket": connect,
    "a thread": lambda: asyncio.to_thread(print),
    "a subprocess": lambda: asyncio.create_subprocess_exec("true"),
    "a future of another loop": foreign,
}


async def test_an_asked_event_answers_with_its_handlers_result(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    answers = [await world.ref(Counter, "a").ask(Counter.add, by) for by in (2, 3)]

    assert answers == [2, 5]


async def test_an_async_handler_may_use_a_task_group(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    assert await world.ref(Counter, "a").ask(Counter.add_slowly, 7) == 7


@pytest.mark.promise("failed-turn-leaves-no-trace")
async def test_a_handler_that_raises_undoes_its_state_and_its_messages(make_world: MakeWorld) -> None:
    world = await make_world(Account)
    poor, rich = world.ref(Account, "poor"), world.ref(Account, "rich")

    with pytest.raises(ValueError, match="poor has not got 5") as raised:
        await poor.ask(Account.transfer, rich, 5)

    await world.settled()
    assert "Remote traceback" in raised.value.__notes__[0]
    assert [await account.query(Account.total) for account in (poor, rich)] == [0, 0]


@pytest.mark.promise("failed-turn-leaves-no-trace")
async def test_state_that_cannot_be_stored_undoes_the_turn_and_names_its_path(make_world: MakeWorld) -> None:
    world = await make_world(Scribe)
    scribe = world.ref(Scribe, "a")

    with pytest.raises(NotSerializable, match=r"self\.kept\[0\]\['lock'\]"):
        await scribe.ask(Scribe.keep_a_lock)

    assert await scribe.query(Scribe.everything) == []


@pytest.mark.promise("failed-turn-leaves-no-trace", "not-durable-is-refused")
@pytest.mark.parametrize("what", FORBIDDEN)
async def test_what_cannot_be_resumed_is_refused_and_undone(make_world: MakeWorld, what: str) -> None:
    world = await make_world(Scribe)
    scribe = world.ref(Scribe, "a")

    with pytest.raises(NotDurable):
        await scribe.ask(Scribe.wait_for, what)

    assert await scribe.ask(Scribe.keep, "next") == ["next"]


@pytest.mark.promise("turns-end")
async def test_a_turn_that_goes_on_for_ever_is_broken_off(make_world: MakeWorld) -> None:
    world = await make_world(Scribe)

    with pytest.raises(TurnDidNotEnd, match=r"test_turns\.py:\d+, in spin"):
        await world.ref(Scribe, "a").ask(Scribe.spin)


async def test_a_task_left_behind_frees_the_event_slot(make_world: MakeWorld) -> None:
    world = await make_world(Scribe)
    scribe = world.ref(Scribe, "a")

    await scribe.ask(Scribe.leave_a_task_behind)

    assert len(await scribe.ask(Scribe.keep, "next")) == 2
    assert (await scribe.info()).status == "suspended"


@pytest.mark.promise("nothing-mutable-crosses")
async def test_arguments_and_results_are_copies(make_world: MakeWorld) -> None:
    world = await make_world(Scribe)
    scribe, given = world.ref(Scribe, "a"), ["mine"]

    answer = await scribe.ask(Scribe.keep, given)
    given.append("changed")
    answer.append("changed")

    assert await scribe.query(Scribe.everything) == [["mine"]]


@pytest.mark.promise("same-course-everywhere")
async def test_a_failed_attempt_and_the_next_draw_the_same(make_world: MakeWorld) -> None:
    DRAWN.clear()
    world = await make_world(Scribe)

    await world.ref(Scribe, "a").send_event(Scribe.draw_and_fail)
    await world.run_until_idle()

    assert len(DRAWN) == 3
    assert len(set(DRAWN)) == 1


async def test_a_mistake_at_the_call_raises_there_and_stores_nothing(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter, commits = world.ref(Counter, "a"), world.store.commits

    with pytest.raises(UnknownHandler, match="Did you mean 'add'"):
        await counter.send_event("ad", 1)
    with pytest.raises(WrongArguments, match="too many"):
        await counter.ask("add", 1, 2, 3)
    with pytest.raises(NotInActor):
        current_actor()

    assert world.store.commits == commits


async def test_a_send_after_the_turn_is_refused(make_world: MakeWorld) -> None:
    resources: dict[str, Any] = {}
    world = await make_world(Scribe, Counter, resources=resources)
    await world.ref(Scribe, "a").ask(Scribe.keep_context)

    with pytest.raises(NotInActor):
        resources["context"].run(lambda: resources["counter"].send_event(Counter.add, 1))
