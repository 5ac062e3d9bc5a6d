"""Clean-up: an actor that is asked to end may do on its way what it likes, once, for as long as it was given; then it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import anyio
import pytest
from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorNotFound,
    ActorQuarantined,
    ActorRef,
    WorkflowRef,
    continue_as_new,
    current_actor,
    durable_actor,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    spawn,
    step,
    wait_for_signal,
    wait_until,
    workflow,
)

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

DAY: Final = 86_400.0
MINUTE: Final = timedelta(minutes=1)


@step
async def double(number: int) -> int:
    return 2 * number


@durable_actor
class Porter:
    """Helps those who clean up."""

    def __init__(self) -> None:
        self.carried = 0

    @on_event
    async def carry(self, count: int) -> int:
        await asyncio.sleep(5)
        self.carried += count
        return self.carried

    @query
    def count(self) -> int:
        return self.carried

    @workflow
    async def run(self, number: int) -> int:
        await asyncio.sleep(5)
        return number


Care = Callable[["Tenant"], Awaitable[object]]
CARE: Final[dict[str, Care]] = {}


def care(function: Care) -> Care:
    """One way to clean up, which comes to 4."""
    CARE[function.__name__] = function
    return function


@care
async def by_itself(tenant: Tenant) -> int:
    return 4


@care
async def by_a_step(tenant: Tenant) -> int:
    return await double(2)


@care
async def by_steps(tenant: Tenant) -> int:
    return sum(await asyncio.gather(double(1), double(1)))


@care
async def in_time(tenant: Tenant) -> int:
    async with asyncio.timeout(20):
        await asyncio.sleep(10)
    return await asyncio.wait_for(double(2), 10)


@care
async def by_a_signal(tenant: Tenant) -> int:
    return await wait_for_signal(Tenant.done)


@care
async def by_a_condition(tenant: Tenant) -> int:
    await wait_until(lambda: tenant.heard == 4)
    return tenant.heard


@care
async def by_asking(tenant: Tenant) -> int:
    return await current_actor().ref(Porter, "p").ask(Porter.carry, 4)


@care
async def by_reading(tenant: Tenant) -> int:
    return 4 + await current_actor().ref(Porter, "p").query(Porter.count)


@care
async def by_starting(tenant: Tenant) -> int:
    return await (await current_actor().start(Porter.run, "p", 4)).result()


@care
async def by_a_child(tenant: Tenant) -> int:
    return await spawn(Porter.run, None, 4).result()


@care
async def in_an_anyio_group(tenant: Tenant) -> int:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 3)
    return 4


@durable_actor
class Tenant:
    """Cleans up before it leaves."""

    done = signal(int)

    def __init__(self) -> None:
        self.told: list[object] = []
        self.heard = 0

    @on_signal
    def hear(self, number: int) -> None:
        self.heard = number

    @on_event
    def note(self, what: str) -> None:
        self.told.append(what)

    @query
    def diary(self) -> list[object]:
        return self.told

    @workflow
    async def run(self, how: str) -> None:
        try:
            await asyncio.sleep(DAY)
        except asyncio.CancelledError as cancelled:
            self.told.append(str(cancelled))
            raise
        finally:
            self.told.append(await CARE[how](self))


SIGNALS: Final = {"by_a_signal": "done", "by_a_condition": "hear"}


async def reason(ref: WorkflowRef[Any, Any]) -> str:
    with pytest.raises(ActorCancelled) as cancelled:
        await ref.result()
    return cancelled.value.reason


@pytest.mark.parametrize("how", CARE)
async def test_clean_up_may_do_whatever_the_workflow_might(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Tenant, Porter)
    tenant = await world.start(Tenant.run, "t-1", how)
    await world.settled()

    await tenant.cancel("moving")
    if how in SIGNALS:
        await send_signal(tenant, SIGNALS[how], 4)
    await world.run_until_idle()

    assert await tenant.query(Tenant.diary) == ["moving", 4]
    assert await reason(tenant) == "moving"


@pytest.mark.promise("leaving-memory-changes-nothing")
@pytest.mark.parametrize("how", ["in_an_anyio_group", "by_steps", "in_time"])
async def test_clean_up_while_an_actor_leaves_memory_says_nothing(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Tenant, Porter, max_active=0)

    tenant = await world.start(Tenant.run, "t-1", how)
    await world.settled()

    assert (await tenant.info()).status == "suspended"  # and no warning was heard, which would be an error


@pytest.mark.promise("cancelled-once-and-clean")
async def test_a_second_cancel_does_not_break_into_the_clean_up(make_world: MakeWorld) -> None:
    world = await make_world(Tenant, Porter)
    tenant = await world.start(Tenant.run, "t-1", "in_time")
    await world.settled()

    await tenant.cancel("moving")
    await world.advance(timedelta(seconds=5))
    await tenant.cancel("hurry")
    before = (await tenant.info()).status, await tenant.query(Tenant.diary)
    await world.run_until_idle()

    assert before == ("suspended", ["moving"])
    assert await tenant.query(Tenant.diary) == ["moving", 4]
    assert await reason(tenant) == "moving"


class Slow:
    """Takes its time to end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    @on_event
    async def linger(self) -> str:
        try:
            await asyncio.sleep(DAY)
        finally:
            self.told.append("the handler ends")
            await asyncio.sleep(DAY)
        return "well"

    async def stay(self, seconds: float) -> str:
        try:
            await asyncio.sleep(DAY)
        except asyncio.CancelledError:
            self.told.append("cancelled")
            await asyncio.sleep(seconds)
            self.told.append("cleaned up")
        return "as if nothing were"


@durable_actor(cancel_grace=MINUTE)
class Sluggish(Slow):
    @workflow
    async def run(self, seconds: float) -> str:
        return await self.stay(seconds)


@durable_actor(cancel_grace=timedelta(0))
class Hasty(Slow):
    @workflow
    async def run(self, seconds: float) -> str:
        try:
            return await self.stay(seconds)
        finally:
            self.told.append("at once")


async def test_a_workflow_that_swallows_its_cancellation_has_completed(make_world: MakeWorld) -> None:
    world = await make_world(Sluggish)
    sluggish = await world.start(Sluggish.run, "s", 30.0)
    await world.settled()

    await sluggish.cancel("move")
    await world.run_until_idle()

    assert await sluggish.result() == "as if nothing were"
    assert (await sluggish.info()).status == "completed"


@pytest.mark.promise("cancelled-once-and-clean")
async def test_clean_up_beyond_its_grace_is_broken_off_and_said(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    world = await make_world(Sluggish)
    sluggish = await world.start(Sluggish.run, "s", DAY)
    await world.settled()
    await sluggish.cancel("move")
    await world.advance(timedelta(seconds=59))
    before = await sluggish.info()

    await world.advance(timedelta(seconds=1))

    assert (before.status, await reason(sluggish)) == ("suspended", "move")
    assert await sluggish.query(Sluggish.diary) == ["cancelled"]
    assert "Sluggish/s was to end (move) and did not within 60 s, so this is broken off: run;" in caplog.text


async def test_a_handler_that_cleans_up_for_too_long_is_broken_off(make_world: MakeWorld) -> None:
    world = await make_world(Sluggish)
    sluggish = world.ref(Sluggish, "s")
    asked = asyncio.create_task(sluggish.ask(Sluggish.linger))
    await world.settled()

    await sluggish.cancel("move")
    await world.run_until_idle()

    with pytest.raises(ActorCancelled, match="move"):
        await asked
    assert await sluggish.query(Sluggish.diary) == ["the handler ends"]


async def test_no_grace_leaves_time_for_what_does_not_wait(make_world: MakeWorld) -> None:
    world = await make_world(Hasty)
    hasty = await world.start(Hasty.run, "h", 1.0)
    await world.settled()

    await hasty.cancel("now")
    await world.run_until_idle()

    assert await reason(hasty) == "now"
    assert await hasty.query(Hasty.diary) == ["cancelled", "at once"]


# --- ends that meet ---


@durable_actor(cancel_grace=MINUTE)
class Reborn:
    """Continues as new when it is told to, also while it cleans up."""

    onward = signal(int)

    def __init__(self) -> None:
        self.lives: list[int] = []

    @query
    def lived(self) -> list[int]:
        return self.lives

    @on_event
    async def linger(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "well"

    @workflow
    async def run(self, life: int, stubborn: bool = False) -> None:
        self.lives.append(life)
        try:
            life = await wait_for_signal(Reborn.onward)
        except asyncio.CancelledError:
            if stubborn:
                continue_as_new(life + 1)
            raise
        continue_as_new(life)


async def test_who_is_to_end_does_not_continue_as_new(make_world: MakeWorld) -> None:
    world = await make_world(Reborn)
    reborn = await world.start(Reborn.run, "r", 1, stubborn=True)
    await world.settled()

    await reborn.cancel("enough")
    await world.run_until_idle()

    assert (await reason(reborn), await reborn.query(Reborn.lived)) == ("enough", [1])


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_who_continues_as_new_ends_when_it_is_asked_to_meanwhile(make_world: MakeWorld, verb: str) -> None:
    world = await make_world(Reborn)
    reborn = await world.start(Reborn.run, "r", 1)
    asked = asyncio.create_task(reborn.ask(Reborn.linger, 30))
    await world.settled()
    await send_signal(reborn, Reborn.onward, 2)
    await world.settled()

    await getattr(reborn, verb)("enough")
    await world.run_until_idle()

    assert (await reborn.query(Reborn.lived), (await reborn.info()).status) == ([1], "cancelled")
    assert (await reason(reborn)).endswith("enough")
    with pytest.raises(ActorCancelled):
        await asked


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_an_end_behind_a_continuation_ends_one_life_or_the_next(make_world: MakeWorld, verb: str) -> None:
    world = await make_world(Reborn)
    reborn = await world.start(Reborn.run, "r", 1)
    await world.settled()

    with world.slow_disk():
        sent = [asyncio.ensure_future(send_signal(reborn, Reborn.onward, 2)), asyncio.ensure_future(getattr(reborn, verb)("enough"))]
        await asyncio.sleep(0.01)
    await asyncio.gather(*sent)
    await world.run_until_idle()

    assert ((await reborn.info()).status, (await reason(reborn))[-6:]) == ("cancelled", "enough")
    assert await reborn.query(Reborn.lived) in ([1], [1, 2])


@pytest.mark.parametrize("first", ["cancel", "restart"])
async def test_a_restart_and_a_cancel_happen_in_their_order(make_world: MakeWorld, first: str) -> None:
    world = await make_world(Sluggish)
    sluggish = await world.start(Sluggish.run, "s", 5.0)
    await world.settled()
    anew = world.options(if_exists="restart")

    if first == "cancel":
        await sluggish.cancel("move")
    await anew.start(Sluggish.run, "s", 6.0)
    await sluggish.cancel("move again")
    await world.run_until_idle()

    assert await sluggish.result() == "as if nothing were"
    assert await sluggish.query(Sluggish.diary) == ["cancelled", "cleaned up"]


# --- who is asked to end ---


@durable_actor
class Idler:
    """Has no workflow."""

    def __init__(self) -> None:
        self.count = 0

    @on_event
    async def add(self, by: int) -> int:
        self.count += by
        await asyncio.sleep(by)
        return self.count

    @on_event
    def send_away(self, whom: ActorRef[Any], how: str) -> None:
        whom.cancel("you") if how == "cancel" else whom.terminate("you")

    @on_event
    async def see_away(self, whom: ActorRef[Any], how: str) -> None:
        await (whom.cancel("you") if how == "cancel" else whom.terminate("you"))


async def test_an_idle_actor_ends_when_it_is_cancelled(make_world: MakeWorld) -> None:
    world = await make_world(Idler)
    idler = world.ref(Idler, "i")
    await asyncio.gather(idler.ask(Idler.add, 0), world.settled())

    await idler.cancel("enough")

    assert (await idler.info()).status == "cancelled"
    with pytest.raises(ActorCompleted):
        await idler.ask(Idler.add, 1)


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_who_never_was_cannot_be_ended(make_world: MakeWorld, verb: str) -> None:
    world = await make_world(Idler)

    with pytest.raises(ActorNotFound):
        await getattr(world.ref(Idler, "i"), verb)("enough")


@pytest.mark.parametrize("verb", ["cancel", "terminate"])
async def test_an_end_comes_once(make_world: MakeWorld, verb: str) -> None:
    world = await make_world(Tenant)
    tenant = await world.start(Tenant.run, "t", "by_itself")
    await world.settled()
    await tenant.cancel("first")
    await world.run_until_idle()

    await getattr(tenant, verb)("second")
    await world.run_until_idle()

    assert (await reason(tenant), await tenant.query(Tenant.diary)) == ("first", ["first", 4])


async def test_events_behind_a_cancelled_handler_hear_that_it_has_ended(make_world: MakeWorld) -> None:
    world = await make_world(Idler)
    idler = world.ref(Idler, "i")
    asked = [asyncio.create_task(idler.ask(Idler.add, by)) for by in (60, 1, 2)]
    await world.settled()

    await idler.cancel("enough")
    await idler.cancel("again")
    await world.run_until_idle()

    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ActorCancelled, ActorCompleted, ActorCompleted]


@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize("handler", [Idler.send_away, Idler.see_away], ids=["sent", "awaited"])
async def test_an_actor_ends_another_with_its_turn(make_world: MakeWorld, handler: Any, how: str) -> None:
    world = await make_world(Idler, Tenant)
    tenant = await world.start(Tenant.run, "t", "by_itself")
    await world.settled()

    await world.ref(Idler, "i").ask(handler, tenant, how)
    await world.ref(Idler, "i").ask(handler, world.ref(Idler, "nobody"), how)
    await world.run_until_idle()

    assert (await reason(tenant)).endswith("you")
    assert await world.dead_letters() == []
    assert [info.id.key async for info in world.actors()] == ["i", "t"]


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_an_actor_may_end_itself(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Idler)
    idler = world.ref(Idler, "i")

    await idler.ask(Idler.send_away, idler, how)
    await world.run_until_idle()

    assert (await idler.info()).status == "cancelled"


@durable_actor
class Founder:
    """Begins another one, and ends it in the same breath."""

    @on_event
    def found(self, how: str) -> None:
        child = spawn.options(on_parent_close="abandon")(Tenant.run, "t", "by_itself")
        child.cancel("sorry") if how == "cancel" else child.terminate("sorry")


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_an_end_right_behind_the_beginning_finds_the_actor(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Founder, Tenant)

    await world.ref(Founder, "f").ask(Founder.found, how)
    await world.run_until_idle()

    assert (await reason(world.ref(Tenant.run, "t"))).endswith("sorry")


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_an_end_finds_an_actor_that_no_host_has_had_in_memory(make_world: MakeWorld, how: str) -> None:
    world = await make_world(Tenant)
    tenant = await world.start(Tenant.run, "t", "by_itself")
    await world.settled()
    await world.restart()

    await getattr(tenant, how)("enough")
    await world.run_until_idle()

    assert (await reason(tenant)).endswith("enough")
    assert await tenant.query(Tenant.diary) == ([] if how == "terminate" else ["enough", 4])


@durable_actor(on_poison="quarantine")
class Fragile:
    """Breaks at a message."""

    @on_signal
    def hit(self) -> None:
        raise ValueError("it broke")

    @workflow
    async def run(self) -> None:
        await asyncio.sleep(DAY)


async def test_who_stands_still_at_its_first_message_is_not_waited_for(make_world: MakeWorld) -> None:
    actor = durable_actor(name="Fragile", on_poison="quarantine")(type("Fragile", (), {"hit": Fragile.hit}))
    ref: ActorRef[Any] = (await make_world(actor)).ref(actor, "f")
    await send_signal(ref, "hit")

    with pytest.raises(ActorQuarantined, match="it broke"):
        await ref.terminate()
    assert (await ref.info()).interrupts == 1


async def test_who_is_quarantined_can_be_terminated_and_not_cancelled(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = await world.start(Fragile.run, "f")
    await send_signal(fragile, Fragile.hit)
    await world.settled()

    with pytest.raises(ActorQuarantined):
        await fragile.cancel("enough")
    await fragile.terminate("enough")
    await world.run_until_idle()

    assert (await reason(fragile), (await fragile.info()).status) == ("terminated: enough", "cancelled")
