"""A child begins with the turn that spawns it, its end reaches its parent once, and its parent's end reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from perdure.actors import (
    ActorCancelled,
    ActorFailed,
    ActorNotFound,
    ChildFailed,
    ChildInfo,
    Event,
    InvalidKey,
    KeyTooLong,
    NotDurable,
    NotInActor,
    NotSerializable,
    UnknownActorType,
    UnknownHandler,
    WorkflowAlreadyStarted,
    WrongArguments,
    send_signal,
    spawn,
)
from perdure.actors._children import OnParentClose
from perdure.actors.testing import CrashPoint, World
from perdure.storage import PerdureError

from .conftest import MakeWorld
from .kin import FAMILY, Child, Grandparent, Matron, Parent, Trouble, bid, fate, status, surely, tell

pytestmark = pytest.mark.anyio

PLACES: dict[str, Event[Matron, ..., Any]] = {"an event": Matron.bear, "an async event": Matron.raise_one, "a timer": Matron.bear_later}
STRAYS: dict[str, type[Exception]] = {
    "no workflow": UnknownHandler,
    "no actor": UnknownActorType,
    "no plan": WrongArguments,
    "no data": NotSerializable,
    "no key": InvalidKey,
    "long key": KeyTooLong,
}


# --- beginnings ---


@pytest.mark.promise("atomic-turns", "children-once")
async def test_a_turn_that_is_rolled_back_spawns_nothing(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    matron = world.ref(Matron, "m")

    with pytest.raises(Trouble):
        await matron.ask(Matron.miscarry, "a")
    await world.settled()

    with pytest.raises(ActorNotFound):
        await world.ref(Child, "a").info()
    assert (await matron.info()).children == ()


@pytest.mark.promise("atomic-turns", "children-once")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("nth", range(1, 7))
async def test_a_crash_around_any_commit_loses_and_doubles_no_child(make_world: MakeWorld, point: CrashPoint, nth: int) -> None:
    world = await make_world(*FAMILY)
    world.crash_at(point, nth)

    parent = await surely(lambda: world.start(Parent.run, "p", None, "done"))
    await surely(lambda: send_signal(parent.options(idempotency_key="once"), Parent.word, "await"))
    result = await surely(parent.result)
    await world.settled()

    assert result == "done"
    assert len([info async for info in world.actors(Child)]) == 1
    assert [told.status for told in await parent.query(Parent.heard)] == ["completed"]


async def test_a_key_of_none_is_the_same_on_replay_and_another_in_each_life(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY, max_active=0)
    parent = await world.start(Parent.run, "p", None)
    for word in ("again", "again"):
        await bid(world, "p", word)
    await world.restart()

    keys = await parent.query(Parent.keys)

    assert all(key.startswith("p/") for key in keys)
    assert len(set(keys)) == 3
    assert {info.id.key async for info in world.actors(Child)} == set(keys)


async def test_a_parent_with_a_long_key_has_children_all_the_same(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "ü" * 100, None)
    await world.settled()

    (child,) = (await parent.info()).children

    assert len(child.id.key.encode()) <= 200
    assert (await world.ref(Child, child.id.key).info()).parent == parent.id


@pytest.mark.parametrize("place", PLACES)
async def test_every_handler_of_an_actor_may_spawn(make_world: MakeWorld, place: str) -> None:
    world = await make_world(*FAMILY)
    matron = world.ref(Matron, "m")

    await matron.send_event(PLACES[place], "a")
    await world.run_until_idle()

    assert (await world.ref(Child, "a").info()).parent == matron.id
    await tell(world, "a", "done")
    assert await world.ref(Child.run, "a").result() == "done"
    assert (await matron.info()).children == ()


async def test_a_signal_handler_may_spawn(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    matron = world.ref(Matron, "m")

    await send_signal(matron, Matron.bear_at_once, "a")
    await world.settled()

    assert [child.id.key for child in (await matron.info()).children] == ["a"]


@pytest.mark.parametrize("how", STRAYS)
async def test_what_cannot_begin_is_refused_at_the_call(make_world: MakeWorld, how: str) -> None:
    world = await make_world(*FAMILY)

    with pytest.raises(STRAYS[how]):
        await world.ref(Matron, "m").ask(Matron.stray, how)


async def test_a_query_and_the_outside_spawn_nothing(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)

    with pytest.raises(NotDurable, match="spawn"):
        await world.ref(Matron, "m").query(Matron.imagine)
    with pytest.raises(NotInActor, match="spawn"):
        spawn(Child.run, "a")


@pytest.mark.promise("children-once")
def test_a_parents_close_has_three_ways() -> None:
    with pytest.raises(ValueError, match=r"'forget' is none of 'cancel', 'abandon', 'terminate'"):
        spawn.options(on_parent_close="forget")  # type: ignore[arg-type]


# --- a key that is taken ---


async def test_a_child_may_begin_where_an_actor_has_ended(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    first = await world.start(Child.run, "a", "done")
    await first.result()
    life = (await first.info()).incarnation

    await world.ref(Matron, "m").ask(Matron.bear, "a", "done again")
    await world.settled()

    assert await first.result() == "done again"
    assert (await first.info()).incarnation != life


async def test_an_actor_that_is_at_work_becomes_nobodys_child(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    await world.start(Child.run, "a", "wait")
    parent = await world.start(Parent.run, "p", "a")
    await world.settled()

    (told,) = await parent.query(Parent.heard)

    assert (told.id.key, told.status) == ("a", "failed")
    assert isinstance(told.error, WorkflowAlreadyStarted)
    assert (await world.ref(Child, "a").info()).parent is None
    assert (await parent.info()).children == ()


async def test_a_child_begins_as_soon_as_an_actor_that_is_ending_has_ended(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    child = await world.start(Child.run, "a", "linger")
    await world.settled()
    await child.cancel("enough")
    parent = await world.start(Parent.run, "p", "a", "done")
    await bid(world, "p", "await")
    assert (await child.info()).parent is None

    await send_signal(child, Child.rest)
    await world.settled()

    assert await parent.result() == "done"


async def test_whoever_was_to_have_a_deleted_actor_next_is_told(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    child = await world.start(Child.run, "a", "linger")
    await world.settled()
    await child.cancel("enough")
    parent = await world.start(Parent.run, "p", "a", "done")
    await world.settled()

    await child.delete()
    await world.settled()

    assert [(told.id, told.status) for told in await parent.query(Parent.heard)] == [(child.id, "failed")]


# --- a child's end ---


async def test_a_failed_child_raises_child_failed_from_the_original(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", "a", "fail")

    await bid(world, "p", "careful")

    assert await parent.result() == "Child/a of Parent/p: Trouble('fail')"


async def test_an_outsider_is_told_of_the_failure_itself(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    await world.start(Parent.run, "p", "a", "fail")

    with pytest.raises(ActorFailed) as failed:
        await world.ref(Child.run, "a").result()

    assert isinstance(failed.value.__cause__, Trouble)


async def test_a_failed_child_that_nobody_catches_fails_its_parent(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", "a", "fail")
    await bid(world, "p", "await")

    with pytest.raises(ActorFailed) as failed:
        await parent.result()

    assert isinstance(failed.value.__cause__, ChildFailed)
    assert isinstance(failed.value.__cause__.__cause__, Trouble)


async def test_a_cancelled_child_is_told_to_its_parent_as_actor_cancelled(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", "a")
    await bid(world, "p", "await")
    await world.ref(Child, "a").cancel("enough")

    with pytest.raises(ActorFailed) as failed:
        await parent.result()

    assert isinstance(failed.value.__cause__, ActorCancelled)
    assert "enough" in str(failed.value.__cause__)


@pytest.mark.promise("children-once")
@pytest.mark.parametrize(("word", "ended", "error"), [("done", "completed", type(None)), ("fail", "failed", Trouble)])
async def test_a_childs_end_is_heard_once_over_restarts(make_world: MakeWorld, word: str, ended: str, error: type) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", "a")
    await world.settled()

    await tell(world, "a", word)
    await world.restart()

    (told,) = await parent.query(Parent.heard)
    assert (told.id, told.status, type(told.error)) == (world.ref(Child, "a").id, ended, error)
    assert (await parent.info()).children == ()


ENDINGS: dict[str, Callable[[World], Awaitable[object]]] = {
    "cancelled": lambda world: world.ref(Child, "a").cancel("enough"),
    "terminated": lambda world: world.ref(Child, "a").terminate("enough"),
    "deleted": lambda world: world.ref(Child, "a").delete(),
    "restarted": lambda world: world.options(if_exists="restart").start(Child.run, "a", "wait"),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_child_that_somebody_else_ends_has_been_cancelled(make_world: MakeWorld, ending: str) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", "a")
    await world.settled()

    await ENDINGS[ending](world)
    await world.settled()

    (told,) = await parent.query(Parent.heard)
    assert told.status == "cancelled"
    assert isinstance(told.error, PerdureError)
    assert (await parent.info()).children == ()


# --- a parent's end ---

PARTINGS: dict[str, Callable[[World], Awaitable[object]]] = {
    "completed": lambda world: bid(world, "p", "done"),
    "failed": lambda world: bid(world, "p", "fail"),
    "cancelled": lambda world: world.ref(Parent, "p").cancel("enough"),
    "terminated": lambda world: world.ref(Parent, "p").terminate("enough"),
    "deleted": lambda world: world.ref(Parent, "p").delete(),
    "restarted": lambda world: world.options(if_exists="restart").start(Parent.run, "p", "b"),
}


@pytest.mark.parametrize("parting", PARTINGS)
@pytest.mark.parametrize(
    ("on_close", "left"),
    [("cancel", ("cancelled", "its parent has ended")), ("terminate", ("cancelled", "")), ("abandon", ("suspended", ""))],
)
async def test_children_share_their_parents_end_as_was_declared(
    make_world: MakeWorld, parting: str, on_close: OnParentClose, left: tuple[str, str]
) -> None:
    world = await make_world(*FAMILY)
    await world.start(Parent.run, "p", "a", "wait", on_close)
    await world.settled()
    child = world.ref(Child, "a")

    await PARTINGS[parting](world)
    await world.settled()

    assert (await status(child), await child.query(Child.reason)) == left
    assert (await child.info()).parent is None


@pytest.mark.parametrize("on_close", ["cancel", "terminate"])
async def test_whoever_awaits_a_child_is_told_that_its_parent_has_ended(make_world: MakeWorld, on_close: OnParentClose) -> None:
    world = await make_world(*FAMILY)
    await world.start(Parent.run, "p", "a", "wait", on_close)
    await world.settled()
    awaited = asyncio.ensure_future(fate(world.ref(Child.run, "a").result()))

    await bid(world, "p", "done")

    assert isinstance(await awaited, ActorCancelled)
    assert "its parent has ended" in str(await awaited)


async def test_a_parent_that_goes_on_as_new_keeps_its_children(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    parent = await world.start(Parent.run, "p", None)
    await bid(world, "p", "again")
    first, second = await parent.query(Parent.keys)

    await tell(world, first, "done")

    assert [told.id.key for told in await parent.query(Parent.heard)] == [second, first]
    assert (await parent.info()).children == ()


async def test_an_abandoned_child_goes_on_to_its_own_end(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    await world.start(Parent.run, "p", "a", "wait", "abandon")
    await bid(world, "p", "done")
    await world.restart()

    await tell(world, "a", "alone")

    assert await world.ref(Child.run, "a").result() == "alone"


# --- the tree ---


async def test_the_tree_is_told_over_eviction_and_restart(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY, max_active=0)
    top = await world.start(Grandparent.run, "g")
    await world.settled()
    await world.restart()

    middle = world.ref(Parent, "parent")

    assert (await top.info()).children == (ChildInfo(middle.id, 0, "cancel"),)
    assert ((await middle.info()).parent, len((await middle.info()).children)) == (top.id, 1)
    assert (await world.ref(Child, "child").info()).parent == middle.id


async def test_a_cancel_reaches_grandchildren(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    top = await world.start(Grandparent.run, "g")
    await world.settled()

    await top.cancel("enough")
    await world.settled()

    child = world.ref(Child, "child")
    assert [await status(top), await status(world.ref(Parent, "parent")), await status(child)] == ["cancelled"] * 3
    assert await child.query(Child.reason) == "its parent has ended"


async def test_a_grandchilds_failure_climbs_by_results_alone(make_world: MakeWorld) -> None:
    world = await make_world(*FAMILY)
    top = await world.start(Grandparent.run, "g")
    await world.settled()
    await tell(world, "child", "fail")
    assert await status(top) == "suspended"

    await bid(world, "parent", "await")

    with pytest.raises(ActorFailed, match="ChildFailed"):
        await top.result()
