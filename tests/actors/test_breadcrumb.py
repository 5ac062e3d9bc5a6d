"""A crumb tells what the last host was in the middle of, and a torn one charges nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from perdure.actors._breadcrumb import BreadcrumbFile, Crumb, Phase, crumbs_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "breadcrumbs"


def test_a_host_that_dies_in_a_turn_leaves_its_message(path: Path) -> None:
    BreadcrumbFile(path).enter(Phase.TURN, b"message-1")

    assert BreadcrumbFile(path).found() == Crumb(Phase.TURN, b"message-1")


def test_a_host_that_dies_between_turns_leaves_nothing(path: Path) -> None:
    crumbs = BreadcrumbFile(path)
    crumbs.enter(Phase.TURN, b"message-1")
    crumbs.leave()

    assert BreadcrumbFile(path).found() is None


def test_a_step_is_remembered_until_what_came_of_it_is_durable(path: Path) -> None:
    crumbs = BreadcrumbFile(path)
    slots = [crumbs.enter_step(request) for request in (b"runs", b"ended", b"durable")]
    for slot in slots[1:]:
        crumbs.end_step(slot)
    crumbs.leave_step(slots[2])

    assert BreadcrumbFile(path).found_steps() == {b"runs": Phase.STEP, b"ended": Phase.ENDED}
    assert BreadcrumbFile(path).found() is None


@pytest.mark.parametrize("place", range(46))
def test_a_torn_crumb_charges_nobody_or_its_own_message(path: Path, place: int) -> None:
    BreadcrumbFile(path).enter(Phase.TURN, b"message-1")
    torn = bytearray(path.read_bytes())
    torn[place] ^= 0xFF
    path.write_bytes(torn)

    assert BreadcrumbFile(path).found() in (None, Crumb(Phase.TURN, b"message-1"))


def test_a_new_file_names_nobody(path: Path) -> None:
    assert BreadcrumbFile(path).found() is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_looks_on_sees_what_a_host_does_now(path: Path) -> None:
    before = crumbs_in(path.with_name("none"))
    crumbs = BreadcrumbFile(path, 3)
    crumbs.enter(Phase.TURN, b"message-1")
    crumbs.leave_step(crumbs.enter_step(b"done"))
    crumbs.enter_step(b"runs")

    assert (before, crumbs_in(path)) == ([], [Crumb(Phase.TURN, b"message-1", 3), Crumb(Phase.STEP, b"runs", 3)])
