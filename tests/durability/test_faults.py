"""Fail one sync, or one write of a header page, with an input/output error: the host stops at once and says why, and nothing is lost.

What the disk refused is gone, as the kernel drops it. So what was durable by itself must hold all that was ever acknowledged: an answer to
what the failed commit held would be one too many.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from .rig.host import Life, populate
from .rig.plants import AT_ERRORS
from .rig.power import PATIENCE, Ending, Session, audited, record
from .rig.tape import Disk, build_recorder, read_tape

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the library that fails is built on the spot"),
]

AT_ONCE = 2
STOPS_WITHIN = 5.0  # seconds
CLEAR = (
    ("CommitUncertain: ", "Input/output error", "The host stops: check the disk, then start it again"),
    # A read may meet what broke before the commit has said so.
    ("CommitUncertain: ", "Update of meta page failed", "The host stops: check the disk, then start it again"),
)


class Scene(NamedTuple):
    """A place of its own for each fault."""

    place: Path
    library: Path
    root: Path

    async def session(self, fail: str) -> Session:
        """A life on a new store, in which that fails."""
        place = self.place / fail.replace(":", "-")
        await populate(place, 5)
        return Session(place, self.library, self.root, steps=None, visited=False, fail=fail)


@pytest.fixture
def scene(tmp_path: Path, pytestconfig: pytest.Config) -> Scene:
    """Where hosts meet their faults."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)
    return Scene(tmp_path, build_recorder(tmp_path), pytestconfig.rootpath)


@pytest.mark.promise("acknowledged-is-kept", "nothing-leaves-before-durable")
@pytest.mark.reliability(5)
async def test_an_error_of_the_disk_stops_the_host(scene: Scene, torture: bool) -> None:
    numbers = range(1, 101) if torture else (1, 2, 5, 30)
    sessions = [await scene.session(f"{call}:{number}") for call in ("sync", "header") for number in numbers]
    sessions[1::2] = [session._replace(steps=0, serves=True, visited=True) for session in sessions[1::2]]

    found = await problems(sessions)

    print(f"{len(sessions)} errors of the disk: {sum(map(bool, found.values()))} with violations")
    assert {fail: wrong for fail, wrong in found.items() if wrong} == {}


@pytest.mark.reliability(4)
@pytest.mark.parametrize("plant", AT_ERRORS)
async def test_a_planted_bug_is_found_by_errors_of_the_disk(scene: Scene, plant: str) -> None:
    session = await scene.session("sync:12")

    (wrong,) = (await problems([session._replace(plant=plant, steps=12)])).values()

    print(f"{plant}: {wrong[:1]}"[:300])
    assert wrong


async def problems(sessions: Iterable[Session]) -> dict[str, list[str]]:
    """What is wrong after each session, by what failed in it."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(session: Session) -> list[str]:
        async with room:
            disk = Disk(session.place)
            return await after(session, disk, await asyncio.to_thread(record, session))

    sessions = list(sessions)
    found = await asyncio.gather(*map(one, sessions))
    return {session.fail: wrong for session, wrong in zip(sessions, found, strict=True)}


async def after(session: Session, disk: Disk, ending: Ending) -> list[str]:
    """What is wrong once a host has ended: with its end, with what is durable, and with what the system still shows."""
    failed = math.nan
    for event in read_tape(session.place):
        disk.play(event)
        failed = event.time if event.kind == "f" else failed
    clear = any(all(map(ending.said.count, text)) for text in CLEAR)
    wrong = [] if clear and ending.status == 1 else [f"it ended with {ending.status}, {ending.said[-500:]}"]
    wrong += [f"it ended {ending.time - failed} s after the error"] if not ending.time - failed < STOPS_WITHIN else []
    durable = session.place / "durable"
    disk.write_durable(durable)
    for place in (durable, session.place):
        wrong += await audited(Life(place, 2, patience=PATIENCE))
    return wrong
