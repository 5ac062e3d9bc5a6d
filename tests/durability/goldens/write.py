"""Write the golden store of a release, once, before it is tagged: `make golden`.

    python -m tests.durability.goldens.write v0_1

A host that the bomb of the story ends is a process of its own: `--begin STORE`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
from perdure.actors import _failure
from perdure.actors._registry import Registry
from perdure.actors._standing import anyio_version, python_version
from perdure.actors.testing import World
from perdure.storage import backup, open_store
from perdure.storage._format import FORMAT

from . import story
from .inventory import FIELDS, contents, inventory
from .playing import ARCHIVE, FOLDER, Ends, Golden, Manifest, ends, go_on
from .postbox import Postbox

FUSE: Final = 66  # the exit code of a process that the bomb has ended
ROOT: Final = FOLDER.parents[2]
FILES: Final = "data.mdb", "inbox/data.mdb"
BETWEEN: Final = 2 * 86_400.0  # seconds


def forget_place() -> None:
    """Let no traceback in the store say where the tree lay that it was written in."""
    plain = _failure._traceback

    def short(exception: BaseException) -> str:
        return plain(exception).replace(f"{ROOT}/", "")

    _failure._traceback = short


def closed_world(actors: tuple[type, ...], store: Path, seed: int) -> World:
    """A world in which steps do not end, and nobody stays in memory."""
    return World(actors, store=f"lmdb:{store}", seed=seed, max_active=0, resources={"open": False, "fuse": FUSE})


async def begin(store: Path) -> None:
    """The first deploy, in a process that the story ends."""
    async with closed_world(story.DEPLOYS[0], store, 1) as world:
        await story.begin(world)
    raise AssertionError("the bomb has not gone off")


async def make(place: Path) -> float:
    """Make the store of the story at a place, as a kill of its second host has left it; returns when that was."""
    command = [sys.executable, "-m", f"{__package__}.write", "--begin", str(place / "first")]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
    assert ended.returncode == FUSE, ended.returncode
    world = closed_world(story.DEPLOYS[1], place / "first", 2)
    world.clock.move_to(world.clock.now() + BETWEEN)
    await post(place / "first", 3, world.clock.now(), story.ask_from_afar)
    async with world:
        await story.go_on(world)
        async with story.ended(world):
            await asyncio.to_thread(backup, f"lmdb:{place}/first", str(place / "second"))
    await post(place / "second", 4, world.clock.now(), story.leave)
    backup(f"lmdb:{place}/second", str(place / "store"))  # as small as it can be
    return world.clock.now()


async def post(store: Path, seed: int, time: float, write: Callable[[Postbox], Awaitable[None]]) -> None:
    """Have something written into the inbox of a store that no host has open."""
    there = open_store(f"lmdb:{store}", create=False)
    await write(Postbox(there, Registry.of_classes(story.DEPLOYS[0]), seed, time))
    await there.close()


async def write(folder: Path) -> None:
    """Make it, pack it, and write down what it holds and how it goes on."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        time = await make(place)
        with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_LZMA) as archive:
            for name in FILES:
                archive.writestr(zipfile.ZipInfo(name), (place / "store" / name).read_bytes(), zipfile.ZIP_LZMA)
        found = {deployed: await played(Golden(folder), place / deployed, deployed, time) for deployed in ("app", "tomorrow")}
        url = Golden(folder).unpack(place / "held")
        digests, holds = await read(url, FIELDS), sorted(await held(url))
    release = metadata.version("perdure")
    manifest = Manifest(release, python_version(), anyio_version(), FORMAT, time, holds, FIELDS, digests, found)
    (folder / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


async def played(golden: Golden, place: Path, deployed: str, time: float) -> Ends:
    """How it goes on under what is deployed."""
    async with golden.world(golden.unpack(place), deployed, time) as world:
        await go_on(world)
        return await ends(world)


async def held(url: str) -> set[str]:
    """What there is in the store of a URL."""
    store = open_store(url, create=False)
    try:
        return await inventory(store)
    finally:
        await store.close()


async def read(url: str, fields: Mapping[str, list[str]]) -> dict[str, str]:
    """Digests of the tables in the store of a URL."""
    store = open_store(url, create=False)
    try:
        return await contents(store, fields)
    finally:
        await store.close()


if __name__ == "__main__":
    forget_place()
    match sys.argv[1:]:
        case ["--begin", store]:
            asyncio.run(begin(Path(store)))
        case [release]:
            asyncio.run(write(FOLDER / release))
        case _:
            sys.exit(__doc__)
