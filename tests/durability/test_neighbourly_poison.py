"""Messages that no handler survives end in the dead letters after so many attempts, and those that live beside them hardly notice."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from perdure.actors import Client, NotSerializable, RemoteError, Retry, Runtime, durable_actor, on_event
from perdure.actors.testing import World

from .rig import poisons
from .rig.neighbours import Comparison
from .rig.poisons import ATTEMPTS, POISONS, RUNS, Neighbour, Victim

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

NAMED_WITHIN: Final = 1.0  # seconds
LOSS: Final = 0.10  # that the others may have by poison at RATE
TOLERANCE: Final = 0.5  # the same of a measurement too short to mean much
RATE: Final = 10.0  # messages of poison a second, each of which fails four times
UNANSWERABLE: Final = {
    "keeps a lock": NotSerializable,
    "keeps what is too deep": NotSerializable,
    "keeps what aborts its pickling": RemoteError,
}

Letters = list[tuple[str, int, int]]
begun: list[float] = []  # when handlers that hang have begun


@durable_actor(retry=Retry(max_attempts=1))
class Hanging:
    """Never comes back."""

    @on_event
    def hang(self) -> None:
        begun.append(time.time())
        while True:
            pass

    @on_event
    async def hang_later(self) -> None:
        await asyncio.sleep(0)
        begun.append(time.time())
        while True:
            pass

    @on_event
    def hang_on(self) -> None:
        begun.append(time.time())
        while True:
            try:
                begun[9]
            except IndexError:
                continue


@pytest.fixture(params=["memory", "lmdb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"lmdb:{tmp_path}/store"


@pytest.fixture(autouse=True)
def quiet() -> None:
    """That messages fail is what is wanted here."""
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)


async def told(world: World) -> Letters:
    return [(letter.actor.key, letter.failed, letter.interrupted) for letter in await world.dead_letters()]


@pytest.mark.promise("poison-is-put-aside")
@pytest.mark.reliability(16)
@pytest.mark.parametrize("handler", [Victim.swallow, Victim.swallow_later])
@pytest.mark.parametrize("kind", POISONS)
async def test_poison_is_put_aside_after_its_attempts(store_url: str, kind: str, handler: Any) -> None:
    RUNS.clear()
    async with World([Victim, Neighbour], store=store_url) as world:
        victim, neighbours = world.ref(Victim, kind), [world.ref(Neighbour, f"{number}") for number in range(5)]
        await victim.send_event(handler, kind)
        before = [await neighbour.ask(Neighbour.add) for neighbour in neighbours]
        await world.run_until_idle()
        after = [await neighbour.ask(Neighbour.add) for neighbour in neighbours]

        assert await told(world) == [(kind, ATTEMPTS, 0)]
        assert (RUNS[kind], before, after) == (ATTEMPTS, [1] * 5, [2] * 5)
        assert await victim.ask(Victim.hold, None) == 1


@pytest.mark.promise("poison-is-put-aside")
@pytest.mark.reliability(16)
@pytest.mark.parametrize("kind", POISONS)
async def test_attempts_are_counted_over_restarts(store_url: str, kind: str) -> None:
    RUNS.clear()
    async with World([Victim], store=store_url) as world:
        await world.ref(Victim, kind).send_event(Victim.swallow, kind)
        for _ in range(ATTEMPTS + 1):
            await world.settled()
            await world.restart()
            await world.advance(timedelta(seconds=1))

        assert await told(world) == [(kind, ATTEMPTS, 0)]
        assert RUNS[kind] == ATTEMPTS


@pytest.mark.promise("failed-turn-leaves-no-trace")
@pytest.mark.parametrize("kind", UNANSWERABLE)
async def test_a_result_that_cannot_be_told_undoes_its_turn(store_url: str, kind: str) -> None:
    async with World([Victim], store=store_url) as world:
        victim = world.ref(Victim, kind)

        with pytest.raises(UNANSWERABLE[kind]):
            await victim.ask(Victim.give, kind)

        assert await victim.query(Victim.count) == 0
        assert await told(world) == []


@pytest.mark.promise("nothing-is-dropped-silently")
async def test_a_payload_that_nobody_can_read_any_more_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Victim]):
        pass
    async with Client(url) as client:
        await client.ref(Victim, "a").send_event(Victim.hold, poisons.Parcel())
        await client.ref(Victim, "a").send_event(Victim.hold, None)
    monkeypatch.delattr(poisons, "Parcel")

    async with World([Victim], store=url) as world:
        await world.run_until_idle()

        assert await told(world) == [("a", ATTEMPTS, 0)]
        assert await world.ref(Victim, "a").query(Victim.count) == 1


@pytest.mark.promise("turns-end")
@pytest.mark.reliability(16)
@pytest.mark.parametrize("handler", ["hang", "hang_later", "hang_on"])
async def test_a_handler_that_hangs_is_named_and_broken(handler: str, torture: bool, caplog: pytest.LogCaptureFixture) -> None:
    limit = 10.0 if torture else 0.3
    begun.clear()
    async with Runtime("memory:", [Hanging, Neighbour], turn_limit=limit) as runtime:
        await runtime.ref(Hanging, "h").send_event(handler)
        assert await runtime.ref(Neighbour, "n").ask(Neighbour.add) == 1
        found = [(letter.failed, letter.error.partition(":")[0]) async for letter in runtime.dead_letters()]

    named, broken = [record for record in caplog.records if record.name == "perdure.watchdog"]
    print(f"{handler} named after {named.created - begun[0]:.3f} s, broken after {broken.created - begun[0]:.3f} s of {limit} s")
    assert found == [(1, "perdure.actors.TurnDidNotEnd")]
    assert named.created - begun[0] < NAMED_WITHIN
    assert limit <= broken.created - begun[0] + 0.01 < limit + NAMED_WITHIN
    assert f"Hanging/h: {handler} blocks the event loop" in named.getMessage()
    assert f": {__file__}:" in named.getMessage()


Compare = Callable[..., Comparison]


@pytest.fixture
def compare(store_url: str, pytestconfig: pytest.Config) -> Compare:
    """Measures the others' work alone and beside poison, in a process that does nothing else."""

    def run(rounds: int, seconds: float) -> Comparison:
        options = [f"--rounds={rounds}", f"--seconds={seconds}", f"--rate={RATE}"]
        command = [sys.executable, "-m", "tests.durability.rig.neighbours", store_url, *options]
        return Comparison(*json.loads(subprocess.run(command, cwd=pytestconfig.rootpath, stdout=subprocess.PIPE, check=True).stdout))

    return run


@pytest.mark.promise("poison-is-put-aside")
@pytest.mark.reliability(16)
@pytest.mark.slow
def test_the_others_hardly_notice_poison(compare: Compare, torture: bool) -> None:
    # The full figure wants a machine with nothing else to do: at a load of 3 on two cores, a load compared with itself comes out 5 % off.
    comparison = compare(40, 1.0) if torture else compare(4, 0.4)

    left = statistics.median(poisoned / alone for alone, poisoned in zip(comparison.alone, comparison.poisoned, strict=True))
    print(f"{left:.3f} of the work is done beside {RATE} messages of poison a second; load {os.getloadavg()}")
    print(comparison._replace(letters=[]))
    assert left > 1 - (LOSS if torture else TOLERANCE)
    assert {tuple(letter[1:]) for letter in comparison.letters} == {(ATTEMPTS, 0)}
    assert len(comparison.letters) == comparison.sent
