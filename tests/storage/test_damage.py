"""A damaged store gives right data or a typed error: it never crashes the process. (What is in values is for the records' checksums.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from . import damage

BATCHES = 4
VARIANTS = 125  # in each batch


@pytest.mark.promise("damage-costs-one-actor")
@pytest.mark.reliability(12)
@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_damage_crashes_or_changes_the_keys_silently(tmp_path: Path, batch: int) -> None:
    program = [sys.executable, damage.__file__, str(tmp_path / "store"), str(tmp_path)]

    run = subprocess.run([*program, str(batch * VARIANTS), str(VARIANTS)], capture_output=True, text=True, check=False)

    outcomes = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    assert (run.returncode, run.stderr, len(outcomes)) == (0, "", VARIANTS), run.stdout.splitlines()[-1]
    silent = [number for number, outcome in outcomes.items() if outcome == "other keys"]
    assert "StoreCorrupt" in run.stdout
    assert all(damage.WAYS[int(number) % len(damage.WAYS)] is damage.flip_anywhere for number in silent)  # in the bytes of a key
