"""Logs outlive the code that wrote them: under another Python, or after a change, a program ends as it would have, or stands still."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from perdure.actors import (
    ActorId,
    ActorQuarantined,
    NonDeterminismError,
    Retry,
    WorkflowRef,
    current_actor,
    durable_actor,
    on_event,
    query,
    send_signal,
    signal,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors import _replaying as replaying
from perdure.actors._envelope import Envelope, Kind
from perdure.actors._ids import MessageId
from perdure.actors._journal import Recorded
from perdure.actors._records import Asked, LogEntry, RequestKind
from perdure.actors.testing import World

from .fresh import ROOT, live
from .programs import PROGRAMS
from .stage import undisturbed

pytestmark = pytest.mark.anyio

OTHER = ".venv-3.13" if sys.version_info < (3, 13) else ".venv"


@step
async def charge(what: str) -> str:
    return f"{what} is charged"


@step
async def pack(what: str) -> str:
    return f"{what} is packed"


@step(retry=Retry(initial=timedelta(minutes=1)))
async def slow(what: str) -> str:
    if step_info().attempt == 1:
        raise ConnectionError(what)
    return f"{what} at last"


@durable_actor
class Order:
    """Whatever `work` does, which a test puts another one in the place of."""

    approved = signal(str)

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.marks: dict[str, float] = {}

    @on_event
    def add(self, line: str) -> list[str]:
        self.lines.append(line)
        return self.lines

    @query
    def noted(self) -> dict[str, float]:
        return self.marks

    @workflow
    async def run(self) -> list[str]:
        return await self.work()

    async def work(self) -> list[str]:
        self.lines.append(await charge("tea"))
        self.lines.append(await pack("tea"))
        self.lines.append(await wait_for_signal(Order.approved))
        return self.lines


Work = Callable[[Order], Awaitable[list[str]]]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One with orders in it."""
    async with World([Order]) as world:
        yield world


async def begun(world: World) -> WorkflowRef[Order, list[str]]:
    """An order that waits."""
    order = await world.start(Order.run, "o-1")
    await world.settled()
    return order


# --- another Python ---


@pytest.fixture
def other_python() -> str:
    """Another minor version than this one."""
    found = ROOT / OTHER / "bin/python"
    if not found.exists():
        pytest.skip(f"there is no {found}")
    return str(found)


@pytest.mark.promise("same-course-everywhere")
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_two_versions_of_python_in_turn_agree(other_python: str, tmp_path: Path) -> None:
    expected = {program.name: repr(await undisturbed(tmp_path, program)) for program in PROGRAMS}

    found = live(tmp_path, sys.executable, other_python)

    assert {name: page.ending for name, page in found.book.items()} == expected


async def test_a_quarantine_under_another_python_names_both(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order = await begun(world)
    monkeypatch.setattr(Order, "work", with_another_step)
    monkeypatch.setattr(replaying, "python_version", lambda: "3.99")

    await world.restart()
    await send_signal(order, Order.approved, "ada")
    await world.settled()

    assert f"Order/o-1 waits since Python {sys.version_info[0]}.{sys.version_info[1]} with anyio" in caplog.text
    assert "is replayed under Python 3.99 with anyio" in caplog.text


# --- another program ---


async def with_another_step(self: Order) -> list[str]:
    self.lines.append(await charge("tea"))
    self.lines.append(await pack("tea"))
    self.lines.append(await charge("milk"))
    return self.lines


async def with_a_step_less(self: Order) -> list[str]:
    self.lines.append(await charge("tea"))
    self.lines.append(await wait_for_signal(Order.approved))
    return self.lines


async def in_another_order(self: Order) -> list[str]:
    self.lines.append(await pack("tea"))
    self.lines.append(await charge("tea"))
    return self.lines


async def that_ends_early(self: Order) -> list[str]:
    self.lines.append(await charge("tea"))
    return self.lines


def named(step: str) -> str:
    return f"step {__name__}.{step}"


CHANGES = [
    (with_another_step, (named("charge"),), ("signal approved",)),
    (with_a_step_less, ("signal approved",), (named("pack"),)),
    (in_another_order, (named("pack"),), (named("charge"),)),
    (that_ends_early, (), (named("pack"),)),
]


@pytest.mark.promise("replay-is-checked")
@pytest.mark.parametrize(("changed", "now", "then"), CHANGES)
async def test_a_changed_program_is_quarantined_and_both_lists_are_named(
    world: World, monkeypatch: pytest.MonkeyPatch, changed: Work, now: tuple[str, ...], then: tuple[str, ...]
) -> None:
    order = await begun(world)
    monkeypatch.setattr(Order, "work", changed)

    await world.restart()
    await send_signal(order, Order.approved, "ada")
    await world.settled()

    assert (await order.info()).status == "quarantined"
    with pytest.raises(NonDeterminismError) as caught:
        await order.ask(Order.add, "milk")
    assert (caught.value.now, caught.value.then) == (now, then)


@pytest.mark.promise("quarantine-keeps-everything", "quarantine-touches-no-other")
@pytest.mark.parametrize("changed", [change[0] for change in CHANGES])
async def test_a_quarantined_order_loses_nothing_and_goes_on_when_put_back(
    world: World, monkeypatch: pytest.MonkeyPatch, changed: Work
) -> None:
    order = await begun(world)
    with monkeypatch.context() as patches:
        patches.setattr(Order, "work", changed)
        await world.restart()
        await send_signal(order, Order.approved, "ada")
        await world.settled()
        assert await world.ref(Order, "o-2").ask(Order.add, "milk") == ["milk"]

    await order.retry()
    await world.settled()

    assert await order.result() == ["tea is charged", "tea is packed", "ada"]
    assert await world.dead_letters() == []


# --- like-named requests in another order ---


async def tea_first(self: Order) -> list[str]:
    tea, milk = await asyncio.gather(slow("tea"), slow("milk"))
    return [tea, milk]


async def milk_first(self: Order) -> list[str]:
    milk, tea = await asyncio.gather(slow("milk"), slow("tea"))
    return [tea, milk]


@pytest.mark.promise("replay-is-checked")
async def test_like_named_steps_in_another_order_get_their_own_outcomes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order, "work", tea_first)
    order = await begun(world)

    monkeypatch.setattr(Order, "work", milk_first)
    await world.restart()
    await world.run_until_idle()

    assert await order.result() == ["tea at last", "milk at last"]


def test_a_journal_matches_by_arguments_first_and_by_order_then() -> None:
    then = [Asked(RequestKind.STEP, "charge", nth, digest) for nth, digest in enumerate((b"a", b"b", b"c"))]
    envelope = Envelope(id=MessageId(bytes(16)), kind=Kind.START, name="run", payload=b"")
    recorded = Recorded(ActorId("Order", "o-1"), LogEntry(1, 1, 0.0, envelope, then))

    found = [recorded.match(RequestKind.STEP, "charge", digest, 0.0, []).nth for digest in (b"c", b"x", b"b")]

    assert found == [2, 0, 1]


# --- what is not recorded ---


async def that_reads_the_clock(self: Order) -> list[str]:
    self.marks["begun"] = time.time()
    await wait_for_signal(Order.approved)
    return self.lines


async def that_makes_names_of_the_clock(self: Order) -> list[str]:
    self.marks[str(time.time_ns())] = 1.0
    await wait_for_signal(Order.approved)
    return self.lines


async def that_says_something(self: Order) -> list[str]:
    current_actor().logger.warning("it begins")
    await wait_for_signal(Order.approved)
    current_actor().logger.warning("it goes on")
    return self.lines


async def test_the_time_that_was_read_first_counts_and_is_warned_of(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Order, "work", that_reads_the_clock)
    order = await begun(world)
    noted = await order.query(Order.noted)

    await world.restart()
    await send_signal(order, Order.approved, "ada")
    await order.result()

    assert await order.query(Order.noted) == noted
    assert "self.marks['begun'] was not what it had been" in caplog.text


@pytest.mark.promise("replay-is-checked")
async def test_a_shape_that_depends_on_the_clock_is_quarantined(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order, "work", that_makes_names_of_the_clock)
    order = await begun(world)

    await world.restart()
    await send_signal(order, Order.approved, "ada")

    with pytest.raises(ActorQuarantined, match=r"self\.marks\['\d+'\] is (1\.0|nothing) after replay, and (nothing|1\.0) in the snapshot"):
        await order.result()


async def test_what_was_said_is_not_said_again_on_replay(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Order, "work", that_says_something)
    order = await begun(world)

    await world.restart()
    await send_signal(order, Order.approved, "ada")
    await order.result()

    said = [record for record in caplog.records if record.name == "perdure.actor"]
    assert [record.getMessage() for record in said] == ["it begins", "it goes on"]
