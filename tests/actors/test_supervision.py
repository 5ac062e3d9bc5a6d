"""A failed child is judged once, by its parent's policy; restarts are counted over every crash, and only the last outcome is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import (
    ActorFailed,
    ActorNotFound,
    Backoff,
    ChildFailed,
    Client,
    DefinitionError,
    OneForAll,
    OneForOne,
    RestForOne,
    send_signal,
)
from perdure.actors._children import OnParentClose
from perdure.actors._envelope import Kind
from perdure.actors._ids import MessageId
from perdure.actors._policy import Directive, Supervision
from perdure.actors._records import ChildRow
from perdure.actors._supervision import judge
from perdure.actors.testing import CrashPoint, World

from .conftest import MakeWorld
from .crew import Boss, Chief, Touchy, Worker, WorseTrouble, bid, led, lives, restarts, tell
from .kin import Trouble, fate, surely

pytestmark = pytest.mark.anyio

LATER = Backoff(initial=timedelta(seconds=10))
MINUTE = timedelta(minutes=1)


async def crew(make_world: MakeWorld, policy: Supervision | None, keys: str = "a", worker: type = Worker) -> World:
    """A world with a boss of that policy, whose workers are at work."""
    world: World = await make_world(led(policy), worker, resources={"journal": {}})
    await world.start(Boss.run, "boss", keys)
    await world.settled()
    return world


def journal(world: World) -> list[str]:
    """What steps have written down."""
    return list(world.runtime._settings.resources["journal"].values())


# --- the verdict ---

rows = st.lists(st.lists(st.integers(0, 100), max_size=4), min_size=1, max_size=5)
policies = st.sampled_from([OneForOne, OneForAll, RestForOne])


@pytest.mark.promise("restarts-are-counted")
@given(policies, rows, st.data(), st.integers(0, 8), st.integers(1, 100))
def test_a_verdict_counts_recent_restarts_and_renews_whom_it_concerns(
    strategy: Any, past: list[list[int]], data: st.DataObject, allowed: int, within: int
) -> None:
    children = [ChildRow("W", str(n), MessageId(bytes([n])), Kind.CANCEL, True, n, sorted(map(float, ats))) for n, ats in enumerate(past)]
    place = data.draw(st.integers(0, len(children) - 1))
    policy = strategy(max_restarts=allowed, within=timedelta(seconds=within))
    counted = past[place] if strategy is OneForOne else [at for ats in past for at in ats]
    concerned = {OneForOne: [], OneForAll: [*children[:place], *children[place + 1 :]], RestForOne: children[place + 1 :]}[strategy]

    verdict = judge(policy, children, children[place], Trouble(), 100.0)

    if sum(at > 100 - within for at in counted) >= allowed:
        assert verdict == ("escalate", [], 0.0)
        return
    assert [(each.id, each.life) for each in verdict.renewed] == [(each.id, each.life + 1) for each in (children[place], *concerned)]
    assert verdict.renewed[0].restarts == [*(at for at in sorted(past[place]) if at > 100 - within), 100.0]
    assert [each.restarts for each in verdict.renewed[1:]] == [each.restarts for each in concerned]


@pytest.mark.parametrize("before", [0, 1, 3, 2_000])
def test_a_backoff_grows_to_its_maximum(before: int) -> None:
    assert Backoff(initial=timedelta(seconds=10), factor=3).delay(before) == min(60.0, 10.0 * 3.0 ** min(before, 9))


SENSELESS: list[tuple[Any, dict[str, Any]]] = [
    (OneForOne, {"max_restarts": -1}),
    (OneForAll, {"within": timedelta(0)}),
    (RestForOne, {"directives": {OSError: "again"}}),
    (OneForOne, {"directives": {"OSError": "stop"}}),
    (OneForOne, {"otherwise": "perhaps"}),
    (OneForOne, {"backoff": MINUTE}),
    (Backoff, {"initial": 2 * MINUTE}),
]


@pytest.mark.parametrize(("make", "options"), SENSELESS)
def test_a_policy_that_makes_no_sense_is_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        make(**options)


# --- who begins again ---


@pytest.mark.parametrize(("policy", "again"), [(OneForOne(), "b"), (OneForAll(), "abc"), (RestForOne(), "bc")])
async def test_a_strategy_says_who_begins_again(make_world: MakeWorld, policy: Supervision, again: str) -> None:
    world = await crew(make_world, policy, "abc")
    for key in "abc":
        await world.ref(Worker, key).ask(Worker.add, "task")
    before = await lives(world, "abc")

    await tell(world, "b", "fail")

    assert [old != new for old, new in zip(before, await lives(world, "abc"), strict=True)] == [key in again for key in "abc"]
    assert await restarts(world) == [int(key in again) for key in "abc"]
    assert [await world.ref(Worker, key).query(Worker.all) for key in "abc"] == [[] if key in again else ["task"] for key in "abc"]


async def test_a_worker_begins_again_from_its_arguments(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne())

    await tell(world, "a", "fail", "done")

    assert await world.ref(Worker.run, "a").result() == "well done"
    assert journal(world) == [f"a {what}" for what in ("begins", "cleans up", "cleans up undone", "begins undone", "begins", "cleans up")]


@pytest.mark.parametrize("policy", [OneForAll(), RestForOne()])
async def test_siblings_clean_up_and_undo_before_they_begin_again(make_world: MakeWorld, policy: Supervision) -> None:
    world = await crew(make_world, policy, "ab")

    await tell(world, "a", "fail")

    of_b = [line for line in journal(world) if line[0] == "b"]
    assert of_b == ["b begins", "b cleans up", "b cleans up undone", "b begins undone", "b begins"]


async def test_nobody_hears_of_an_end_that_is_none(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForAll(), "ab")
    await tell(world, "a", "fail")

    assert await world.ref(Boss.run, "boss").query(Boss.heard) == []

    await tell(world, "a", "done")
    (told,) = await world.ref(Boss.run, "boss").query(Boss.heard)
    assert (told.id.key, told.status) == ("a", "completed")


async def test_a_child_that_has_ended_does_not_begin_again(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForAll(), "ab")
    await tell(world, "a", "done")
    ended = await lives(world, "a")

    await tell(world, "b", "fail")

    assert await lives(world, "a") == ended
    assert await restarts(world) == [1]


async def test_a_cancelled_child_does_not_begin_again(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne())

    await world.ref(Worker, "a").cancel("enough")
    await world.settled()

    (told,) = await world.ref(Boss.run, "boss").query(Boss.heard)
    assert told.status == "cancelled"


# --- directives ---

LEFT: dict[Directive, tuple[str, str, list[str]]] = {  # of the worker, of the boss, what the boss heard of
    "restart": ("suspended", "suspended", []),
    "stop": ("failed", "suspended", ["failed"]),
    "resume": ("failed", "suspended", ["failed"]),
    "escalate": ("failed", "failed", ["failed"]),
}


@pytest.mark.parametrize("directive", LEFT)
async def test_a_directive_says_what_becomes_of_a_failure(make_world: MakeWorld, directive: Directive) -> None:
    world = await crew(make_world, OneForOne(directives={Trouble: directive}, otherwise="stop"))

    await tell(world, "a", "fail")

    boss = world.ref(Boss.run, "boss")
    statuses = (await world.ref(Worker, "a").info()).status, (await boss.info()).status
    assert (*statuses, [told.status for told in await boss.query(Boss.heard)]) == LEFT[directive]


@pytest.mark.parametrize(("word", "status"), [("fail", "failed"), ("fail worse", "suspended"), ("fail oddly", "failed")])
async def test_the_nearest_class_of_an_error_decides(make_world: MakeWorld, word: str, status: str) -> None:
    policy = OneForOne(directives={Exception: "stop", WorseTrouble: "restart", Trouble: "stop"})
    world = await crew(make_world, policy)

    await tell(world, "a", word)

    assert (await world.ref(Worker, "a").info()).status == status


@pytest.mark.parametrize(("directive", "left"), [("resume", ["before", "after"]), ("restart", ["after"])])
async def test_resume_lets_a_child_go_on_with_the_next_message(make_world: MakeWorld, directive: Directive, left: list[str]) -> None:
    world = await crew(make_world, OneForOne(otherwise=directive), worker=Touchy)
    worker = world.ref(Touchy, "a")

    for task in ("before", "fail", "after"):
        await worker.send_event(Worker.add, task)
        await world.run_until_idle()

    assert await worker.query(Worker.all) == left
    assert await restarts(world) == [int(directive == "restart")]
    assert [letter.handler for letter in await world.dead_letters()] == ["add"]


async def test_without_a_policy_a_poisoned_child_has_failed(make_world: MakeWorld) -> None:
    world = await crew(make_world, None, worker=Touchy)

    await world.ref(Touchy, "a").send_event(Worker.add, "fail")
    await world.run_until_idle()

    (told,) = await world.ref(Boss.run, "boss").query(Boss.heard)
    assert (told.status, type(told.error)) == ("failed", Trouble)


# --- when ---


async def test_a_child_waits_longer_before_each_restart(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(backoff=LATER))
    waited = []

    for _ in range(3):
        await tell(world, "a", "fail")
        (wait,) = (await world.ref(Worker, "a").info()).waits
        waited.append((wait.kind, (wait.until or 0.0) - world.clock.now()))
        await world.run_until_idle()

    assert waited == [("restart", 10.0), ("restart", 20.0), ("restart", 40.0)]


async def test_a_child_begins_again_no_earlier_than_its_backoff_says(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(backoff=LATER))
    await tell(world, "a", "fail")
    life = await lives(world, "a")
    await world.restart()

    await world.advance(timedelta(seconds=9.9))
    assert await lives(world, "a") == life
    await world.advance(timedelta(seconds=0.1))

    assert await lives(world, "a") != life


@pytest.mark.parametrize(("pause", "status"), [(timedelta(seconds=59), "failed"), (timedelta(seconds=61), "suspended")])
@pytest.mark.parametrize("policy", [OneForOne(2, MINUTE), OneForAll(2, MINUTE), RestForOne(2, MINUTE)])
async def test_only_restarts_within_the_window_count(make_world: MakeWorld, policy: Supervision, pause: timedelta, status: str) -> None:
    world = await crew(make_world, policy)

    await tell(world, "a", "fail", "fail")
    await world.restart()
    await world.advance(pause)
    await tell(world, "a", "fail")

    assert (await world.ref(Boss.run, "boss").info()).status == status


@pytest.mark.parametrize(("policy", "status"), [(OneForOne(1), "suspended"), (OneForAll(1), "failed"), (RestForOne(1), "failed")])
async def test_one_for_one_counts_each_child_by_itself(make_world: MakeWorld, policy: Supervision, status: str) -> None:
    world = await crew(make_world, policy, "ab")

    await tell(world, "a", "fail")
    await tell(world, "b", "fail")

    assert (await world.ref(Boss.run, "boss").info()).status == status


@pytest.mark.promise("restarts-are-counted")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("nth", range(1, 13))
async def test_a_crash_around_any_commit_counts_each_failure_once(make_world: MakeWorld, point: CrashPoint, nth: int) -> None:
    world = await crew(make_world, RestForOne(3), "abc")
    world.crash_at(point, nth)

    for number, key in enumerate("ab"):
        ref = world.ref(Worker, key).options(idempotency_key=str(number))
        await surely(lambda ref=ref: send_signal(ref, Worker.word, "fail"))  # type: ignore[misc]
        await surely(world.settled)
        await world.settled()

    assert await surely(lambda: restarts(world)) == [1, 2, 2]
    await tell(world, "c", "fail", "fail")
    assert (await world.ref(Boss.run, "boss").info()).status == "failed"


# --- what is sent meanwhile ---


async def test_what_is_sent_to_a_waiting_child_reaches_its_next_life(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(backoff=LATER))
    worker = world.ref(Worker, "a")
    await tell(world, "a", "fail")

    await worker.send_event(Worker.add, "event")
    await send_signal(worker, Worker.hurry, "signal")
    await send_signal(worker, Worker.word, "done")
    await world.restart()
    await world.run_until_idle()

    assert await world.ref(Worker.run, "a").result() == "well done"
    assert sorted(await worker.query(Worker.all)) == ["event", "signal"]
    assert await world.dead_letters() == []


@pytest.mark.promise("signals-are-kept")
async def test_signals_that_came_early_are_taken_one_in_each_life(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(), "")
    for word in ("fail", "fail", "done"):
        await send_signal(world.ref(Worker, "a"), Worker.word, word)

    await world.start(Boss.run, "other", "a")
    await world.settled()

    assert await world.ref(Worker.run, "a").result() == "well done"


# --- results ---


@pytest.mark.promise("restarts-are-counted")
async def test_a_parent_that_awaits_a_result_gets_only_the_final_one(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(backoff=LATER))
    await bid(world, "await")

    await tell(world, "a", "fail")
    await world.restart()
    await world.run_until_idle()
    await tell(world, "a", "done")

    assert await world.ref(Boss.run, "boss").result() == "well done"


async def test_an_outsider_that_awaits_a_result_gets_only_the_final_one(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(1, backoff=LATER))
    awaited = asyncio.ensure_future(fate(world.ref(Worker.run, "a").result()))

    await tell(world, "a", "fail")
    await world.run_until_idle()
    assert not awaited.done()
    await tell(world, "a", "fail")

    assert isinstance(await awaited, ActorFailed)


async def test_a_client_that_awaits_a_result_gets_only_the_final_one(tmp_path: Path) -> None:
    url, types = f"lmdb:{tmp_path}/store", [led(OneForOne(backoff=LATER)), Worker]
    async with World(types, store=url, resources={"journal": {}}) as world, Client(url, [Worker]) as client:
        await world.start(Boss.run, "boss", "a")
        awaited = asyncio.ensure_future(client.ref(Worker.run, "a").result())
        await tell(world, "a", "fail")
        world.crash_at(CrashPoint.BEFORE_COMMIT)
        await surely(world.run_until_idle)
        await tell(world, "a", "done")

        assert await awaited == "well done"
        assert world.store.crashes == 1


# --- escalation ---


async def test_an_escalated_failure_is_the_parents_own(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(0), "ab")
    await tell(world, "a", "fail")

    with pytest.raises(ActorFailed) as failed:
        await world.ref(Boss.run, "boss").result()

    assert isinstance(failed.value.__cause__, ChildFailed)
    assert isinstance(failed.value.__cause__.__cause__, Trouble)
    await world.settled()
    assert (await world.ref(Worker, "b").info()).status == "cancelled"


async def test_an_escalated_failure_is_raised_where_its_result_is_awaited(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(0))
    await bid(world, "await")

    await tell(world, "a", "fail")

    assert await world.ref(Boss.run, "boss").result() == "in spite of Trouble('fail')"


async def test_a_supervisor_that_gives_up_is_begun_again_by_its_own(make_world: MakeWorld) -> None:
    types = led(OneForOne(1), "Chief", Chief), led(OneForAll(1)), Worker
    world = await make_world(*types, resources={"journal": {}})
    chief = await world.start(Chief.run, "chief", "ab")
    await world.settled()

    await tell(world, "a", "fail", "fail")

    assert await restarts(world, "chief", Chief) == [1]
    assert await restarts(world) == [0, 0]
    assert (await world.ref(Worker, "a").info()).status == "suspended"
    await tell(world, "a", "fail", "fail")
    with pytest.raises(ActorFailed, match="ChildFailed"):
        await chief.result()


async def test_a_supervisor_begun_again_awaits_its_new_children(make_world: MakeWorld) -> None:
    types = led(OneForOne(1), "Chief", Chief), led(OneForOne(0)), Worker
    world = await make_world(*types, resources={"journal": {}})
    chief = await world.start(Chief.run, "chief", "ab")
    await bid(world, "await")
    await send_signal(world.ref(Boss.run, "boss"), Boss.word, "await")

    await tell(world, "b", "fail")

    assert (await world.ref(Boss.run, "boss").info()).status == "suspended"
    await tell(world, "a", "done")
    assert await chief.result() == "well done"


# --- ends of a child that waits for its restart ---

ENDS: dict[str, tuple[Callable[[World], Awaitable[object]], str]] = {
    "cancelled": (lambda world: world.ref(Worker, "a").cancel("enough"), "cancelled"),
    "terminated": (lambda world: world.ref(Worker, "a").terminate("enough"), "cancelled"),
    "deleted": (lambda world: world.ref(Worker, "a").delete(), "gone"),
    "started anew": (lambda world: world.options(if_exists="restart").start(Worker.run, "a", "anew "), "suspended"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_waiting_child_that_is_ended_does_not_begin_again(make_world: MakeWorld, end: str) -> None:
    act, left = ENDS[end]
    world = await crew(make_world, OneForOne(backoff=LATER))
    await tell(world, "a", "fail")

    await act(world)
    await world.run_until_idle()

    boss = world.ref(Boss.run, "boss")
    (told,) = await boss.query(Boss.heard)
    assert (told.status, (await boss.info()).children) == ("cancelled", ())
    found = await fate(world.ref(Worker, "a").info())
    assert ("gone" if isinstance(found, ActorNotFound) else found.status) == left


PARTINGS: dict[str, Callable[[World], Awaitable[object]]] = {
    "completed": lambda world: bid(world, "done"),
    "cancelled": lambda world: world.ref(Boss.run, "boss").cancel("enough"),
    "terminated": lambda world: world.ref(Boss.run, "boss").terminate("enough"),
    "deleted": lambda world: world.ref(Boss.run, "boss").delete(),
}


@pytest.mark.parametrize("parting", PARTINGS)
@pytest.mark.parametrize("on_close", ["cancel", "terminate", "abandon"])
async def test_a_waiting_child_keeps_its_failure_when_its_parent_ends(make_world: MakeWorld, parting: str, on_close: OnParentClose) -> None:
    world = await make_world(led(OneForOne(backoff=LATER)), Worker, resources={"journal": {}})
    await world.start(Boss.run, "boss", "a", on_close)
    await tell(world, "a", "fail")
    awaited = asyncio.ensure_future(fate(world.ref(Worker.run, "a").result()))

    await PARTINGS[parting](world)
    await world.run_until_idle()

    assert isinstance(await awaited, ActorFailed)
    assert (await world.ref(Worker, "a").info()).status == "failed"


async def test_a_parent_that_goes_on_as_new_still_supervises(make_world: MakeWorld) -> None:
    world = await crew(make_world, OneForOne(1, backoff=LATER))
    await tell(world, "a", "fail")
    await bid(world, "again")
    await world.run_until_idle()
    assert await restarts(world) == [1]

    await tell(world, "a", "fail")

    assert (await world.ref(Boss.run, "boss").info()).status == "failed"
