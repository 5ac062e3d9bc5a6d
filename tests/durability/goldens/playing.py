"""How whoever waits in a golden store goes on to its end, and what then is known of everybody in it."""

from __future__ import annotations

import zipfile
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import msgspec
from perdure.actors import ActorCancelled, ActorFailed, ActorId, ActorInfo, WorkflowNotStarted, send_signal
from perdure.actors._persistence import read_stream
from perdure.actors.testing import World

MOVES: Final = 8
AT_ONCE: Final = timedelta(days=10)
FOLDER: Final = Path(__file__).parent
ARCHIVE: Final = "store.zip"


class End(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an actor came to: the version that went on with it, its diary, its workflow's outcome and its stream, as text."""

    status: str
    version: int
    told: list[str] = []
    outcome: str = ""
    items: list[str] = []


class Ends(msgspec.Struct, frozen=True):
    """What all came to, by their addresses; whose messages were put aside, and what steps wrote into the book of the host's resources."""

    actors: dict[str, End]
    letters: list[str]
    book: list[str]


class Manifest(msgspec.Struct, frozen=True):
    """Who wrote a golden store, when (seconds since the epoch), what is in it, and how it goes on: under its own app, and tomorrow's.

    `contents` are digests of each table, by the names that the `fields` of records had.
    """

    release: str
    python: str
    anyio: str
    format: int
    time: float
    holds: list[str]
    fields: dict[str, list[str]]
    contents: dict[str, str]
    ends: dict[str, Ends]


@final
class Golden(NamedTuple):
    """The store of a release, in its folder."""

    folder: Path

    @property
    def manifest(self) -> Manifest:
        """What is said of it."""
        return msgspec.json.decode((self.folder / "manifest.json").read_bytes(), type=Manifest)

    def unpack(self, place: Path) -> str:
        """Make a copy at a place; returns its URL."""
        with zipfile.ZipFile(self.folder / ARCHIVE) as archive:
            archive.extractall(place)
        return f"lmdb:{place}"

    def world(self, url: str, deployed: str, time: float, max_active: int = 10_000) -> World:
        """A world that hosts it, with what is deployed: "app" or "tomorrow"."""
        return world_of(actors_of(self.folder.name, deployed), url, time, max_active)


def goldens() -> list[Golden]:
    """All that there are, the oldest release first."""
    return [Golden(path.parent) for path in sorted(FOLDER.glob("*/manifest.json"))]


def actors_of(release: str, deployed: str) -> tuple[type, ...]:
    """What was deployed with a release, or may be after it."""
    found: tuple[type, ...] = import_module(f"{__package__}.{release}.{deployed}").ACTORS
    return found


def world_of(actors: tuple[type, ...], url: str, time: float, max_active: int = 10_000) -> World:
    """A world in which everything is open."""
    world = World(actors, store=url, seed=9, max_active=max_active, resources={"open": True, "book": []})
    world.clock.move_to(time)
    return world


async def go_on(world: World) -> None:
    """Tell everybody who waits for `go` to go on, add one to all that can be added to, and let time pass, again and again."""
    await world.settled()
    for actor in [info.id async for info in world.actors(status="idle")]:
        if "add" in vars(cls := world.registry.require(actor.type).cls):
            await world.ref(cls, actor.key).ask("add", 1)
    for _ in range(MOVES):
        for actor in [info.id async for info in world.actors(waiting_for="go")]:
            await send_signal(world.ref(world.registry.require(actor.type).cls, actor.key), "go", "on")
        await world.settled()
        await world.advance(AT_ONCE)


async def ends(world: World) -> Ends:
    """What is known of everybody."""
    actors = {str(info.id): await _end(world, info) for info in [info async for info in world.actors()]}
    letters = [f"{letter.actor}: {letter.handler}" for letter in await world.dead_letters()]
    return Ends(actors, letters, world.runtime._settings.resources["book"])


async def _end(world: World, info: ActorInfo) -> End:
    definition = world.registry.require(info.id.type)
    told = await world.ref(definition.cls, info.id.key).query("diary")
    items = [f"{row.name} {definition.codec.decode(row.payload)}" for _, row in await read_stream(world.store, info.id, 0, 100)]
    return End(info.status, info.version, told, await _outcome(world, info.id), items)


async def _outcome(world: World, actor: ActorId) -> str:
    definition = world.registry.require(actor.type)
    if definition.workflow is None:
        return ""
    ref: Any = world.ref(getattr(definition.cls, definition.workflow.name), actor.key)
    try:
        return repr(await ref.result())
    except ActorFailed as failed:
        return f"failed: {failed.error.partition(':')[0]}"  # texts are those of the release that reads them
    except ActorCancelled:
        return "cancelled"
    except WorkflowNotStarted:
        return ""
