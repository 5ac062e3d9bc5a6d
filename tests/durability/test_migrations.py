"""Migrations that are interrupted: at each write to the disk, at each commit, by what they do themselves; each is done once in effect."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from perdure.actors import ActorInfo, MigrationFailed, Runtime, RuntimeNotRunning
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .rig.upgrade import COUNT, DEATH, NOW, Account1, Account2, Deadly, Meter2, Unprepared, leave, take_over
from .test_syscalls import AT_ONCE, KILLED, Moment

pytestmark = pytest.mark.anyio

EXPECTED: Final = sorted(
    [(f"Account/{kind}-{number}", "idle", (100, ["first", "second"])) for kind in ("idle", "still") for number in range(COUNT)]
    + [(f"Meter/{number}", "suspended", (100, ["second"])) for number in range(COUNT)]
)
CALLS: Final = "pwrite64", "writev", "fdatasync"


@pytest.fixture
async def left(tmp_path: Path) -> Path:
    """What version 1 has left."""
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)
    await leave(f"lmdb:{tmp_path}/left")
    return tmp_path / "left"


def traced(place: Path, root: Path, *strace: str) -> subprocess.CompletedProcess[str]:
    """Host version 2 on a store under strace."""
    command = ["strace", "-f", "-qq", *strace, sys.executable, "-m", "tests.durability.rig.upgrade", f"lmdb:{place}"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def moments(left: Path, root: Path) -> list[Moment]:
    """All writes that a host makes which nobody kills, each by its own count."""
    place, trace = left.with_name("whole"), left.with_name("trace")
    shutil.copytree(left, place)
    assert traced(place, root, "-o", str(trace), "-e", f"trace={','.join(CALLS)}").returncode == 0
    calls: dict[str, dict[str, int]] = {}
    for line in trace.read_text().splitlines():
        thread, _, said = line.partition(" ")
        call = said.strip().partition("(")[0]
        if call in CALLS:
            counts = calls.setdefault(call, {})
            counts[thread] = counts.get(thread, 0) + 1
    return [Moment(call, nth) for call, counts in calls.items() for nth in range(1, max(counts.values()) + 1)]


def killed_at(left: Path, root: Path, moment: Moment) -> tuple[Path, int]:
    """A copy of what was left, with which a host has come as far as that, and how that has ended."""
    place = Path(shutil.copytree(left, left.with_name(f"{moment.call}-{moment.nth}")))
    inject = f"inject={moment.call}:signal=SIGKILL:when={moment.nth}"
    code = traced(place, root, "-o", "/dev/null", "-e", f"trace={moment.call}", "-e", inject).returncode
    return place, KILLED if code == -9 else code


@pytest.mark.promise("migrated-once-in-effect")
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("strace") is None, reason="system calls are counted by strace")
async def test_a_migration_killed_at_any_write_resumes(left: Path, pytestconfig: pytest.Config) -> None:
    every = await asyncio.to_thread(moments, left, pytestconfig.rootpath)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        places = list(pool.map(lambda moment: killed_at(left, pytestconfig.rootpath, moment), every))

    ends = {place.name: (code in {KILLED, 0}, sorted(await take_over(f"lmdb:{place}"))) for place, code in places}
    assert ends == dict.fromkeys(ends, (True, EXPECTED))
    assert sum(code == KILLED for _, code in places) >= len(places) * 0.8  # a run has not always as many writes
    print(f"{len(places)} writes, each the last of a host")


# --- crashes at commits ---


async def surely(act: Callable[[], Awaitable[object]]) -> None:
    """Do it until it is known to be done."""
    while True:
        try:
            await act()
        except (CommitUncertain, RuntimeNotRunning):
            await asyncio.sleep(0)
        else:
            return


async def taken_over(place: Path, crash: tuple[CrashPoint, int], max_active: int) -> tuple[list[tuple[str, str, Any]], int]:
    """What version 2 makes of a store, crashing once, and how many crashes there were."""
    async with World(NOW, store=f"lmdb:{place}", max_active=max_active) as world:
        world.crash_at(*crash)
        for number in range(COUNT):
            account = world.ref(Account2, f"idle-{number}").options(idempotency_key="second")
            await surely(lambda account=account: account.ask(Account2.add, "second"))  # type: ignore[misc]
        await surely(world.settled)
        crashes = world.store.crashes
        return sorted([(str(info.id), info.status, await facts(world, info)) async for info in world.actors()]), crashes


async def facts(world: World, info: ActorInfo) -> Any:
    return await world.ref({"Account": Account2, "Meter": Meter2}[info.id.type], info.id.key).query("facts")


@pytest.mark.promise("migrated-once-in-effect")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("max_active", [0, 1, 10_000])
async def test_a_migration_is_done_once_whichever_commit_crashes(left: Path, point: CrashPoint, max_active: int) -> None:
    nth, crashes = 0, 1
    while crashes:
        nth += 1
        place = Path(shutil.copytree(left, left.with_name(f"crash-{nth}")))
        end, crashes = await taken_over(place, (point, nth), max_active)
        assert end == EXPECTED
    assert nth > COUNT


# --- migrations that kill their host ---


@pytest.fixture
async def poisoned(tmp_path: Path, pytestconfig: pytest.Config) -> str:
    """A store with an account that three hosts have died of, and another one."""
    logging.getLogger("perdure.actors").setLevel(logging.CRITICAL)
    url = f"lmdb:{tmp_path}/store"
    async with Runtime(url, [Account1]) as first:
        for key in ("poison", "other"):
            await first.ref(Account1, key).ask(Account1.add, key)
    async with Runtime(url, [Unprepared]) as second:
        await second.ref(Unprepared, "poison").send_event(Unprepared.add, "second")
    command = [sys.executable, "-m", "tests.durability.rig.upgrade", url, "--deadly"]
    died = [subprocess.run(command, cwd=pytestconfig.rootpath, check=False).returncode for _ in range(3)]  # noqa: ASYNC221  nothing else runs
    assert died == [DEATH] * 3
    return url


@pytest.mark.promise("migrated-once-in-effect")
@pytest.mark.slow
async def test_a_migration_that_kills_its_host_is_quarantined_after_three(poisoned: str) -> None:
    for _ in range(2):
        async with Runtime(poisoned, [Deadly]) as host:
            await host.settled()
            info = await host.ref(Deadly, "poison").info()
            assert (info.status, info.events) == ("quarantined", 1)
            with pytest.raises(MigrationFailed, match=r"the host died 3 times while it was migrated.*perdure retry Account poison"):
                await host.ref(Deadly, "poison").ask(Deadly.add, "third")
            assert await host.ref(Deadly, "other").ask(Deadly.add, "second") > 1


@pytest.mark.promise("what-does-not-fit-goes-on-later")
@pytest.mark.slow
async def test_a_deploy_with_a_mended_migration_outlives_the_charge(poisoned: str) -> None:
    async with Runtime(poisoned, [Deadly]) as dying:
        await dying.settled()

    async with Runtime(poisoned, [Account2]) as mended:
        await mended.settled()
        assert await mended.ref(Account2, "poison").query(Account2.facts) == (100, ["poison", "second"])
        assert (await mended.ref(Account2, "poison").info()).status == "idle"


@pytest.mark.slow
async def test_a_retry_lets_a_deadly_migration_be_tried_again(poisoned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: None)

    async with Runtime(poisoned, [Deadly]) as host:
        await host.ref(Deadly, "poison").retry()
        await host.settled()

        assert await host.ref(Deadly, "poison").ask(Deadly.add, "third") == 3
