"""Goldens: the store that each release has written is opened by every later one, and whoever waits in it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest
from perdure.actors import ActorId, ActorRef
from perdure.actors._activation import Activation
from perdure.actors._persistence import Stored, read_actors, scan_actors
from perdure.actors._records import Status
from perdure.actors._registry import Registry
from perdure.actors._replaying import Replayer
from perdure.actors._versions import version_for
from perdure.actors.ops.cli._app import app
from perdure.storage import StoreVersionError, _format, open_store
from typer.testing import CliRunner

from .goldens.inventory import ALL
from .goldens.playing import Golden, actors_of, ends, go_on, goldens
from .goldens.write import held, make, read
from .rig.remains import remains_of

pytestmark = [pytest.mark.anyio, pytest.mark.reliability(28)]


class Surroundings(NamedTuple):
    """What turns are replayed with."""

    registry: Registry
    resources: dict[str, Any]


@pytest.fixture(params=goldens(), ids=lambda golden: golden.folder.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each of them."""
    found: Golden = request.param
    return found


@pytest.fixture
def url(golden: Golden, tmp_path: Path) -> str:
    """A copy of its store."""
    return golden.unpack(tmp_path / "golden")


def called(*arguments: str) -> str:
    """What a command prints."""
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


async def problems(url: str) -> tuple[str, ...]:
    """What is wrong with the rows of a store."""
    store = open_store(url, create=False)
    try:
        return (await remains_of(store)).problems
    finally:
        await store.close()


@pytest.mark.promise("old-stores-open")
@pytest.mark.parametrize("deployed", ["app", "tomorrow"])
@pytest.mark.parametrize("max_active", [0, 10_000])
async def test_whoever_waits_goes_on_to_the_end_that_is_written_down(golden: Golden, url: str, deployed: str, max_active: int) -> None:
    async with golden.world(url, deployed, golden.manifest.time, max_active) as world:
        await go_on(world)
        found = await ends(world)

    assert msgspec.to_builtins(found) == msgspec.to_builtins(golden.manifest.ends[deployed])


@pytest.mark.promise("old-stores-open")
async def test_what_was_asked_with_a_key_is_answered_as_it_was(golden: Golden, url: str) -> None:
    async with golden.world(url, "app", golden.manifest.time) as world:
        noted: ActorRef[Any] = world.ref(world.registry.require("Brief").cls, "noted")

        assert await noted.options(idempotency_key="once").ask("note", "with a key") == 1
        assert await noted.query("diary") == ["with a key"]


@pytest.mark.promise("old-stores-open")
async def test_its_rows_are_whole_before_and_after(golden: Golden, url: str) -> None:
    before = await problems(url)
    async with golden.world(url, "app", golden.manifest.time) as world:
        await go_on(world)

    assert (before, await problems(url)) == ((), ())


@pytest.mark.promise("old-stores-open")
async def test_every_log_in_it_is_replayed(golden: Golden, url: str) -> None:
    registry, store = Registry.of_classes(actors_of(golden.folder.name, "app")), open_store(url, create=False)
    replayer = Replayer(store, Surroundings(registry, {"open": False}), lambda _, work: work())
    replayed = 0
    async for page in scan_actors(store, None, Status.SUSPENDED, ""):
        for actor, stored in zip(page, await read_actors(store, page), strict=True):
            assert isinstance(stored, Stored)
            activation = Activation(actor, version_for(registry, actor, stored.snapshot))
            activation.install(stored.snapshot, None)
            await replayer.replay(activation)
            activation.forget_instance()
            replayed += 1
    await store.close()

    assert replayed > 20


async def test_each_field_of_its_records_is_what_it_was(golden: Golden, url: str) -> None:
    assert await read(url, golden.manifest.fields) == golden.manifest.contents


async def test_it_holds_what_is_written_down(golden: Golden, url: str) -> None:
    assert sorted(await held(url)) == golden.manifest.holds


def test_the_command_line_reads_it(golden: Golden, url: str) -> None:
    listed = [ActorId(row["type"], row["key"]) for row in json.loads(called("ls", "--json", "--limit", "999", "--store", url))]

    shown = [json.loads(called("show", *actor, "--json", "--store", url)) for actor in listed]

    assert len(shown) == len(listed) >= len(golden.manifest.ends["app"].actors)


def test_a_release_that_reads_another_format_refuses_it(golden: Golden, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_format, "FORMAT", golden.manifest.format - 1)

    with pytest.raises(StoreVersionError, match=f"format {golden.manifest.format} of engine"):
        anyio.run(problems, url)


def test_every_golden_is_small() -> None:
    assert {golden.folder.name for golden in goldens() if (golden.folder / "store.zip").stat().st_size > 200_000} == set()


@pytest.mark.slow
async def test_the_story_of_the_next_golden_has_all_that_can_be_at_rest(tmp_path: Path) -> None:
    await make(tmp_path)

    missing = ALL - await held(f"lmdb:{tmp_path}/store")

    assert missing == set(), "the story in tests/durability/goldens/story.py is to bring these about"
