"""A message with an idempotency key is handled once, however often it is sent, and every sender gets the one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from perdure.actors import (
    ActorQuarantined,
    ActorRef,
    IdempotencyMismatch,
    InvalidKey,
    current_actor,
    durable_actor,
    on_activate,
    on_event,
    send_signal,
)
from perdure.actors.testing import CrashPoint
from perdure.storage import CommitUncertain

from .bank import Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Keeper:
    """Counts what it is given."""

    kept: int = 0

    @on_event
    def keep(self, value: object) -> int:
        self.kept += 1
        return self.kept


@durable_actor
class Needy:
    """Cannot come into memory without its tool."""

    @on_activate
    def take_tool(self) -> None:
        current_actor().resources["tool"]

    @on_event
    def work(self) -> None: ...


def once(counter: ActorRef[Counter], key: str = "k") -> ActorRef[Counter]:
    return counter.options(idempotency_key=key)


@pytest.mark.promise("keys-happen-once")
async def test_a_repetition_gets_the_recorded_answer(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    answers = [await once(counter).ask(Counter.add, 3), await counter.ask(Counter.add, 1), await once(counter).ask(Counter.add, 3)]

    assert answers == [3, 4, 3]
    assert await counter.query(Counter.value) == 4


async def test_an_exception_is_an_outcome_too(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    for _ in range(2):
        with pytest.raises(LookupError, match="after 3"):
            await once(counter).ask(Counter.fail_after_adding, 3)


@pytest.mark.promise("keys-happen-once")
@pytest.mark.parametrize("point", CrashPoint)
async def test_asking_again_after_a_crash_happens_once(make_world: MakeWorld, point: CrashPoint) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    world.crash_at(point)
    with pytest.raises(CommitUncertain):
        await once(counter).ask(Counter.add, 3)

    assert await once(counter).ask(Counter.add, 3) == 3
    assert await counter.query(Counter.value) == 3


@pytest.mark.promise("keys-happen-once")
async def test_repetitions_at_the_same_time_share_one_turn(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    answers = await asyncio.gather(*(once(counter).ask(Counter.add, 3) for _ in range(10)))

    assert answers == [3] * 10
    assert await counter.query(Counter.value) == 3


async def test_repetitions_at_the_same_time_are_looked_up_together(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Counter)
    counter, read, sizes = world.ref(Counter, "a"), world.store.read, list[int]()

    async def counted(keys: Sequence[bytes]) -> list[bytes | None]:
        sizes.append(len(keys))
        return await read(keys)

    monkeypatch.setattr(world.store, "read", counted)
    await asyncio.gather(*(once(counter).ask(Counter.add, 3) for _ in range(100)))

    assert sum(sizes) < 300


async def test_a_repetition_waits_for_a_message_in_back_off(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await once(counter).send_event(Counter.fail_after_adding, 3)

    repetition = asyncio.ensure_future(once(counter).ask(Counter.fail_after_adding, 3))
    await world.run_until_idle()

    with pytest.raises(LookupError):
        await repetition
    assert len(await world.dead_letters()) == 1


@pytest.mark.promise("keys-happen-once")
async def test_a_key_for_something_else_is_refused(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await once(counter).ask(Counter.add, 3)

    with pytest.raises(IdempotencyMismatch, match="with other arguments"):
        await once(counter).ask(Counter.add, 4)
    with pytest.raises(IdempotencyMismatch, match="'add_slowly' after 'add'"):
        await once(counter).send_event(Counter.add_slowly, 3)

    assert await once(counter).ask(Counter.add, 3) == 3


async def test_equal_arguments_are_the_same_whatever_their_identities(make_world: MakeWorld) -> None:
    world = await make_world(Keeper)
    keeper, text = world.ref(Keeper, "a"), "xyz" * 2
    await keeper.options(idempotency_key="k").ask(Keeper.keep, (text, text))

    again = await keeper.options(idempotency_key="k").ask(Keeper.keep, (text, "".join(reversed("zyxzyx"))))

    assert again == 1


@pytest.mark.promise("keys-outlive-their-actor")
async def test_keys_belong_to_one_actor_and_expire(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter, other = world.ref(Counter, "a"), world.ref(Counter, "b")
    await once(counter).ask(Counter.add, 3)

    assert await once(other).ask(Counter.add, 3) == 3
    world.clock.move_to(world.clock.now() + 86_401)
    assert await once(counter).ask(Counter.add, 3) == 6
    await world.restart()  # a host looks for what has expired when it starts
    assert await once(counter).ask(Counter.add, 3) == 6


async def test_signals_and_sent_events_take_keys_too(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    for _ in range(2):
        await send_signal(once(counter, "note"), Counter.note, "x")
        await send_signal(once(counter, "renamed"), Counter.renamed, "y")
        await once(counter, "add").send_event(Counter.add, 1)
    await world.settled()

    assert await counter.query(Counter.all_notes) == ["x"]
    assert await counter.query(Counter.value) == 1


async def test_a_repetition_after_a_deletion_is_a_new_message(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await once(counter).send_event(Counter.fail_after_adding, 3)
    await world.restart()

    deletion, repetition = counter.delete(), once(counter).ask(Counter.fail_after_adding, 3)
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(deletion, repetition, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None), LookupError]


async def test_a_quarantined_actor_refuses_repetitions_too(make_world: MakeWorld) -> None:
    world = await make_world(Needy)
    needy = world.ref(Needy, "a").options(idempotency_key="k")

    for _ in range(2):
        with pytest.raises(ActorQuarantined):
            await asyncio.wait_for(needy.ask(Needy.work), 5)


@pytest.mark.promise("keys-outlive-their-actor")
async def test_a_key_does_not_expire_before_its_message_is_handled(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await once(counter).send_event(Counter.fail_after_adding, 3)
    await world.settled()

    world.clock._now += 86_401  # no alarm goes off: the host was down all day
    await world.restart()
    await once(counter).send_event(Counter.fail_after_adding, 3)
    await world.run_until_idle()

    assert len(await world.dead_letters()) == 1


async def test_a_key_that_is_no_text_is_refused_at_the_call(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    with pytest.raises(InvalidKey, match="lone surrogate"):
        world.ref(Counter, "a").options(idempotency_key="\ud800")


async def test_a_key_stands_for_the_same_call_however_it_is_written(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = once(world.ref(Counter, "a"))

    assert [await counter.ask(Counter.add, 3), await counter.ask(Counter.add, by=3)] == [3, 3]


async def test_options_add_up(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = once(world.ref(Counter, "a")).options(timeout=timedelta(minutes=1))

    assert [await counter.ask(Counter.add, 3), await counter.ask(Counter.add, 3)] == [3, 3]
