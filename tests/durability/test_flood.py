"""A million messages for one slow actor cost the disk, and nobody's memory; a mailbox with a limit keeps to it, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import pytest
from perdure.actors import Client, MailboxFull, Runtime

from .rig.flood import NARROW, Narrow, Tide

pytestmark = [pytest.mark.slow, pytest.mark.promise("bounds-are-kept")]

SOME: Final = (20_000, 128)  # messages, and MiB that no process may take beyond them
ALL: Final = (1_000_000, 512)


@final
class Flood:
    """Runs the processes of a flood, one after the other, or one beside a host."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self._root = root

    def run(self, role: str, count: int = 0, *, first: int = 0, kind: str = "slow") -> Tide:
        """What a process came to."""
        with self._process(role, count, first, kind) as process:
            return tide_of(process)

    @contextmanager
    def held(self, tides: list[Tide]) -> Iterator[None]:
        """While a process hosts; what it came to joins the others."""
        with self._process("hold", 0, 0, "slow") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "hosting\n"
            yield
            process.terminate()
            tides.append(tide_of(process))

    def _process(self, role: str, count: int, first: int, kind: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.durability.rig.flood", self.url, kind, role, str(first), str(count)]
        return subprocess.Popen(command, cwd=self._root, stdout=subprocess.PIPE, text=True)


def tide_of(process: subprocess.Popen[str]) -> Tide:
    assert process.stdout is not None
    peak, refused, waiting, taken, out_of_order = json.loads(process.stdout.readline())
    return Tide(peak, refused, waiting, taken, tuple(out_of_order))


@pytest.fixture
def flood(tmp_path: Path, pytestconfig: pytest.Config) -> Flood:
    """Of a store that has been hosted once, so that clients know the types."""
    flood = Flood(f"lmdb:{tmp_path}/store", pytestconfig.rootpath)
    flood.run("fill")
    return flood


def from_the_host(flood: Flood, count: int) -> list[Tide]:
    return [flood.run("fill", count)]


def from_a_client(flood: Flood, count: int) -> list[Tide]:
    tides: list[Tide] = []
    with flood.held(tides):
        tides.append(flood.run("offer", count))
    return tides


def from_a_client_while_nobody_hosts(flood: Flood, count: int) -> list[Tide]:
    return [flood.run("offer", count)]


@pytest.mark.promise("order-per-sender-and-lane")
@pytest.mark.reliability(20)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", [from_the_host, from_a_client, from_a_client_while_nobody_hosts])
def test_a_flood_is_taken_in_order_and_stays_out_of_memory(flood: Flood, source: Callable[[Flood, int], list[Tide]], torture: bool) -> None:
    count, ceiling = ALL if torture else SOME

    tides = [*source(flood, count), flood.run("drain")]

    print(f"{source.__name__}: {count} messages, {[tide.peak for tide in tides]} MiB")
    assert max(tide.peak for tide in tides) < ceiling
    assert [tide.refused for tide in tides] == [0] * len(tides)
    assert tides[-1][2:] == (count - 1, count, ())


def test_a_full_mailbox_refuses_the_rest_and_keeps_the_first(flood: Flood) -> None:
    filled = flood.run("fill", 3 * NARROW, kind="narrow")
    again = flood.run("fill", 10, first=3 * NARROW, kind="narrow")
    drained = flood.run("drain", kind="narrow")

    room = NARROW + 1  # the first has been taken, and waits in its handler
    assert (filled.refused, filled.waiting) == (3 * NARROW - room, NARROW)
    assert (again.refused, again.waiting) == (10, NARROW)
    assert drained[2:] == (NARROW, room, ())


@pytest.mark.promise("nothing-is-dropped-silently")
@pytest.mark.anyio
async def test_what_a_full_mailbox_refuses_a_client_is_told_or_kept(flood: Flood) -> None:
    await asyncio.to_thread(flood.run, "fill", NARROW + 1, kind="narrow")
    async with Client(flood.url) as client, Runtime(flood.url, [Narrow]) as runtime:
        narrow = client.ref(Narrow, "slow")
        await narrow.send_event(Narrow.take, -1)
        with pytest.raises(MailboxFull, match=f"is full: {NARROW} messages wait"):
            await narrow.ask(Narrow.take, -2)

        await runtime.settled()

        errors = [letter.error async for letter in client.dead_letters(Narrow)]
        assert len(errors) == 1
        assert errors[0].startswith("perdure.actors.MailboxFull: the mailbox of Narrow/slow is full")
