"""Kill a host in the middle of a step, again and again: the attempt counts as interrupted, not as failed, and what it has recorded is kept.

    python -m tests.durability.test_steps PLACE STEP

is one life of such a host; it ends by SIGKILL, or well, and then says what the workflow has come to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from perdure.actors import ActorFailed, Retry, Runtime, StepFailed, durable_actor, step, step_info, workflow

LIVES: Final = 8  # at most, in one test
QUICKLY: Final = Retry(initial=timedelta(milliseconds=1), maximum=timedelta(milliseconds=2))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note() -> None:
    """Say which attempt this is, so that it outlives the process."""
    info = step_info()
    with (Path(info.resources["place"]) / "attempts").open("a") as file:
        file.write(f"{info.attempt} {info.idempotency_key}\n")


@step
async def die_twice() -> int:
    note()
    if step_info().attempt <= 2:
        die()
    return step_info().attempt


@step
def die_in_a_thread_once() -> int:
    note()
    if step_info().attempt == 1:
        die()
    return step_info().attempt


@step
async def die_always() -> None:
    note()
    die()


@step(retry=QUICKLY)
async def fail_and_die_in_turn() -> None:
    note()
    if step_info().attempt % 2:
        raise ConnectionError("no route")
    die()


@step
async def go_on_from_progress() -> Any:
    note()
    before = step_info().progress or 0
    step_info().heartbeat(before + 1)
    if before < 2:
        await asyncio.sleep(0.1)  # by then the heartbeat is durable
        die()
    return before


@durable_actor
class Worker:
    """Runs one step."""

    @workflow
    async def run(self, name: str) -> Any:
        return await globals()[name]()


async def live(place: str, name: str) -> str:
    """One life; returns what the workflow has come to."""
    async with Runtime(f"lmdb:{place}/store", [Worker], resources={"place": place}) as runtime:
        worker = await runtime.start(Worker.run, "w", name)
        try:
            return repr(await worker.result())
        except ActorFailed as failed:
            cause = failed.__cause__
            assert isinstance(cause, StepFailed)
            return f"{cause.failed} failed, {cause.interrupted} interrupted, from {cause.__cause__!r}"


def story(place: Path, name: str) -> tuple[int, str, list[int], set[str]]:
    """(how often the host died, what the workflow came to, the attempts, their keys)."""
    for deaths in range(LIVES):
        command = [sys.executable, "-m", "tests.durability.test_steps", str(place), name]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if ended.returncode == 0:
            attempts = [line.split() for line in (place / "attempts").read_text().splitlines()]
            return deaths, ended.stdout.strip(), [int(attempt) for attempt, _ in attempts], {key for _, key in attempts}
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    raise AssertionError(f"{LIVES} hosts died")


@pytest.mark.promise("step-attempts-are-counted", "step-keys-are-stable")
@pytest.mark.parametrize(
    ("name", "deaths", "outcome", "attempts"),
    [
        ("die_twice", 2, "3", [1, 2, 3]),
        ("die_in_a_thread_once", 1, "2", [1, 2]),
        ("die_always", 3, "0 failed, 3 interrupted, from None", [1, 2, 3]),
        ("fail_and_die_in_turn", 2, "3 failed, 2 interrupted, from ConnectionError('no route')", [1, 2, 3, 4, 5]),
        ("go_on_from_progress", 2, "2", [1, 2, 3]),
    ],
)
def test_a_step_is_told_of_every_attempt_before_it(tmp_path: Path, name: str, deaths: int, outcome: str, attempts: list[int]) -> None:
    died, came_to, made, keys = story(tmp_path, name)

    assert (died, came_to, made) == (deaths, outcome, attempts)
    assert len(keys) == 1


if __name__ == "__main__":
    import logging

    logging.disable()
    print(asyncio.run(live(*sys.argv[1:])))
