"""Backups of a busy store: each, restored, has everything that was acknowledged before it began, and fits together."""

from __future__ import annotations

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from perdure.actors import Runtime
from perdure.storage import backup, restore

from .rig.bank import ACTORS
from .rig.customer import do_business
from .rig.host import ACCOUNTS, Finding, Life, live, populate, read_findings, work

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.mark.promise("backups-are-one-moment")
@pytest.mark.reliability(29)
async def test_a_restored_backup_has_all_that_was_acknowledged_before_it(tmp_path: Path, torture: bool) -> None:
    logging.getLogger("perdure.actors").setLevel(logging.ERROR)
    place = tmp_path / "place"
    place.mkdir()
    await populate(place, 0)

    copies = [tmp_path / f"copy-{number}" for number in range(100 if torture else 10)]
    async with Runtime(f"lmdb:{place}/store", ACTORS) as bank:
        busy = asyncio.gather(work(bank, Life(place)), do_business(place, 1, ACCOUNTS))
        for copy in copies:
            await asyncio.sleep(1.0 if torture else 0.05)
            await asyncio.to_thread(back_up_and_restore, place, copy)
        busy.cancel()
        with suppress(asyncio.CancelledError):
            await busy

    findings = [await finding_in(copy) for copy in copies]
    print(f"{len(copies)} backups, with up to {findings[-1].promises:,} acknowledgements, checked")
    assert [finding.violations for finding in findings] == [[]] * len(copies)
    assert findings[-1].promises > findings[0].promises


def back_up_and_restore(place: Path, copy: Path) -> None:
    """A place with what a store had when the ledger said what it says there."""
    copy.mkdir()
    if (place / "ledger").exists():
        shutil.copy(place / "ledger", copy / "ledger")
    backup(f"lmdb:{place}/store", str(copy / "backup"))
    restore(str(copy / "backup"), str(copy / "store"))


async def finding_in(place: Path) -> Finding:
    """What a life in a place finds when it begins."""
    await live(Life(place, 2, steps=0), lambda: None)
    (finding,) = read_findings(place)
    return finding
