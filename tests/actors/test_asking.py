"""Asking from inside: an actor hears what came of it, whatever that is, and nothing that was meant for an earlier life."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import pytest
from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorFailed,
    AskTimeout,
    IdempotencyMismatch,
    MailboxFull,
    UnknownHandler,
    WorkflowAlreadyStarted,
    WorkflowNotStarted,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    query,
    send_signal,
    workflow,
)
from perdure.actors.testing import World

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

HOUR: Final = 3600.0


@durable_actor(mailbox_limit=2)
class Oracle:
    """Answers after a while."""

    def __init__(self) -> None:
        self.asked = 0

    @on_event
    async def answer(self, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        self.asked += 1
        return self.asked

    @on_event
    def refuse(self) -> None:
        raise LookupError("not today")

    @workflow
    async def run(self, seconds: float = 0.0) -> str:
        await asyncio.sleep(seconds)
        if seconds < 0:
            raise LookupError("the past is gone")
        return f"after {seconds:g} s"

    @query
    def count(self) -> int:
        return self.asked


@durable_actor
class Pilgrim:
    """Asks, in the way that the test wants, and tells what came of it."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @workflow
    async def run(self, what: str, *args: Any) -> list[str]:
        await self.hear(what, *args)
        return self.heard

    @on_signal
    def note(self, what: str) -> None:
        self.heard.append(what)

    @query
    def so_far(self) -> list[str]:
        return self.heard

    async def hear(self, what: str, *args: Any) -> None:
        try:
            self.heard.append(str(await getattr(self, what)(*args)))
        except Exception as error:  # noqa: BLE001  whatever comes of it is told
            self.heard.append(type(error).__name__)

    async def ask(self, seconds: float) -> int:
        return await current_actor().ref(Oracle, "o").ask(Oracle.answer, seconds)

    async def ask_impatiently(self, seconds: float, timeout: float) -> int:
        return await current_actor().ref(Oracle, "o").options(timeout=timedelta(seconds=timeout)).ask(Oracle.answer, seconds)

    async def ask_for_trouble(self) -> None:
        await current_actor().ref(Oracle, "o").ask(Oracle.refuse)

    async def ask_by_name(self, name: str) -> None:
        await current_actor().ref(Oracle, "o").ask(name)

    async def ask_with_key(self, key: str, seconds: float) -> int:
        return await current_actor().ref(Oracle, "o").options(idempotency_key=key).ask(Oracle.answer, seconds)

    async def ask_twice_with_key(self, key: str) -> tuple[int, int]:
        return await self.ask_with_key(key, 1.0), await self.ask_with_key(key, 1.0)

    async def ask_many(self, count: int) -> list[str]:
        asked = (self.ask(HOUR) for _ in range(count))
        return [type(each).__name__ for each in await asyncio.gather(*asked, return_exceptions=True)]

    async def result(self) -> str:
        return await current_actor().ref(Oracle.run, "o").result()

    async def start(self, seconds: float) -> str:
        oracle = await current_actor().start(Oracle.run, "o", seconds)
        return await oracle.result()

    async def look(self) -> tuple[int, str]:
        oracle = current_actor().ref(Oracle, "o")
        return await oracle.query(Oracle.count), (await oracle.info()).status


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world(Oracle, Pilgrim)


async def told(world: World, what: str, *args: Any) -> list[str]:
    """What a pilgrim tells in the end."""
    pilgrim = await world.start(Pilgrim.run, "p", what, *args)
    await world.run_until_idle()
    return await pilgrim.result()


# --- answers ---


async def test_an_answer_comes_over_a_restart_and_is_asked_for_once(world: World) -> None:
    pilgrim = await world.start(Pilgrim.run, "p", "ask", HOUR)
    await world.advance(timedelta(minutes=1))

    await world.restart()
    await world.run_until_idle()

    assert await pilgrim.result() == ["1"]
    assert await world.ref(Oracle, "o").query(Oracle.count) == 1


@pytest.mark.promise("nobody-waits-in-vain")
@pytest.mark.parametrize(
    ("what", "args", "heard"),
    [
        ("ask_for_trouble", (), LookupError.__name__),
        ("ask_by_name", ("preach",), UnknownHandler.__name__),
        ("ask_twice_with_key", ("k",), "(1, 1)"),
        ("ask_impatiently", (HOUR, 60.0), AskTimeout.__name__),
        ("ask_impatiently", (60.0, HOUR), "1"),
        ("result", (), WorkflowNotStarted.__name__),
        ("start", (60.0,), "after 60 s"),
        ("look", (), "(0, 'idle')"),
    ],
)
async def test_whatever_comes_of_an_ask_is_heard(world: World, what: str, args: tuple[Any, ...], heard: str) -> None:
    await send_nothing_to(world)

    assert await told(world, what, *args) == [heard]


async def send_nothing_to(world: World) -> None:
    """Let the oracle be there, as if it had never been asked."""
    with pytest.raises(LookupError):
        await world.ref(Oracle, "o").ask(Oracle.refuse)


async def test_a_full_mailbox_is_the_reply_of_an_ask(world: World) -> None:
    heard = await told(world, "ask_many", 5)

    assert heard == [str(["int"] * 2 + [MailboxFull.__name__] * 3)]


async def test_a_key_used_for_something_else_is_the_reply(world: World) -> None:
    await world.ref(Oracle, "o").options(idempotency_key="k").ask(Oracle.answer, 0.0)

    assert await told(world, "ask_with_key", "k", 1.0) == [IdempotencyMismatch.__name__]


async def test_an_actor_that_has_ended_says_so(world: World) -> None:
    await world.start(Oracle.run, "o")
    await world.settled()

    assert await told(world, "ask", 0.0) == [ActorCompleted.__name__]


async def test_an_ask_that_waits_when_the_workflow_ends_is_told(world: World) -> None:
    await world.start(Oracle.run, "o", 60.0)

    assert await told(world, "ask", HOUR) == [ActorCancelled.__name__]


# --- workflows of others ---


async def test_a_result_is_heard_when_the_other_has_ended(world: World) -> None:
    await world.start(Oracle.run, "o", HOUR)

    assert await told(world, "result") == [f"after {HOUR:g} s"]


async def test_a_failure_of_the_other_is_an_actor_failed(world: World) -> None:
    await world.start(Oracle.run, "o", -1.0)

    assert await told(world, "result") == [ActorFailed.__name__]


async def test_a_start_with_other_arguments_is_refused_inside_too(world: World) -> None:
    await world.start(Oracle.run, "o", HOUR)

    assert await told(world, "start", 60.0) == [WorkflowAlreadyStarted.__name__]


# --- earlier lives, and no life ---


@pytest.mark.promise("one-start-one-life")
async def test_a_reply_to_an_earlier_life_is_dropped(world: World) -> None:
    await world.start(Pilgrim.run, "p", "ask", 60.0)
    await world.settled()

    pilgrim = await world.options(if_exists="restart").start(Pilgrim.run, "p", "ask", HOUR)
    await world.run_until_idle()

    assert await pilgrim.result() == ["2"]
    assert await world.dead_letters() == []


async def test_a_late_reply_after_a_time_out_is_dropped(world: World) -> None:
    assert await told(world, "ask_impatiently", HOUR, 60.0) == [AskTimeout.__name__]

    await world.run_until_idle()

    assert await world.ref(Oracle, "o").query(Oracle.count) == 1
    assert await world.dead_letters() == []


@pytest.mark.promise("nobody-waits-in-vain")
@pytest.mark.parametrize("what", ["ask", "result"])
async def test_whoever_waits_for_an_actor_that_is_deleted_is_told(world: World, what: str) -> None:
    await world.start(Oracle.run, "o", 2 * HOUR)
    args = (HOUR,) if what == "ask" else ()
    pilgrim = await world.start(Pilgrim.run, "p", what, *args)
    await world.settled()

    await world.ref(Oracle, "o").delete()
    await world.settled()

    assert await pilgrim.query(Pilgrim.so_far) == [ActorCompleted.__name__]


async def test_a_reply_makes_no_actor_of_one_that_is_deleted(world: World) -> None:
    pilgrim = await world.start(Pilgrim.run, "p", "ask", HOUR)
    await world.settled()

    await pilgrim.delete()
    await world.run_until_idle()

    assert [info.id.key async for info in world.actors(Pilgrim)] == []


@pytest.mark.promise("signals-overtake-events")
async def test_signals_are_heard_while_an_answer_is_awaited(world: World) -> None:
    pilgrim = await world.start(Pilgrim.run, "p", "ask", HOUR)

    await send_signal(pilgrim, Pilgrim.note, "a bell")
    await world.run_until_idle()

    assert await pilgrim.result() == ["a bell", "1"]
