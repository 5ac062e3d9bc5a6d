"""`perdure export-history`: what is kept of an actor's past, out of a store and into a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from perdure.actors import Client, NonDeterminismError, Runtime, send_signal
from perdure.actors.testing import replay_history

from .conftest import Command, installed
from .depot import Parcel, Tomorrow

DEPOT = str(Path(__file__).with_name("depot.py"))


async def trade(url: str) -> None:
    """One parcel that waits, and one that was paid for."""
    async with Client(url) as client:
        for key in ("waits", "paid"):
            await client.start(Parcel.run, key, "tea")
        await send_signal(client.ref(Parcel, "paid"), Parcel.paid, "ada")
        await client.ref(Parcel.run, "paid").result()


async def begin(url: str) -> None:
    async with Runtime(url, [Parcel]):
        await trade(url)


@pytest.fixture(scope="module")
def rested(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store whose host has stopped; it is read alone, so all tests share it."""
    url = f"lmdb:{tmp_path_factory.mktemp('depot')}/store"
    anyio.run(begin, url)
    return url


@pytest.mark.slow
def test_beside_its_host_a_history_is_exported_and_replayed(perdure: Command, rested: str, tmp_path: Path) -> None:
    with subprocess.Popen([installed(), "run", DEPOT, "--store", rested], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        host.stdout.readline()
        exported = [perdure("export-history", "Parcel", key, "-o", f"{tmp_path}/{key}", store=rested) for key in ("waits", "paid")]
        host.terminate()

    assert exported[0].stdout.startswith("2 messages of Parcel/waits exported: ")
    assert [replay_history(tmp_path / key, Parcel)[:2] for key in ("waits", "paid")] == [(2, 1), (3, 1)]
    with pytest.raises(NonDeterminismError):
        replay_history(tmp_path / "waits", Tomorrow)


def test_tools_read_of_a_history_what_it_tells(perdure: Command, rested: str) -> None:
    head, *lines, tail = map(json.loads, perdure("export-history", "Parcel", "paid", store=rested).stdout.splitlines())

    assert (head["history"], head["type"], head["key"], head["version"]) == (1, "Parcel", "paid", 1)
    assert {(line["kind"], line["name"]) for line in lines} >= {("start", "run"), ("outcome", "depot.weigh"), ("declared", "paid")}
    assert lines[0]["asked"] == ["step depot.weigh"]
    assert tail == {"turns": len(lines), "state": None}


@pytest.mark.slow
def test_another_process_replays_a_history(perdure: Command, rested: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/paid"
    perdure("export-history", "Parcel", "paid", "--output", path, store=rested)

    program = f"from depot import *\nfrom perdure.actors.testing import *\nprint(replay_history({path!r}, Parcel))"
    call = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(call, cwd=Path(DEPOT).parent, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("Replayed(turns=3, stretches=1, ")


NOT_KEPT = """\
error: Basket/b-1: nothing of its past is kept. Say how many messages are to be, at least, and those that come are:
    @durable_actor(keep_history=10_000)
"""


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        (["Basket", "b-1"], 1, NOT_KEPT),
        (["Basket", "b-9"], 2, "error: there is no actor Basket/b-9"),
        (["Baskett", "b-1"], 2, "Did you mean 'Basket'?"),
        (["Basket", "b-1", "--output", __file__], 2, "exists; nothing is overwritten"),
    ],
)
def test_what_has_no_history_is_said(perdure: Command, kiosk_url: str, call: list[str], status: int, said: str) -> None:
    refused = perdure("export-history", *call, store=kiosk_url)

    assert (refused.exit_code, refused.stdout) == (status, "")
    assert said in refused.stderr


def test_the_room_that_histories_take_is_told(perdure: Command, rested: str) -> None:
    kinds: list[dict[str, Any]] = json.loads(perdure("du", "--json", store=rested).stdout)["kinds"]

    (rows,) = [kind["rows"] for kind in kinds if kind["name"] == "histories"]
    assert rows >= 5
