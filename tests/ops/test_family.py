"""What `perdure show` tells of an actor's parent and children."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import anyio
import pytest
from perdure.actors import OneForOne, Runtime, durable_actor, spawn, workflow

from .conftest import Command


@durable_actor
class Parcel:
    """Fails once, or is long on its way."""

    @workflow
    async def run(self, days: int) -> None:
        await asyncio.sleep(days * 86400)
        raise ValueError("lost")


@durable_actor(supervise=OneForOne(max_restarts=1_000_000))
class Depot:
    """Sends two parcels, and waits."""

    @workflow
    async def run(self) -> None:
        for days in (1, 2):
            spawn.options(on_parent_close="abandon")(Parcel.run, f"p-{days}", days)
        await asyncio.sleep(86400)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with a depot and its parcels."""

    async def begin() -> None:
        async with Runtime(f"lmdb:{tmp_path}/store", actors=[Parcel, Depot]) as runtime:
            await runtime.start(Depot.run, "d")
            await runtime.settled()

    anyio.run(begin)
    return f"lmdb:{tmp_path}/store"


def test_an_actor_is_shown_with_its_family(perdure: Command, url: str) -> None:
    depot = perdure("show", "Depot", "d", store=url).stdout
    parcel = perdure("show", "Parcel", "p-1", store=url).stdout

    assert [line.split()[1] for line in depot.splitlines() if line.startswith("  child")] == ["Parcel/p-1;", "Parcel/p-2;"]
    assert "  child of     Depot/d" in parcel


def test_a_family_as_json_has_names(perdure: Command, url: str) -> None:
    depot = json.loads(perdure("show", "Depot", "d", "--json", store=url).stdout)
    parcel = json.loads(perdure("show", "Parcel", "p-1", "--json", store=url).stdout)

    assert depot["children"][0] == {"type": "Parcel", "key": "p-1", "restarts": 0, "on_parent_close": "abandon"}
    assert parcel["parent"] == {"type": "Depot", "key": "d"}
