"""What follows a message that cannot be handled: it is put aside, or its actor stands still, or its actor fails with it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

import pytest
from perdure.actors import (
    ActorFailed,
    ActorQuarantined,
    ActorRef,
    ChildExit,
    OneForOne,
    Retry,
    durable_actor,
    on_child_exit,
    on_event,
    on_signal,
    on_timer,
    query,
    saga,
    send_signal,
    set_timer,
    spawn,
    step,
    workflow,
)
from perdure.actors.testing import World

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

DAY: Final = 86_400.0
ONCE: Final = Retry(max_attempts=1)
FAILING: Final = {"fails"}  # what the actors of a test cannot take now
UNDONE: Final[list[str]] = []


class Bad(Exception):
    """Of the handlers here."""


@step
async def put_back(what: str) -> None:
    UNDONE.append(what)


@step(compensate=put_back)
async def take(what: str) -> str:
    return what


def check(what: str) -> None:
    if what in FAILING:
        raise Bad(what)


class Shop:
    """Takes messages of every kind, of which some fail."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    @on_event
    def order(self, what: str) -> None:
        check(what)
        self.told.append(what)

    @on_event
    async def order_late(self, what: str) -> None:
        await asyncio.sleep(5)
        check(what)
        self.told.append(what)

    @on_event
    async def order_beside(self, what: str) -> None:
        asyncio.create_task(self.order_late(what)).set_name("stray")

    @on_event
    def remind(self, what: str) -> None:
        self.reminded = what
        set_timer(type(self).tick, after=timedelta(seconds=5))

    @on_timer
    def tick(self) -> None:
        check(self.reminded)
        self.told.append(self.reminded)

    @on_signal
    def hint(self, what: str) -> None:
        check(what)
        self.told.append(what)

    async def work(self) -> None:
        try:
            async with saga():
                self.told.append(await take("a loan"))
                await asyncio.sleep(300 * DAY)
        finally:
            self.told.append("closed")


@durable_actor(on_poison="skip", retry=ONCE)
class Skipping(Shop):
    @workflow
    async def run(self) -> None:
        await self.work()


@durable_actor(on_poison="quarantine", retry=ONCE)
class Cautious(Shop):
    @workflow
    async def run(self) -> None:
        await self.work()


@durable_actor(on_poison="stop", retry=ONCE)
class Strict(Shop):
    @workflow
    async def run(self) -> None:
        await self.work()


async def send(shop: ActorRef[Shop], how: str, what: str) -> None:
    """Send something in one of several ways."""
    if how == "hint":
        await send_signal(shop, how, what)
    else:
        await shop.send_event(how, what)


@pytest.fixture(autouse=True)
def failing() -> Any:
    """What fails, in this test."""
    UNDONE.clear()
    FAILING.clear()
    FAILING.add("fails")
    return FAILING


@pytest.fixture
async def town(make_world: MakeWorld) -> World:
    return await make_world(Skipping, Cautious, Strict, Parent, Lenient)


async def told(shop: ActorRef[Any]) -> list[str]:
    found: list[str] = await shop.query("diary")
    return found


class Family:
    """Has a strict shop."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    @on_child_exit
    def gone(self, child: ChildExit) -> None:
        self.told.append(f"{child.id.key} {child.status}: {type(child.error).__name__}")

    async def live(self) -> None:
        spawn(Strict.run, "s")
        await asyncio.sleep(300 * DAY)


@durable_actor(supervise=OneForOne(max_restarts=0))
class Parent(Family):
    @workflow
    async def run(self) -> None:
        await self.live()


@durable_actor(supervise=OneForOne(directives={Bad: "resume"}))
class Lenient(Family):
    @workflow
    async def run(self) -> None:
        await self.live()


SKIPPED: Final = {
    "order": ("order", False),
    "order_late": ("order_late", True),
    "order_beside": ("(a task)", True),
    "remind": ("tick", False),
    "hint": ("hint", False),
}
AT_WORK: Final = [how for how in SKIPPED if how != "order_beside"]  # which is the workflow's own failure, whatever the policy
CASES: Final = [*((how, False) for how in SKIPPED), *((how, True) for how in AT_WORK)]


async def begin(town: World, actor: Any, works: bool) -> ActorRef[Any]:
    """A shop, with its workflow at work or without."""
    shop: ActorRef[Any] = town.ref(actor, "s")
    if works:
        await town.start(actor.run, "s")
        await town.settled()
    return shop


async def letters(town: World) -> list[tuple[str, str, bool]]:
    """The dead letters: the handler, the error, and whether it was partly done."""
    return [(letter.handler, letter.error.rpartition(".")[2], letter.partly) for letter in await town.dead_letters()]


@pytest.mark.parametrize(("how", "works"), CASES)
async def test_what_is_skipped_lies_aside_and_the_actor_goes_on(town: World, how: str, works: bool) -> None:
    shop = await begin(town, Skipping, works)

    await send(shop, how, "fails")
    await town.advance(timedelta(seconds=10))
    await send(shop, how, "goes well")
    await town.advance(timedelta(seconds=10))

    handler, partly = SKIPPED[how]
    assert await letters(town) == [(handler, "Bad: fails", partly)]
    assert ((await shop.info()).status, (await told(shop))[-1]) == ("suspended" if works else "idle", "goes well")


@pytest.mark.promise("quarantine-keeps-everything")
@pytest.mark.parametrize(("how", "works"), CASES)
async def test_a_cautious_actor_stands_still_until_it_is_told_to_go_on(town: World, how: str, works: bool) -> None:
    shop = await begin(town, Cautious, works)
    await send(shop, how, "fails")
    await town.advance(timedelta(seconds=10))
    before = await told_or_refused(shop), await letters(town)

    FAILING.clear()
    await shop.retry()
    await town.advance(timedelta(seconds=10))

    handler, partly = SKIPPED[how]
    aside = [(handler, "Bad: fails", True)] if partly else []  # what was partly done is not done again
    assert (before, await letters(town)) == (("quarantined", aside), aside)
    assert await told(shop) == ["a loan"] * works + ([] if partly else ["fails"])


async def told_or_refused(shop: ActorRef[Any]) -> str:
    """The status of an actor that refuses to tell."""
    with pytest.raises(ActorQuarantined):
        await told(shop)
    return (await shop.info()).status


@pytest.mark.parametrize(("how", "works"), CASES)
async def test_a_strict_actor_cleans_up_and_fails_with_the_message(town: World, how: str, works: bool) -> None:
    shop = await begin(town, Strict, works)

    await send(shop, how, "fails")
    await town.advance(timedelta(seconds=10))

    handler, partly = SKIPPED[how]
    assert await letters(town) == [(handler, "Bad: fails", partly)]
    assert (await shop.info()).status == "failed"
    assert (await told(shop), UNDONE) == ((["a loan", "closed"], ["a loan"]) if works else ([], []))


async def test_a_strict_workflow_fails_from_what_it_could_not_handle(town: World) -> None:
    shop = await town.start(Strict.run, "s")
    await send(shop, "hint", "fails")
    await town.run_until_idle()

    with pytest.raises(ActorFailed) as failed:
        await shop.result()

    assert isinstance(failed.value.__cause__, Bad)


@pytest.mark.parametrize("actor", [Skipping, Cautious, Strict])
@pytest.mark.parametrize("how", ["order", "order_late"])
async def test_what_is_asked_poisons_nobody(town: World, actor: Any, how: str) -> None:
    shop = await begin(town, actor, True)
    asked = asyncio.create_task(shop.ask(how, "fails"))
    await town.advance(timedelta(seconds=10))

    with pytest.raises(Bad):
        await asked

    assert ((await shop.info()).status, await letters(town)) == ("suspended", [])


@pytest.mark.parametrize("actor", [Skipping, Cautious, Strict])
async def test_a_task_that_fails_beside_the_workflow_is_its_own_failure(town: World, actor: Any) -> None:
    shop = await begin(town, actor, True)

    await send(shop, "order_beside", "fails")
    await town.advance(timedelta(seconds=10))

    assert ((await shop.info()).status, await letters(town), UNDONE) == ("failed", [], ["a loan"])


@pytest.mark.parametrize("how", AT_WORK)
async def test_a_parent_hears_that_its_child_has_failed_of_a_message(town: World, how: str) -> None:
    parent = await town.start(Parent.run, "p")
    await town.settled()

    await send(town.ref(Strict, "s"), how, "fails")
    await town.advance(timedelta(seconds=10))

    assert (await told(parent), UNDONE) == (["s failed: Bad"], ["a loan"])
    assert [(await ref.info()).status for ref in (parent, town.ref(Strict, "s"))] == ["failed", "failed"]


@pytest.mark.parametrize("how", AT_WORK)
async def test_a_parent_may_say_that_its_child_resumes(town: World, how: str) -> None:
    parent = await town.start(Lenient.run, "p")
    await town.settled()

    await send(town.ref(Strict, "s"), how, "fails")
    await town.advance(timedelta(seconds=10))
    await send(town.ref(Strict, "s"), how, "goes well")
    await town.advance(timedelta(seconds=10))

    assert (await told(parent), await told(town.ref(Strict, "s"))) == ([], ["a loan", "goes well"])
    assert await letters(town) == [(SKIPPED[how][0], "Bad: fails", SKIPPED[how][1])]


async def test_a_strict_actor_that_is_cancelled_meanwhile_is_cancelled(town: World) -> None:
    shop = await begin(town, Strict, True)
    await shop.cancel("closing down")
    await send(shop, "hint", "fails")
    await town.advance(timedelta(seconds=10))

    assert (await told(shop), UNDONE) == (["a loan", "closed"], ["a loan"])
    assert (await shop.info()).status == "cancelled"
