"""Power failures: a host and a customer are recorded at work, and what the disk may be left with is opened by the product and audited.

An image that holds what one before it held, row for row and line for line, is opened and read as any other; the host that it gets has
found out before what comes of it.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

import lmdb
from perdure.storage import StoreError, open_store

from .host import ACCOUNTS, Life, Past, audit, hosted, remains_in
from .ledger import read_journal
from .tape import STORED, Disk, read_tape, recording, write_image

PATIENCE: Final = 3.0  # seconds for what is on its way to arrive, in an image


@final
class Session(NamedTuple):
    """What is recorded: a life of a host at a place. `serves`: it stays until SIGTERM; `visited`: a customer does business beside it."""

    place: Path
    library: Path
    root: Path
    life: int = 1
    steps: int | None = 12
    serves: bool = False
    visited: bool = True
    plant: str = ""
    fail: str = ""


@final
class Ending(NamedTuple):
    """How the host ended, what it said about that, and when, in seconds of the monotonic clock."""

    status: int
    said: str
    time: float


def record(session: Session, timeout: float = 60) -> Ending:
    """Run the host to its end, then end the customer."""
    customer = visit(session) if session.visited else None
    try:
        options = [f"--life={session.life}", f"--plant={session.plant}", *(["--serve=1"] if session.serves else [])]
        options += [] if session.steps is None else [f"--steps={session.steps}"]
        command = [sys.executable, "-m", "tests.durability.rig.host", str(session.place), *options]
        environment = recording(session.library, session.place, session.fail)
        outcome = subprocess.run(command, cwd=session.root, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        return Ending(outcome.returncode, outcome.stderr, time.monotonic())
    finally:
        if customer is not None:
            customer.kill()
            customer.wait()


def visit(session: Session) -> subprocess.Popen[bytes]:
    """Begin the life of a customer."""
    command = [sys.executable, "-m", "tests.durability.rig.customer", str(session.place), str(session.life), str(ACCOUNTS)]
    return subprocess.Popen(command, cwd=session.root, env=recording(session.library, session.place), stderr=subprocess.DEVNULL)


def failures(before: Disk, place: Path, moments: int, each: int, rng: random.Random) -> Iterator[list[bytes]]:
    """Images of so many moments, drawn from those at which something was not durable yet."""
    tape = read_tape(place)
    written = [number for number, event in enumerate(tape) if event.kind == "w" and event.file < len(STORED)]
    drawn = set(rng.sample(written, min(moments, len(written))))
    for number, event in enumerate(tape):
        before.play(event)
        if number in drawn:
            yield from before.images(each, rng)


@final
class Auditor:
    """Opens images, and remembers what came of those that hold the same."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[tuple[bytes, int, int], list[str]] = {}
        self.images = 0

    @property
    def hosted(self) -> int:
        """How many images had a host."""
        return len(self._known)

    async def problems(self, image: list[bytes], life: int) -> list[str]:
        """What is wrong with an image, of which `life` is the first."""
        self.images += 1
        shutil.rmtree(self._place, ignore_errors=True)
        write_image(self._place, image)
        try:
            mark = await read_through(self._place), len(image[2]), len(image[3])
        except StoreError as error:
            return [f"H: {error}"]
        if mark not in self._known:
            self._known[mark] = await audited(Life(self._place, life, patience=PATIENCE))
        return self._known[mark]


async def read_through(place: Path) -> bytes:
    """Open a store with the product, and return a digest of all rows; raises what it is refused for."""
    await open_store(f"lmdb:{place}/store").close()
    digest = hashlib.sha256()
    for name in STORED:
        directory = str((place / name).parent)
        with lmdb.open(directory, readonly=True, lock=False, lib_version=0) as environment, environment.begin() as transaction:
            digest.update(repr(list(transaction.cursor())).encode())
    return digest.digest()


async def audited(life: Life) -> list[str]:
    """What a new host finds wrong with a place, when everything has come to rest."""
    past = Past(await remains_in(life), list(read_journal(life.place / "journal")))
    async with hosted(life) as bank:
        _, found = await audit(bank, life, past)
    return [*past.remains.problems, *found]
