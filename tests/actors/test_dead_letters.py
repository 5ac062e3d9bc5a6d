"""Dead letters: put back once and in order, with other arguments where those were the cause, or forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from perdure.actors import (
    ActorCompleted,
    ActorRef,
    Client,
    DeadLetterInfo,
    DeadLetterNotFound,
    MailboxFull,
    NotDurable,
    Retry,
    UnknownActorType,
    UnknownHandler,
    WrongArguments,
    codec_named,
    durable_actor,
    on_activate,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain, open_store

from .conftest import MakeWorld

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@durable_actor(retry=Retry(max_attempts=1), mailbox_limit=3)
class Press:
    """Prints what is legible, once there is paper."""

    unjammed = signal(str)
    out_of_order: ClassVar[bool] = False

    def __init__(self) -> None:
        self.paper = False
        self.printed: list[str] = []

    @on_activate
    def start(self) -> None:
        if self.out_of_order:
            raise RuntimeError("out of order")

    @on_event
    def load(self) -> None:
        self.paper = True

    @on_event
    def print(self, page: str) -> int:
        if not (self.paper and page.isprintable()):
            raise ValueError(page)
        self.printed.append(page)
        return len(self.printed)

    @on_signal
    def stamp(self, page: str) -> None:
        self.print(page)

    @on_event
    def forward(self, other: ActorRef[Press], page: str) -> None:
        other.send_event(Press.print, page)

    @on_event
    async def jam(self) -> None:
        await wait_for_signal(Press.unjammed)

    @on_event
    async def smoke(self) -> None:
        asyncio.get_running_loop().create_task(self._burn(), name="smoke")
        await asyncio.sleep(0)

    async def _burn(self) -> None:
        raise OSError("burnt")

    @on_event
    async def meddle(self, other: ActorRef[Press], verb: str) -> None:
        await getattr(other, verb)(1)

    @query
    def pages(self) -> list[str]:
        return self.printed


@durable_actor(retry=Retry(max_attempts=1))
class Issue:
    """Ends when it is told to."""

    closed = signal(str)

    @workflow
    async def run(self) -> str:
        return await wait_for_signal(Issue.closed)

    @on_event
    def spoil(self) -> None:
        raise ValueError("spoilt")


async def spoil(world: World, *pages: str) -> ActorRef[Press]:
    """A press that had no paper for these pages, and has some now."""
    press = world.ref(Press, "p")
    for page in pages:
        await press.send_event(Press.print, page)
        await world.settled()
    await press.ask(Press.load)
    return press


async def surely(work: Callable[[], Awaitable[T]]) -> T:
    """Ask until a host lives to answer."""
    while True:
        try:
            return await work()
        except CommitUncertain:
            continue


# --- redriven ---


@pytest.mark.promise("letters-come-back-once")
async def test_letters_are_put_back_in_the_order_of_their_coming(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b", "c")

    assert await press.redrive() == 3

    await world.settled()
    assert await press.query(Press.pages) == ["a", "b", "c"]
    assert await world.dead_letters() == []


async def test_only_the_letters_that_are_named_are_put_back(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b", "c")
    first, second, third = [letter.seq for letter in await world.dead_letters()]

    assert await press.redrive(third, first, 77) == 2

    await world.settled()
    assert await press.query(Press.pages) == ["a", "c"]
    assert [letter.seq for letter in await world.dead_letters()] == [second]


@pytest.mark.promise("letters-come-back-once")
async def test_asked_at_the_same_time_each_is_put_back_once(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b")

    counts = await asyncio.gather(*(press.redrive() for _ in range(3)))

    await world.settled()
    assert sorted(counts) == [0, 0, 2]
    assert await press.query(Press.pages) == ["a", "b"]


@pytest.mark.promise("letters-come-back-once")
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("point", CrashPoint)
async def test_over_a_crash_at_any_commit_each_is_put_back_once(make_world: MakeWorld, point: CrashPoint, nth: int) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b")

    world.crash_at(point, nth)
    await surely(press.redrive)
    await surely(world.settled)
    await surely(press.redrive)

    await surely(world.settled)
    assert await press.query(Press.pages) == ["a", "b"]
    assert await world.dead_letters() == []


async def test_a_message_that_fails_again_is_told_again(make_world: MakeWorld) -> None:
    told: list[DeadLetterInfo] = []
    world = await make_world(Press, on_dead_letter=told.append)
    press = await spoil(world, "a\0")

    await press.redrive()
    await world.settled()

    first, second = told
    assert (first.failed, second.failed) == (1, 1)
    assert first.seq < second.seq
    assert await world.dead_letters() == [second]


async def test_the_idempotency_key_stands_for_the_new_outcome(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    once = world.ref(Press, "p").options(idempotency_key="k")
    await once.send_event(Press.print, "a")
    press = await spoil(world)
    with pytest.raises(ValueError, match="a"):
        await once.ask(Press.print, "a")

    _, answer = await asyncio.gather(press.redrive(), once.ask(Press.print, "a"))

    assert (answer, await once.ask(Press.print, "a")) == (1, 1)
    assert await press.query(Press.pages) == ["a"]


async def test_a_signal_is_put_back_as_a_signal(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = world.ref(Press, "p")
    await send_signal(press, Press.stamp, "a")
    await spoil(world)
    (letter,) = await world.dead_letters()

    await press.redrive()

    await world.settled()
    assert (letter.kind, codec_named("pickle").decode(letter.payload)) == ("signal", ("a",))
    assert await press.query(Press.pages) == ["a"]


async def test_an_ended_actor_refuses_and_keeps_its_letters(make_world: MakeWorld) -> None:
    world = await make_world(Issue)
    issue = await world.start(Issue.run, "i")
    await issue.send_event(Issue.spoil)
    await send_signal(issue, Issue.closed, "done")
    await issue.result()

    with pytest.raises(ActorCompleted):
        await issue.redrive()

    assert [letter.handler for letter in await world.dead_letters()] == ["spoil"]
    assert await issue.drop_dead_letters() == 1


async def test_a_quarantined_actor_takes_its_letters_when_it_goes_on(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a")
    monkeypatch.setattr(Press, "out_of_order", True)
    await world.restart()
    await press.send_event(Press.load)
    await world.settled()

    counts = await press.redrive(), await press.redrive()
    monkeypatch.setattr(Press, "out_of_order", False)
    await press.retry()

    await world.settled()
    assert (counts, await press.query(Press.pages)) == ((1, 0), ["a"])


async def test_what_is_no_message_stays_where_it_is(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world)
    await press.send_event(Press.smoke)
    await world.settled()
    (letter,) = await world.dead_letters()

    assert await press.redrive() == 0

    assert await world.dead_letters() == [letter]
    with pytest.raises(UnknownHandler, match="no event"):
        await press.edit_dead_letter(letter.seq)


async def test_no_more_is_put_back_than_there_is_room_for(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b", "c", "d")
    await press.send_event(Press.jam)
    await press.send_event(Press.load)

    assert await press.redrive() == 2
    with pytest.raises(MailboxFull):
        await press.redrive()

    await send_signal(press, Press.unjammed, "now")
    await world.settled()
    assert await press.redrive() == 2
    await world.settled()
    assert await press.query(Press.pages) == ["a", "b", "c", "d"]


# --- dropped and edited ---


async def test_dropped_letters_are_forgotten(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a", "b", "c")
    first, *others = [letter.seq for letter in await world.dead_letters()]

    dropped = await press.drop_dead_letters(first, 77), await press.drop_dead_letters(), await press.drop_dead_letters()

    assert (dropped, await press.redrive()) == ((1, len(others), 0), 0)
    assert await world.dead_letters() == []


async def test_a_deleted_actor_has_no_letters_to_put_back(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a")

    _, count = await asyncio.gather(press.delete(), press.redrive())

    assert (count, await world.dead_letters()) == (0, [])


async def test_other_arguments_mend_a_poisonous_message(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a\0")
    (letter,) = await world.dead_letters()

    await press.edit_dead_letter(letter.seq, page="a")
    (edited,) = await world.dead_letters()
    await press.redrive()

    await world.settled()
    assert (edited.seq, edited.error, edited.payload != letter.payload) == (letter.seq, letter.error, True)
    assert await press.query(Press.pages) == ["a"]


async def test_an_edit_is_checked_before_anything_changes(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a")
    (letter,) = await world.dead_letters()

    with pytest.raises(DeadLetterNotFound, match="Press/p has no dead letter 77"):
        await press.edit_dead_letter(77, "a")
    with pytest.raises(WrongArguments):
        await press.edit_dead_letter(letter.seq, "a", "b")

    assert await world.dead_letters() == [letter]


async def test_a_letter_that_goes_during_its_edit_is_missed(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a")
    (letter,) = await world.dead_letters()

    dropped, edited = await asyncio.gather(press.drop_dead_letters(), press.edit_dead_letter(letter.seq, "b"), return_exceptions=True)

    assert (dropped, type(edited)) == (1, DeadLetterNotFound)


@pytest.mark.parametrize("verb", ["redrive", "drop_dead_letters", "edit_dead_letter"])
async def test_an_actor_does_not_touch_letters(make_world: MakeWorld, verb: str) -> None:
    world = await make_world(Press)
    press = await spoil(world, "a")

    with pytest.raises(NotDurable, match=verb):
        await world.ref(Press, "q").ask(Press.meddle, press, verb)


async def test_a_letter_says_who_sent_what(make_world: MakeWorld) -> None:
    world = await make_world(Press)
    await world.ref(Press, "q").ask(Press.forward, world.ref(Press, "p"), "a")

    await world.settled()

    (letter,) = await world.dead_letters(Press, "p")
    assert (letter.kind, letter.handler, letter.sender, letter.trace_id) == ("event", "print", "Press/q", None)


# --- by clients ---


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store that clients reach."""
    return f"lmdb:{tmp_path}/clients"


@pytest.fixture
async def left(url: str) -> None:
    """A host was there, and has left a letter that no paper would have spared."""
    async with World([Press], store=url) as world:
        await spoil(world, "a\0")


@pytest.mark.usefixtures("left")
async def test_letters_are_edited_and_put_back_by_name(url: str) -> None:
    async with World([Press], store=url) as world, Client(url) as client:
        press = client.ref("Press", "p")
        (letter,) = await world.dead_letters()

        with pytest.raises(WrongArguments):
            await press.edit_dead_letter(letter.seq, "[1]")
        await press.edit_dead_letter(letter.seq, '{"page": "a"}')

        assert await press.redrive(letter.seq) == 1
        await world.settled()
        assert await world.ref(Press, "p").query(Press.pages) == ["a"]


@pytest.mark.usefixtures("left")
async def test_letters_of_a_type_not_served_can_only_be_dropped(url: str) -> None:
    async with World([Issue], store=url), Client(url) as client:
        press = client.ref("Press", "p")

        with pytest.raises(UnknownActorType):
            await press.redrive()

        assert list(await asyncio.gather(press.drop_dead_letters(77), press.drop_dead_letters(), press.drop_dead_letters())) == [0, 1, 0]
        assert [letter async for letter in client.dead_letters()] == []


async def test_what_came_for_a_type_not_served_is_put_back_later(url: str) -> None:
    async with World([Press, Issue], store=url) as world:
        await world.ref(Press, "p").ask(Press.load)
    async with World([Issue], store=url) as world, Client(url) as client:
        await client.ref("Press", "p").send_event("print", '["a"]')
        await client.ref("Issue", "i").redrive()
        assert [letter.actor.key for letter in await world.dead_letters()] == ["p"]

    async with World([Press], store=url) as world:
        press = world.ref(Press, "p")

        assert await press.redrive() == 1
        await world.settled()
        assert await press.query(Press.pages) == ["a"]


@pytest.mark.usefixtures("left")
async def test_what_could_not_be_read_can_be_dropped(url: str) -> None:
    store = open_store(url, create=False)
    await store.offer(0, b"not a message")
    await store.close()

    async with World([Press], store=url) as world, Client(url) as client:
        (letter,) = [letter for letter in await world.dead_letters() if letter.actor.type == "(inbox)"]

        assert await client.ref("(inbox)", letter.actor.key).drop_dead_letters() == 1
        assert len(await world.dead_letters()) == 1
