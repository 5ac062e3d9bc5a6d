"""Each actor is linearizable: to all who ask and query it, through crashes and kills, it is one object that does one thing at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .conftest import AT_ONCE
from .rig.contest import Report
from .rig.lapses import LAPSES
from .rig.registers import ACTORS, MOMENT, History, User, anomalies, counter, register
from .rig.wing_gong import Operation, Specification, complaint, judge

pytestmark = pytest.mark.timeout(1200)

USERS = 8
FOUND_BY_KILLS = ["answer_queries_from_an_older_snapshot", "acknowledge_before_the_commit"]  # the first few

HoldContests = Callable[..., list[Report]]

# --- the checker ---


def explains(order: tuple[Operation, ...], history: list[Operation], specification: Specification) -> bool:
    """Whether an order has all that was answered, keeps to the times and to the specification."""
    if any(each.returned is not None and each not in order for each in history):
        return False
    state = specification.initial
    for place, each in enumerate(order):
        if any(later.returned is not None and later.returned < each.called for later in order[place + 1 :]):
            return False
        state, outcome = specification.apply(state, each.name, each.arguments)
        if each.returned is not None and outcome != each.outcome:
            return False
    return True


def linearizable(history: list[Operation], specification: Specification) -> bool:
    """Whether any order at all explains it, by trying all."""
    return any(explains(order, history, specification) for size in range(len(history) + 1) for order in permutations(history, size))


REGISTER, COUNTER = Specification(0, register), Specification(0, counter)
VALUES = st.integers(0, 2)
OF_REGISTERS = st.one_of(
    st.tuples(st.just("write"), st.tuples(VALUES), st.none()),
    st.tuples(st.just("read"), st.just(()), VALUES),
    st.tuples(st.just("compare_and_set"), st.tuples(VALUES, VALUES), st.booleans()),
)
OF_COUNTERS = st.tuples(st.sampled_from(["increment", "read"]), st.just(()), st.integers(0, 4))


@st.composite
def histories(draw: st.DrawFn, calls: st.SearchStrategy[tuple[str, Any, Any]]) -> list[Operation]:
    """A few calls that overlap anyhow, some of which were never answered."""
    chosen = draw(st.lists(calls, max_size=5))
    times = draw(st.permutations(range(2 * len(chosen))))
    heard = draw(st.lists(st.integers(0, 3), min_size=len(chosen), max_size=len(chosen)))
    spans = [sorted(times[2 * place : 2 * place + 2]) for place in range(len(chosen))]
    return [
        Operation(f"process {place}", name, arguments, outcome, called, returned if heard[place] else None)
        for place, ((name, arguments, outcome), (called, returned)) in enumerate(zip(chosen, spans, strict=True))
    ]


@given(history=histories(OF_REGISTERS))
def test_the_checker_agrees_with_trying_all_orders_of_a_register(history: list[Operation]) -> None:
    order = judge(history, REGISTER).order

    assert (order is not None) == linearizable(history, REGISTER)
    assert order is None or explains(tuple(order), history, REGISTER)


@given(history=histories(OF_COUNTERS))
def test_the_checker_agrees_with_trying_all_orders_of_a_counter(history: list[Operation]) -> None:
    order = judge(history, COUNTER).order

    assert (order is not None) == linearizable(history, COUNTER)
    assert order is None or explains(tuple(order), history, COUNTER)


def lived(length: int, seed: int) -> list[Operation]:
    """A history of a true register: each of six processes calls, takes effect at some time after, and hears, mostly, some time after."""
    rng, state, history = random.Random(seed), 0, list[Operation]()
    under_way: list[Operation] = []
    for now in range(3 * length):
        if len(under_way) < 6 and len(history) + len(under_way) < length:
            name, arguments = rng.choice([("write", (now,)), ("read", ()), ("compare_and_set", (state, now))])
            under_way.append(Operation(f"process {now}", name, arguments, ..., now, None))
        elif under_way:
            each = under_way.pop(rng.randrange(len(under_way)))
            if each.outcome is ...:
                state, outcome = register(state, each.name, each.arguments)
                under_way.append(each._replace(outcome=outcome))
            else:
                history.append(each._replace(returned=None if rng.random() < 0.01 else now))
    return history


def test_a_long_history_is_judged_in_few_steps() -> None:
    history = lived(2_000, seed=1)

    verdict = judge(history, REGISTER)

    assert verdict.order is not None
    assert verdict.steps < 100 * len(history)


def test_one_wrong_answer_in_a_long_history_is_found() -> None:
    history = lived(1_000, seed=2)
    place = next(place for place, each in enumerate(history) if place > 500 and each.name == "read" and each.returned)
    early = next(each for each in history if each.name == "write" and each.returned)
    history[place] = history[place]._replace(outcome=early.arguments[0])

    blocked = judge(history, REGISTER).blocked

    assert blocked == history[place]
    assert str(history[place]) in complaint(history, history[place])


# --- through crashes in process ---


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """What the users of a world call and hear."""
    history = History(tmp_path / "history")
    yield history
    history.close()


async def contend(history: History, calls: int, seed: int, patience: float = math.inf) -> int:
    """Let users call in a world whose host crashes around some of its commits; returns how often it did.

    `patience`: seconds after which those who still call are left alone: what is planted may leave them without an answer for ever.
    """
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)
    rng = random.Random(seed)
    world = World(ACTORS, max_active=rng.choice([0, 2, 10_000]))
    with suppress(CommitUncertain):  # a crash that comes after all has been said
        async with world:
            watcher = asyncio.ensure_future(User(world, history, f"watcher {seed}", watches=True).run())
            users = [asyncio.ensure_future(User(world, history, f"user {seed}.{number}").run(calls)) for number in range(USERS)]
            commits = 0
            end = time.monotonic() + patience
            while not all(user.done() for user in users) and time.monotonic() < end:
                disturb(world, rng, world.store.commits - commits)
                commits = world.store.commits
                await asyncio.sleep(0)
            for left in (watcher, *(user for user in users if not user.done())):
                left.cancel()
            await asyncio.gather(watcher, *users, return_exceptions=True)
            for user in users:
                assert user.cancelled() or user.exception() is None, user.exception()
    return world.store.crashes


def disturb(world: World, rng: random.Random, commits: int) -> None:
    """Let time go on, and the disk take its time, while turns go on of which nobody may hear. Of new commits one in five is fatal."""
    world.clock.move_to(world.clock.now() + MOMENT / 5)
    if rng.random() < 0.02:
        rng.choice([world.store.hold, world.store.flow])()
    if commits and rng.random() < 0.2:  # not now and then: if those who recover were slow, every commit would be fatal
        world.crash_at(rng.choice(list(CrashPoint)), rng.randrange(1, 4))


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.promise("linearizable")
async def test_actors_are_linearizable_through_crashes(history: History, seed: int, torture: bool) -> None:
    crashes = await contend(history, 5_000 if torture else 300, seed)

    assert anomalies(history) == []
    assert crashes > 5


@pytest.mark.anyio
@pytest.mark.parametrize("lapse", LAPSES)
async def test_a_planted_stale_read_or_lost_update_is_found(tmp_path: Path, lapse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    LAPSES[lapse](monkeypatch.setattr)

    found: list[str] = []
    for seed in range(10):  # some crashes take back nothing that anybody has heard
        history = History(tmp_path / f"history-{seed}")
        await contend(history, 150, seed, patience=4)
        found = anomalies(history)
        history.close()
        if found:
            break

    assert "no order explains" in "".join(found)


# --- through kills ---


@pytest.fixture
def hold_contests(tmp_path: Path, pytestconfig: pytest.Config) -> HoldContests:
    """Holds so many contests, of different seeds, and returns their reports."""

    def hold(count: int, **contest: object) -> list[Report]:
        def one(seed: int) -> Report:
            place = tmp_path / f"contest-{seed}"
            place.mkdir()
            options = {"seed": seed, "max-active": [10_000, 0, 2][seed % 3], **contest}
            command = [sys.executable, "-m", "tests.durability.rig.contest", str(place), *[f"--{name}={options[name]}" for name in options]]
            outcome = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
            assert outcome.returncode == 0, outcome.stderr
            return Report(*json.loads(outcome.stdout))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, range(1, count + 1)))

    return hold


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.promise("linearizable")
def test_actors_are_linearizable_through_kills(hold_contests: HoldContests, torture: bool) -> None:
    contests, kills = (100, 12) if torture else (2, 10)

    reports = hold_contests(contests, kills=kills)

    calls, unheard = sum(sum(report.calls.values()) for report in reports), sum(report.unheard for report in reports)
    print(f"{contests} contests, {contests * kills} kills, {calls} calls, {unheard} of them never answered")
    assert [violation for report in reports for violation in report.violations] == []
    assert min(min(report.calls.values()) for report in reports) > 20


@pytest.mark.slow
@pytest.mark.parametrize("lapse", FOUND_BY_KILLS)
def test_a_planted_lapse_is_found_through_kills(hold_contests: HoldContests, lapse: str) -> None:
    (report,) = hold_contests(1, kills=6, lapse=lapse, **{"max-active": 0})

    assert "no order explains" in "".join(report.violations)
