"""A store with a host at work gets no second one, also without LMDB's own lock; when it is killed, nothing that it forked is in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import final

import pytest

from .rig.host import Finding, Life, live, populate, read_findings

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]


@final
class Rivalry:
    """A place, and the processes that want to host what is there."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        self._root = root

    def host(self, count: int) -> subprocess.Popen[str]:
        """A host at work, with so many rivals at its side and below it."""
        return subprocess.Popen(self._command(count, "--beside"), cwd=self._root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rivals(self, count: int) -> list[str]:
        """What those of another process come to."""
        told = subprocess.run(self._command(count), cwd=self._root, stdout=subprocess.PIPE, check=True).stdout
        return list(json.loads(told))

    def _command(self, count: int, *options: str) -> list[str]:
        return [sys.executable, "-m", "tests.durability.rig.rivals", str(self.place), str(count), *options]

    async def audit(self) -> Finding:
        """What the next host finds."""
        await live(Life(self.place, 2, steps=0), lambda: None)
        return read_findings(self.place)[-1]


def told(process: subprocess.Popen[str]) -> list[str]:
    """What the next line of a process says."""
    assert process.stdout is not None
    found: list[str] = json.loads(process.stdout.readline())
    return found


@pytest.fixture
async def rivalry(tmp_path: Path, pytestconfig: pytest.Config) -> Rivalry:
    await populate(tmp_path, 0)
    return Rivalry(tmp_path, pytestconfig.rootpath)


@pytest.mark.promise("one-host-per-store")
@pytest.mark.reliability(11)
async def test_a_host_at_work_has_no_rival_and_loses_nothing(rivalry: Rivalry, torture: bool) -> None:
    count = 100 if torture else 10
    host = rivalry.host(count)
    beside = told(host)
    apart = rivalry.rivals(count)
    (rivalry.place / "store" / "lock.mdb").unlink()
    without_lock = rivalry.rivals(count)
    alive = host.poll()

    host.kill()
    host.wait()
    finding = await rivalry.audit()
    host.communicate()

    refused = [f"StoreLocked {host.pid}"] * count
    print(f"{3 * count} rivals refused, {finding.promises} acknowledgements kept")
    assert (beside, apart, without_lock) == (refused, refused, refused)
    assert (alive, finding.violations) == (None, [])
    assert finding.promises > 0
