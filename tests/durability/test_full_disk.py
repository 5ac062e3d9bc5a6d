"""On a full disk a host answers reads, and refuses sends at once; with room again it goes on by itself, and nothing is lost or doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from ..conftest import succeeds  # noqa: TID252  what the ledger of skips asks, too
from .rig.full_disk import Report

MOUNTED: Final = "unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=32m disk "$0" && exec "$@"'
SOON: Final = 1.0  # seconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not succeeds("unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "disk", "/mnt"), reason="no mounting here"),
]


@pytest.mark.promise("a-full-disk-loses-nothing")
@pytest.mark.reliability(7)
def test_a_full_disk_stops_sends_alone_until_there_is_room(tmp_path: Path, pytestconfig: pytest.Config, torture: bool) -> None:
    disk, rounds, seconds = tmp_path / "disk", *((20, 2.0) if torture else (2, 0.2))
    disk.mkdir()

    command = [*MOUNTED, str(disk), sys.executable, "-m", "tests.durability.rig.full_disk", str(tmp_path), str(rounds), str(seconds)]
    outcome = subprocess.run(command, cwd=pytestconfig.rootpath, stdout=subprocess.PIPE, check=True)
    report = Report(*json.loads(outcome.stdout))

    print(f"{rounds} times full: {report}")
    assert report.violations == []
    assert report.refusals > rounds
    assert max(report.slowest_refusal, report.slowest_read) < SOON
    assert report.slowest_resumption < SOON
