"""Cut the power at any moment: of what was not synced the disk keeps whatever it likes, and nothing acknowledged is lost.

Every write and every sync of a host and of a client is recorded. Crash images are made of it, with unsynced writes left out, out of order
and torn; each is opened by the product, and what it holds is audited as after a kill.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .rig.host import populate
from .rig.plants import AT_POWER_FAILURES
from .rig.power import Auditor, Session, failures, record
from .rig.tape import Disk, build_recorder, write_image

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("cc") is None, reason="the recorder of writes is built on the spot"),
]

IMAGES_OF_A_MOMENT = 24
MEMORY = Path("/dev/shm")


@pytest.fixture
async def session(tmp_path: Path, pytestconfig: pytest.Config) -> Session:
    """A life on a new store, yet to be recorded."""
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that first attempts fail is part of the load
    place = tmp_path / "place-0"
    await populate(place, 20)
    return Session(place, build_recorder(tmp_path), pytestconfig.rootpath)


@pytest.fixture
def auditor() -> Iterator[Auditor]:
    """Opens images in memory, where there is room for files: it is not they that must survive."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None) as place:
        yield Auditor(Path(place) / "image")


@pytest.mark.promise("acknowledged-is-kept", "steps-wait-for-the-disk")
@pytest.mark.reliability(3)
async def test_a_power_failure_loses_nothing_acknowledged(session: Session, auditor: Auditor, tmp_path: Path, torture: bool) -> None:
    rng = random.Random(1)
    lives, moments = (10, 75) if torture else (2, 32)

    wrong: list[str] = []
    for life in range(1, lives + 1):
        image: list[bytes] = []
        for image in recorded(session._replace(life=life), moments, rng):
            wrong += await auditor.problems(image, life + 1)
        session = session._replace(place=tmp_path / f"place-{life}")
        write_image(session.place, image)  # where the next life begins

    print(f"{auditor.images} images, {auditor.hosted} of them hosted for what they held: {len(wrong)} violations")
    assert wrong == []
    assert auditor.images >= (10_000 if torture else 1_000)


def recorded(session: Session, moments: int, rng: random.Random) -> Iterator[list[bytes]]:
    """Images of so many moments of a life."""
    before = Disk(session.place)
    ending = record(session)
    assert ending.status == 0, ending.said
    return failures(before, session.place, moments, IMAGES_OF_A_MOMENT, rng)


@pytest.mark.reliability(4)
@pytest.mark.parametrize("plant", AT_POWER_FAILURES)
async def test_a_planted_bug_is_found_by_power_failures(session: Session, auditor: Auditor, plant: str, tmp_path: Path) -> None:
    wrong: list[str] = []
    for attempt in range(5):  # how much is under way at once, and can be torn, depends on how busy the machine is
        place = tmp_path / f"attempt {attempt}"
        await populate(place, 20)
        for image in recorded(session._replace(plant=plant, place=place), 90, random.Random(attempt)):
            wrong = wrong or await auditor.problems(image, 2)
        if wrong:
            break

    print(f"{plant}: found in image {auditor.images}: {wrong[:1]}"[:300])
    assert wrong
