"""A saga of ten steps that fails at any of them, and a host that dies around any commit: what was done is undone in reverse, each once.

    python -m tests.durability.test_saga_matrix PLACE MODE AT

is one life of such a host, for whoever kills it; if it ends well, it says what could not be undone.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import pytest
from perdure.actors import ActorFailed, Retry, Runtime, durable_actor, saga, step, step_info, workflow
from perdure.actors.testing import CrashPoint, World

from .stage import surely

STEPS: Final = range(1, 11)
ONCE: Final = Retry(max_attempts=1)
MODES: Final = (
    "refuses",  # it raises, and nothing is done
    "does it and cannot say so",  # what it returns cannot be stored
    "refuses the second time",  # which there is only if a crash has lost the first one's outcome
)


@final
class Pages:
    """What steps say that they do, in a file that outlives its host: "try", "do" or "undo", of which step, with which key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch()

    def note(self, act: str, number: int) -> None:
        """Write it down before anybody can know of it."""
        with self._path.open("a") as file:
            file.write(f"{act} {number} {step_info().idempotency_key}\n")

    def read(self) -> list[tuple[str, int, str]]:
        """All of it, in order."""
        lines = (line.split() for line in self._path.read_text().splitlines())
        return [(act, int(number), key) for act, number, key in lines]

    def acts(self, wanted: str) -> list[int]:
        """The steps of an act, in the order in which they were first at it; one that has two keys is there twice."""
        return list({(number, key): number for act, number, key in self.read() if act == wanted}.values())

    def most(self) -> int:
        """How often the body ran that ran most often, of those with one key."""
        runs = Counter((act, key) for act, _, key in self.read())
        return max(runs.values())


def pages() -> Pages:
    found: Pages = step_info().resources["pages"]
    return found


@step(retry=ONCE)
async def undo(number: int, mode: str, at: int) -> None:
    pages().note("undo", number)


@step(compensate=undo, retry=ONCE)
async def do(number: int, mode: str, at: int) -> Any:
    again = number in pages().acts("try")
    pages().note("try", number)
    if number == at and (mode == "refuses" or (mode == "refuses the second time" and again)):
        raise PermissionError(f"step {number} refuses")
    pages().note("do", number)
    await asyncio.sleep(step_info().resources["pause"])
    return threading.Lock() if number == at and mode == "does it and cannot say so" else number


@durable_actor
class Journey:
    """Ten steps, and nothing of it stays."""

    @workflow
    async def run(self, mode: str, at: int) -> None:
        async with saga():
            for number in STEPS:
                await do(number, mode, at)
            raise LookupError("nobody wants to travel")


# --- crashes around every commit ---


class Plan(NamedTuple):
    """One saga: how its step fails, which (0: none does), and how many actors may stay in memory."""

    mode: str
    at: int
    max_active: int


PLANS: Final = [Plan(*each) for each in product(MODES, (0, *STEPS), (10_000, 0)) if each[1] or each[0] == MODES[0]]


async def crashed(plan: Plan, point: CrashPoint, nth: int, path: Path) -> bool:
    """Tell one saga, with a crash; returns False if it had as many commits no more."""
    notes = Pages(path)
    async with World([Journey], max_active=plan.max_active, resources={"pages": notes, "pause": 0}) as world:
        world.crash_at(point, nth)
        ref = await surely(lambda: world.start(Journey.run, "j", plan.mode, plan.at))
        with pytest.raises(ActorFailed) as caught:
            await surely(ref.result)
        await surely(world.settled)
        letters = await surely(world.dead_letters)
        crashes = world.store.crashes
    undone = notes.acts("undo")
    told = plan, point, nth, notes.read()
    assert (undone, letters, caught.value.compensation_errors) == (notes.acts("do")[::-1], [], ()), told
    assert notes.most() <= 1 + crashes, told
    return bool(crashes)


def nths(torture: bool, seed: int) -> Iterator[int]:
    """At which commits to crash: at all of them, or at some."""
    return count(1) if torture else count(1 + seed % 29, 29)


@pytest.mark.promise("steps-recorded-once", "sagas-undo")
@pytest.mark.anyio
@pytest.mark.timeout(600)
async def test_a_crash_at_any_commit_undoes_what_was_done(torture: bool, tmp_path: Path) -> None:
    runs = 0
    for number, (plan, point) in enumerate(product(PLANS, CrashPoint)):
        for nth in nths(torture, number):
            runs += 1
            if not await crashed(plan, point, nth, tmp_path / str(runs)):
                break

    print(f"{runs} sagas of ten steps: {len(PLANS)} ways to fail, a crash around {'every commit' if torture else 'some commits'}")
    assert runs >= (1_000 if torture else 100)


# --- hosts that are killed ---


async def live(place: Path, mode: str, at: int) -> str:
    """One life of a host; returns what could not be undone."""
    resources = {"pages": Pages(place / "pages"), "pause": 0.002}
    async with Runtime(f"lmdb:{place}/store", [Journey], resources=resources) as runtime:
        journey = await runtime.start(Journey.run, "j", mode, at)
        try:
            await journey.result()
        except ActorFailed as failed:
            return repr(failed.compensation_errors)
    return "it ended well"


def killed(place: Path, mode: str, at: int, chance: random.Random) -> bool:
    """Let a host live until its steps have noted a few more acts; returns False if it came to its end before."""
    pages = Pages(place / "pages")
    until = len(pages.read()) + chance.randint(2, 9)  # with 1, one step could be interrupted as often as it may be
    command = [sys.executable, "-m", "tests.durability.test_saga_matrix", str(place), mode, str(at)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:
        while host.poll() is None and len(pages.read()) < until:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.005)
        host.send_signal(signal.SIGKILL)
        told, _ = host.communicate(timeout=30)
    if host.returncode == -signal.SIGKILL:
        return True
    assert (host.returncode, told.strip()) == (0, "()")
    return False


@pytest.mark.promise("sagas-undo")
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_host_killed_again_and_again_undoes_what_was_done(torture: bool, tmp_path: Path) -> None:
    chance = random.Random(4)
    wanted, kills, told = 30 if torture else 3, 0, 0
    while kills < wanted:
        place, mode, at = tmp_path / str(told), chance.choice(MODES), chance.choice(STEPS)
        place.mkdir()
        before = kills
        while killed(place, mode, at, chance):
            kills += 1
        pages = Pages(place / "pages")
        refused = {at} - set(pages.acts("do"))  # and killed while it was about to: nobody can know that it did nothing
        assert pages.acts("undo") in (pages.acts("do")[::-1], pages.acts("try")[::-1] if refused else []), (mode, at, pages.read())
        assert pages.most() <= 1 + kills - before
        told += 1

    print(f"{told} sagas of ten steps, {kills} kills")


if __name__ == "__main__":
    import logging

    logging.disable()
    print(asyncio.run(live(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
