"""When handling fails: retries in order, dead letters with their cause, quarantine of one actor, and everybody else goes on."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from perdure.actors import (
    ActorNotFound,
    ActorQuarantined,
    AskTimeout,
    MailboxFull,
    RemoteError,
    Retry,
    Runtime,
    Transient,
    TurnDidNotEnd,
    VersionMismatch,
    current_actor,
    durable_actor,
    on_activate,
    on_event,
    on_signal,
    query,
    send_signal,
)
from perdure.actors._settlement import Settlement
from perdure.actors._watchdog import Watchdog
from perdure.actors.testing import World
from perdure.storage import CommitUncertain

from .bank import Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


def spin() -> None:
    while True:
        pass


class Stop(BaseException):
    """Not an Exception."""


@durable_actor(retry=Retry(max_attempts=4), mailbox_limit=5)
class Fragile:
    """Fails as often as it is told to."""

    failures: int = 0
    broken: bool = False

    def __init__(self) -> None:
        self.done: list[str] = []

    @on_event
    def work(self, name: str, failures: int = 0) -> int:
        if current_actor().attempt <= failures:
            raise RuntimeError(f"{name} fails {current_actor().attempt}")
        self.done.append(name)
        return current_actor().attempt

    @on_signal
    def poke(self, name: str, failures: int = 0) -> None:
        self.work(name, failures)

    @on_event
    def exit(self) -> None:
        raise SystemExit(3)

    @on_event
    def stop(self) -> None:
        self.done.append("stop")
        raise BaseExceptionGroup("no Exception", [Stop()])

    @on_event
    def hang(self) -> None:
        while True:
            time.sleep(0.001)

    @on_event
    def hang_stubbornly(self) -> None:
        while True:
            try:
                time.sleep(0.001)
            except Exception:  # noqa: BLE001
                continue

    @query
    def all_done(self) -> list[str]:
        return self.done

    @query
    def never(self) -> None:
        self.hang()


@durable_actor
class Shy:
    """Does not come into memory."""

    @on_activate
    def hide(self) -> None:
        raise asyncio.CancelledError

    @on_event
    def work(self) -> None: ...


@durable_actor
class Needy:
    """Cannot come into memory without its tool."""

    done: int = 0
    tool: Transient[str]

    @on_activate
    def take_tool(self) -> None:
        self.tool = current_actor().resources["tool"]

    @on_event
    def work(self) -> int:
        self.done += 1
        return self.done


@durable_actor(name="Versioned", version=1)
class First:
    """The first version of a type."""

    count: int = 0

    @on_event
    def add(self) -> int:
        self.count += 1
        return self.count


@durable_actor(name="Versioned", version=2)
class Second(First):
    """The second, with no way from the first."""


@pytest.mark.promise("order-per-sender-and-lane")
async def test_a_sent_event_is_tried_again_and_keeps_its_place(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")

    await fragile.send_event(Fragile.work, "first", failures=2)
    await fragile.send_event(Fragile.work, "second")
    await world.settled()
    waiting = await fragile.info()
    await world.run_until_idle()

    assert (waiting.events, waiting.attempts) == (2, 1)
    assert await fragile.query(Fragile.all_done) == ["first", "second"]


async def test_back_off_grows_and_survives_a_restart(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile, start = world.ref(Fragile, "a"), world.clock.now()
    await fragile.send_event(Fragile.work, "late", failures=3)
    await world.settled()

    await world.restart()
    await world.run_until_idle()

    assert await fragile.query(Fragile.all_done) == ["late"]
    assert 3.5 < world.clock.now() - start < 14  # about 1 + 2 + 4 seconds, with jitter


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_an_event_that_keeps_failing_ends_in_the_dead_letters(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")

    await fragile.send_event(Fragile.work, "never", failures=99)
    await fragile.send_event(Fragile.work, "next")
    await world.run_until_idle()

    (letter,) = await world.dead_letters(Fragile, "a")
    assert (letter.handler, letter.failed, letter.error) == ("work", 4, "RuntimeError: never fails 4")
    assert "in work" in letter.traceback
    assert await fragile.query(Fragile.all_done) == ["next"]


async def test_an_asked_event_is_never_retried(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)

    with pytest.raises(RuntimeError, match="once fails 1"):
        await world.ref(Fragile, "a").ask(Fragile.work, "once", failures=1)

    assert await world.dead_letters() == []


async def test_a_signal_is_retried_at_once(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile, before = world.ref(Fragile, "a"), world.clock.now()

    await send_signal(fragile, Fragile.poke, "second time lucky", failures=1)
    await send_signal(fragile, Fragile.poke, "never", failures=99)
    await world.settled()

    assert await fragile.query(Fragile.all_done) == ["second time lucky"]
    assert [letter.failed for letter in await world.dead_letters()] == [3]
    assert world.clock.now() == before


async def test_a_handler_that_exits_fails_like_any_other(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")

    await fragile.send_event(Fragile.exit)
    await world.run_until_idle()

    assert [letter.error for letter in await world.dead_letters()] == ["SystemExit: 3"]


@pytest.mark.promise("failed-turn-leaves-no-trace")
async def test_what_is_no_exception_is_rolled_back_like_any_other(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")

    with pytest.raises(RemoteError, match="no Exception"):
        await asyncio.wait_for(fragile.ask(Fragile.stop), 5)

    assert await fragile.query(Fragile.all_done) == []


async def test_an_activation_that_is_cancelled_quarantines_its_actor(make_world: MakeWorld) -> None:
    world = await make_world(Shy)

    with pytest.raises(ActorQuarantined, match="CancelledError"):
        await asyncio.wait_for(world.ref(Shy, "a").ask(Shy.work), 5)


@pytest.mark.promise("turns-end")
async def test_a_query_that_hangs_is_broken_off(make_world: MakeWorld) -> None:
    world = await make_world(Fragile, turn_limit=0.3)

    with pytest.raises(TurnDidNotEnd, match="never of Fragile/a"):
        await world.ref(Fragile, "a").query(Fragile.never)


@pytest.mark.promise("turns-end")
@pytest.mark.parametrize("handler", [Fragile.hang, Fragile.hang_stubbornly])
async def test_a_handler_that_hangs_is_named_and_broken_off(make_world: MakeWorld, handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    world = await make_world(Fragile, turn_limit=0.3)
    fragile = world.ref(Fragile, "a")

    with caplog.at_level(logging.WARNING), pytest.raises(TurnDidNotEnd, match=r"0\.3 s"):
        await fragile.ask(handler)

    assert "blocks the event loop" in caplog.text
    assert f"in {handler.__name__}" in caplog.text
    assert await fragile.ask(Fragile.work, "next") == 1


async def test_after_an_interruption_a_profiler_may_look_on() -> None:
    watchdog = Watchdog(0.3)
    watchdog.start()

    with pytest.raises(TurnDidNotEnd):
        watchdog.guard(("a", "spin"), spin)
    watchdog.stop()
    sys.setprofile(lambda *_: None)  # under CPython 3.11 the next call once went on for ever
    try:
        assert str(watchdog)
    finally:
        sys.setprofile(None)


@pytest.mark.promise("signals-overtake-events")
async def test_a_full_mailbox_refuses_an_event_and_not_a_signal(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")
    for number in range(5):
        await fragile.send_event(Fragile.work, str(number), failures=1)

    with pytest.raises(MailboxFull, match="Fragile/a is full: 5 messages"):
        await fragile.send_event(Fragile.work, "one too many")
    await send_signal(fragile, Fragile.poke, "through")

    assert await fragile.query(Fragile.all_done) == ["through"]


async def test_an_ask_that_takes_too_long_raises_and_the_event_stays(make_world: MakeWorld) -> None:
    world = await make_world(Fragile)
    fragile = world.ref(Fragile, "a")
    await fragile.send_event(Fragile.work, "first", failures=1)
    await world.settled()

    asked = asyncio.ensure_future(fragile.options(timeout=timedelta(milliseconds=100)).ask(Fragile.work, "second"))
    await world.settled()
    world.clock.move_to(world.clock.now() + 0.1)
    with pytest.raises(AskTimeout, match=r"within 0\.1 s"):
        await asked
    await world.run_until_idle()

    assert await fragile.query(Fragile.all_done) == ["first", "second"]


@pytest.mark.promise("quarantine-keeps-everything")
async def test_state_of_another_version_is_quarantined_with_its_messages(tmp_path: Path) -> None:
    async with World([First], store=f"lmdb:{tmp_path}/store") as old:
        await old.ref(First, "a").ask(First.add)

    async with World([Second], store=f"lmdb:{tmp_path}/store") as new:
        await refuses_what_another_version_wrote(new)


async def refuses_what_another_version_wrote(new: World) -> None:

    with pytest.raises(VersionMismatch, match="version 1 of its type, and this host runs version 2"):
        await new.ref(Second, "a").ask(Second.add)
    await new.ref(Second, "a").send_event(Second.add)

    info = await new.ref(Second, "a").info()
    assert (info.status, info.events) == ("quarantined", 1)
    assert [each.id.key async for each in new.actors(status="quarantined")] == ["a"]
    assert await new.ref(Second, "b").ask(Second.add) == 1


@pytest.mark.promise("quarantine-keeps-everything")
async def test_a_quarantined_actor_goes_on_once_the_cause_is_mended(make_world: MakeWorld) -> None:
    world = await make_world(Needy, resources=(resources := {}))
    needy = world.ref(Needy, "a")

    await needy.send_event(Needy.work)
    await world.settled()
    with pytest.raises(ActorQuarantined, match="KeyError: 'tool'"):
        await needy.ask(Needy.work)
    resources["tool"] = "hammer"
    await needy.retry()

    assert await needy.ask(Needy.work) == 2


async def test_a_quarantined_actor_can_be_deleted(make_world: MakeWorld) -> None:
    world = await make_world(Needy, resources=(resources := {}))
    needy = world.ref(Needy, "a")
    await needy.send_event(Needy.work)
    await world.settled()

    await needy.delete()
    resources["tool"] = "hammer"

    assert await needy.ask(Needy.work) == 1


async def test_deleting_an_actor_forgets_all_of_it(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.ask(Counter.add, 5)

    await counter.delete()
    await world.restart()

    with pytest.raises(ActorNotFound):
        await counter.info()
    assert [info.id async for info in world.actors()] == []
    assert await counter.ask(Counter.add, 1) == 1


async def test_messages_of_a_type_that_is_gone_hold_up_nobody(tmp_path: Path) -> None:
    async with World([Counter, Fragile], store=f"lmdb:{tmp_path}/store") as before:
        gone = [before.ref(Counter, str(number)).send_event(Counter.fail_after_adding, 1) for number in range(300)]
        await asyncio.gather(*gone, before.ref(Fragile, "a").send_event(Fragile.work, "late", failures=1))

    async with World([Fragile], store=f"lmdb:{tmp_path}/store") as after:
        await asyncio.wait_for(after.run_until_idle(), 5)

        assert await after.ref(Fragile, "a").query(Fragile.all_done) == ["late"]


async def test_a_defect_of_the_host_ends_it_with_nothing_of_the_turn_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ArithmeticError("a defect")

    with pytest.raises(ArithmeticError, match="a defect"):  # noqa: PT012  it is told where the runtime is left
        async with Runtime(f"lmdb:{tmp_path}/store", [Counter]) as runtime:
            await runtime.ref(Counter, "c").ask(Counter.add, 1)
            monkeypatch.setattr(Settlement, "_end_handler", fail)
            with pytest.raises(CommitUncertain, match="its host has ended by ArithmeticError: a defect"):
                await runtime.ref(Counter, "c").ask(Counter.add, 1)
    monkeypatch.undo()

    async with Runtime(f"lmdb:{tmp_path}/store", [Counter]) as runtime:
        assert await runtime.ref(Counter, "c").ask(Counter.add, 1) == 2
