"""A tree of a thousand children whose host is killed: each failure is counted once by its supervisor, no child is lost, none doubled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .rig.family import Tally


@pytest.mark.promise("children-once", "restarts-are-counted")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_neither_lose_nor_double_a_restart_or_a_child(tmp_path: Path, pytestconfig: pytest.Config, torture: bool) -> None:
    kills = 50 if torture else 5
    command = [sys.executable, "-m", "tests.durability.rig.family", str(tmp_path), "--seed=4", f"--kills={kills}"]

    outcome = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)

    assert outcome.returncode == 0, outcome.stderr
    tally = Tally(*json.loads(outcome.stdout))
    print(f"{kills} kills: {tally.failures} failures, {tally.restarts} restarts counted, last recovery {tally.recovery:.1f} s")
    assert tally.violations == []
    assert tally.failures == tally.restarts
    assert tally.tried > tally.failures
