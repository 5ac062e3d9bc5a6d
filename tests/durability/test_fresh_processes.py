"""Each move in a process of its own, with other hashes, killed when it is done: replay brings back what waits, the same as ever."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .fresh import live
from .programs import PROGRAMS
from .stage import Ledger, undisturbed

pytestmark = [pytest.mark.anyio, pytest.mark.promise("what-waits-goes-on")]


@pytest.mark.promise("same-course-everywhere")
@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_new_process_for_each_move_changes_nothing(tmp_path: Path) -> None:
    expected = {program.name: repr(await undisturbed(tmp_path, program)) for program in PROGRAMS}

    found = live(tmp_path, sys.executable).book

    assert {name: page.ending for name, page in found.items()} == expected
    assert [Ledger(tmp_path / f"{name}.steps").doubled() for name in found] == [{}] * len(found)
