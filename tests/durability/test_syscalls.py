"""Kill a host at each of its writes to the disk, the first, the second …: whatever is half written then, nothing acknowledged is lost."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from .rig.host import Life, live, populate, read_findings

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("strace") is None, reason="system calls are counted by strace"),
    pytest.mark.promise("half-written-is-whole-or-absent"),
]

AT_ONCE = 2
KILLED = 137


class Moment(NamedTuple):
    """A thread's nth call of a system call: counted for each call by itself, so that the rare ones have their turn."""

    call: str
    nth: int


def moments(count: int) -> list[Moment]:
    """Half of them at plain writes, the others at those of several pages, and at syncs; pwritev is never called."""
    return [Moment(call, nth) for call, share in (("pwrite64", 2), ("writev", 4), ("fdatasync", 4)) for nth in range(1, count // share + 1)]


def kill_at(place: Path, moment: Moment, steps: int, root: Path) -> int:
    """Run a host under strace until its moment; returns how it ended."""
    inject = f"inject={moment.call}:signal=SIGKILL:when={moment.nth}"
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={moment.call}", "-e", inject]
    command += [sys.executable, "-m", "tests.durability.rig.host", str(place), f"--steps={steps}", "--at-once=3", "--life=1"]
    outcome = subprocess.run(command, cwd=root, capture_output=True, check=False)
    return KILLED if outcome.returncode in (KILLED, -9) else outcome.returncode


@pytest.mark.promise("acknowledged-is-kept")
@pytest.mark.reliability(2)
async def test_a_kill_at_any_write_loses_nothing(tmp_path: Path, pytestconfig: pytest.Config, torture: bool) -> None:
    every = moments(400 if torture else 40)
    await populate(tmp_path / "first", 20)
    places = {moment: Path(shutil.copytree(tmp_path / "first", tmp_path / f"{moment.call}-{moment.nth}")) for moment in every}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        steps = 1200 if torture else 200
        ends = list(pool.map(lambda moment: kill_at(places[moment], moment, steps, pytestconfig.rootpath), every))

    assert dict(zip(every, ends, strict=True)) == dict.fromkeys(every, KILLED)
    assert await found_afterwards(places) == {}
    print(f"{len(every)} kills at a write: {', '.join(sorted({moment.call for moment in every}))}")


async def found_afterwards(places: dict[Moment, Path]) -> dict[Moment, list[str]]:
    """What the next life finds wrong, by the moment of the kill."""
    logging.getLogger("perdure.actors").setLevel(logging.ERROR)
    wrong: dict[Moment, list[str]] = {}
    for moment, place in places.items():
        await live(Life(place, 2, steps=0), lambda: None)
        if violations := read_findings(place)[-1].violations:
            wrong[moment] = violations
    return wrong


async def test_a_kill_while_a_store_is_made_leaves_none_or_a_whole_one(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    every = [Moment("pwrite64", nth) for nth in range(1, 9)] + [Moment("fdatasync", nth) for nth in range(1, 5)]
    places = {moment: tmp_path / f"{moment.call}-{moment.nth}" for moment in every}
    for place in places.values():
        place.mkdir()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda moment: kill_at(places[moment], moment, 20, pytestconfig.rootpath), every))

    assert await found_afterwards(places) == {}
