"""Kill a compaction at each of its writes, syncs and renames: the store is whole, and the next compaction clears away what is left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from perdure.storage import compact

from .rig.host import populate
from .test_syscalls import AT_ONCE, KILLED, Moment, found_afterwards

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="system calls are counted by strace"),
]

CALLS = ("write", "pwrite64", "fsync", "rename", "mkdir", "unlinkat", "rmdir")
MOST = 100  # of one call: where a compaction makes more of them, what is in the store has grown too long for this test

COMPACT = "import sys; from perdure.storage import compact; compact(sys.argv[1])"


def killed_places(first: Path, call: str) -> Iterator[tuple[Moment, Path]]:
    """Copies of a place whose compaction was killed at the first, the second … of a call, as long as there are any."""
    for nth in range(1, MOST):
        place = Path(shutil.copytree(first, first.with_name(f"{call}-{nth}")))
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={nth}"]
        outcome = subprocess.run([*command, sys.executable, "-c", COMPACT, str(place / "store")], check=False, capture_output=True)
        if outcome.returncode not in (KILLED, -9):
            assert outcome.returncode == 0, outcome.stderr
            return
        yield Moment(call, nth), place


@pytest.mark.promise("half-written-is-whole-or-absent", "compaction-keeps-everything")
async def test_a_compaction_killed_at_any_call_leaves_a_whole_store(tmp_path: Path) -> None:
    await populate(tmp_path / "first", 20)
    for directory in ("store", "store/inbox"):
        shutil.copytree(tmp_path / "first" / "store" / "inbox", tmp_path / "first" / directory / "compacting")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = pool.map(lambda call: dict(killed_places(tmp_path / "first", call)), CALLS)
        places = {moment: place for run in runs for moment, place in run.items()}

    assert {moment.call for moment in places} == set(CALLS)
    assert await found_afterwards(places) == {}
    for place in places.values():
        compact(str(place / "store"))
        assert list(place.rglob("compacting")) == []
    print(f"{len(places)} kills of a compaction")
