"""Kill a host at any moment, start it again: what was acknowledged is there, once, in order, and orders go on where they stood.

No money was made or lost, no step that is recorded runs again, and every timer fires once.
"""

from __future__ import annotations

import re
import signal
import statistics

import pytest

from .conftest import TellStories
from .rig.plants import AT_KILLS
from .rig.story import Report

# Which promise a plant breaks, where no other would do: a plant that no longer fits the product breaks other ones.
BROKEN = {
    "keep_requests_that_are_done": "C",
    "run_steps_twice": "C",
    "leave_timers_in_memory": "F",
    "leave_signals_in_memory": "A",
    "leave_out_items": "G",
    "take_offers_backwards": "ABE",
    "serve_the_newest_first": "ABE",
    "fire_timers_twice": "F",
}
# One for each part of the host; the others are for `make torture`.
SOME = (
    "acknowledge_before_the_commit",
    "forget_which_offers_were_accepted",
    "passivate_without_writing",
    "run_steps_twice",
    "leave_timers_in_memory",
    "leave_out_the_last_of_a_log",
)
LOUD = {"forget_keys", "expire_keys_at_once"}  # hosts may also end by themselves, of what they do not find


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Which bugs are planted is for the command line to say."""
    if "plant" in metafunc.fixturenames:
        metafunc.parametrize("plant", [*AT_KILLS] if metafunc.config.getoption("torture") else SOME)


def figures(reports: list[Report]) -> str:
    """One line about what the stories came to."""
    recoveries = sorted(1000 * recovery for report in reports for recovery in report.recoveries)
    p50, p99 = statistics.median(recoveries), recoveries[int(len(recoveries) * 0.99)]
    kills, promises = sum(report.kills for report in reports), sum(report.promises for report in reports)
    return f"{kills} kills, {promises} acknowledgements kept; recovery p50 {p50:.0f} ms, p99 {p99:.0f} ms, at most {recoveries[-1]:.0f} ms"


@pytest.mark.promise(
    "exactly-once-state",
    "acknowledged-is-kept",
    "atomic-turns",
    "what-waits-goes-on",
    "steps-recorded-once",
    "messages-exactly-once",
    "order-per-sender-and-lane",
)
@pytest.mark.reliability(1)
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(tell_stories: TellStories, torture: bool) -> None:
    stories, kills, bystanders = (40, 25, 10_000) if torture else (2, 12, 1_000)

    reports = tell_stories(stories, kills=kills, bystanders=bystanders)

    print(f"with {bystanders} actors in the store: {figures(reports)}")
    assert [violation for report in reports for violation in report.violations] == []
    recoveries = sorted(recovery for report in reports for recovery in report.recoveries)
    assert recoveries[int(len(recoveries) * 0.99)] < 1


@pytest.mark.promise("acknowledged-is-kept")
@pytest.mark.reliability(17)
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_stop_in_order_loses_nothing_and_charges_nobody(tell_stories: TellStories, torture: bool) -> None:
    reports = tell_stories(20 if torture else 2, kills=10 if torture else 6, signal=int(signal.SIGTERM))

    print(f"stopped by SIGTERM: {figures(reports)}")
    assert [violation for report in reports for violation in report.violations] == []


@pytest.mark.reliability(4)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found_by_the_rig(tell_stories: TellStories, plant: str) -> None:
    (report,) = tell_stories(1, kills=200, plant=plant, patience=2.0, crowded=1)

    letters = rf"\b[{BROKEN.get(plant, 'A-H')}]: "
    promises = [violation for violation in report.violations if plant in LOUD or re.search(letters, violation)]
    print(f"{plant}: found after {report.kills} kills: {promises[:1]}"[:300])
    assert promises


@pytest.mark.promise("exactly-once-state")
def test_a_few_kills_lose_nothing(tell_stories: TellStories) -> None:
    (report,) = tell_stories(1, kills=8)

    assert report.violations == []


def test_a_few_stops_in_order_lose_nothing(tell_stories: TellStories) -> None:
    (report,) = tell_stories(1, kills=10, signal=int(signal.SIGTERM))

    assert report.violations == []
