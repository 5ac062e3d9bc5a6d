"""Random programs come to what a plain interpreter says, whatever a seed has befall their host, its disk and its clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .simulation.plants import PLANTS
from .simulation.run import simulate

NAMED = Path(__file__).parent / "seeds.txt"
PARTS = 10  # that the seeds are played in
SEEDS, SEEDS_IN_CI = 10_000, 500
IN_CI = "acknowledge_before_the_sync", "forget_keys", "fire_timers_early", "leave_signals_in_memory"
WITHIN = 100  # seeds

pytestmark = [pytest.mark.slow, pytest.mark.reliability(18)]


def named_seeds() -> list[tuple[int, str]]:
    rows = [line.split(maxsplit=2) for line in NAMED.read_text().splitlines() if line and not line.startswith("#")]
    return [(int(seed), name) for seed, name, _ in rows]


def run_by_itself(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "tests.durability.simulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.promise(
    "exactly-once-state", "acknowledged-is-kept", "messages-exactly-once", "order-per-sender-and-lane", "leaving-memory-changes-nothing"
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_seed_finds_what_the_model_does_not_allow(part: int, torture: bool) -> None:
    count = (SEEDS if torture else SEEDS_IN_CI) // PARTS

    reports = [simulate(seed) for seed in range(part * count + 1, (part + 1) * count + 1)]

    assert {report.seed: report.problems for report in reports if report.problems} == {}


@pytest.mark.parametrize(("seed", "name"), named_seeds())
def test_what_a_seed_once_found_is_mended(seed: int, name: str) -> None:
    assert simulate(seed).problems == []


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_a_seed_leaves_the_same_trace_in_every_process(seed: int) -> None:
    digests = [simulate(seed).digest for _ in range(2)]

    elsewhere = run_by_itself("--seed", str(seed), PYTHONHASHSEED="4711")

    assert digests == [digests[0]] * 2
    assert f"trace {digests[0]}," in elsewhere


@pytest.mark.timeout(900)
def test_planted_bugs_are_found_within_a_hundred_seeds(torture: bool) -> None:
    for plant in PLANTS if torture else IN_CI:
        assert "of them: " in run_by_itself("--plant", plant, "--seeds", str(WITHIN)), plant
