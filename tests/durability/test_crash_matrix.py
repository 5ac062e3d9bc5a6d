"""Crash around any commit, restart at any rest: every durable primitive comes to the same end, and no recorded step runs again."""

from __future__ import annotations

from itertools import count, product
from pathlib import Path
from typing import Final

import pytest
from perdure.actors.testing import CrashPoint

from .programs import PROGRAMS
from .script import Program
from .stage import Ledger, nothing, play, stage, undisturbed

pytestmark = [pytest.mark.anyio, pytest.mark.promise("what-waits-goes-on", "steps-recorded-once")]

CROWDED: Final = [10_000, 0]  # actors in memory; with none each turn is taken after a replay


def repeated(ledger: Ledger, durable: int) -> dict[str, list[int]]:
    """The steps that were run again although the commit that had their outcome was durable: the one after the last that they saw."""
    return {key: commits for key, commits in ledger.doubled().items() if commits[0] < durable}


@pytest.mark.promise("exactly-once-state")
@pytest.mark.parametrize("max_active", CROWDED)
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_crash_around_any_commit_changes_nothing(program: Program, point: CrashPoint, max_active: int, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for nth in count(1):
        async with stage(tmp_path / str(nth), max_active) as (world, ledger):
            world.crash_at(point, nth)

            found = await play(world, ledger, program, nothing)

            assert (nth, found) == (nth, expected)
            assert repeated(ledger, nth if point is CrashPoint.AFTER_COMMIT else nth - 1) == ledger.doubled(1 + world.store.crashes) == {}
            if not world.store.crashes:
                break


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_crash_after_every_few_commits_changes_nothing(program: Program, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for point, every in product(CrashPoint, (3, 4, 5)):
        async with stage(tmp_path / f"{point.value} {every}", every % 2) as (world, ledger):
            for nth in range(every, 1000, every):
                world.crash_at(point, nth)

            found = await play(world, ledger, program, nothing)

            assert (point, every, found) == (point, every, expected)
            assert ledger.doubled(1 + world.store.crashes) == {}


@pytest.mark.promise("leaving-memory-changes-nothing")
@pytest.mark.parametrize("store", ["memory:", "lmdb:{}/store"], ids=["memory", "lmdb"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_restart_at_every_rest_changes_nothing(program: Program, store: str, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for max_active in CROWDED:
        async with stage(tmp_path / str(max_active), max_active, store.format(tmp_path / f"of {max_active}")) as (world, ledger):
            found = await play(world, ledger, program, world.restart)

            assert found == expected
            assert ledger.doubled() == {}
