"""How thorough the durability tests are, and how they tell stories of hosts that are killed, and of code that changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .rig.story import Report
from .village import Village

AT_ONCE = 2  # stories; each has a host and another process
COMPLAINTS = "Task was destroyed", "never awaited", "never retrieved"  # of Python, about what nobody has looked after

TellStories = Callable[..., list[Report]]


@pytest.fixture
def torture(pytestconfig: pytest.Config) -> bool:
    """Whether the full figures are wanted, which take their time: `make torture`."""
    return bool(pytestconfig.getoption("torture"))


@pytest.fixture
def village(tmp_path: Path) -> Village:
    """One store, around which the code changes."""
    return Village(tmp_path)


@pytest.fixture
def tell_stories(tmp_path: Path, pytestconfig: pytest.Config) -> TellStories:
    """Tells so many stories, of different seeds, and returns their reports."""

    def tell(count: int, **plot: object) -> list[Report]:
        def one(seed: int) -> Report:
            place = tmp_path / f"story-{seed}"
            place.mkdir()
            options = [f"--{name}={value}" for name, value in {"seed": seed, **plot}.items()]
            command = [sys.executable, "-m", "tests.durability.rig.story", str(place), *options]
            outcome = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False)
            assert outcome.returncode == 0, outcome.stderr
            if outcome.stderr:
                print(outcome.stderr[-10_000:])
            assert [complaint for complaint in COMPLAINTS if complaint in outcome.stderr] == []
            return Report(*json.loads(outcome.stdout))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, range(1, count + 1)))

    return tell
