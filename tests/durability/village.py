"""Modules made at run time: each deploy is a directory of its own, and whatever the one before it had defined is gone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, final

from perdure.actors._renames import RENAMES
from perdure.actors._step import STEPS
from perdure.actors.testing import World

WARES: Final = """
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
import msgspec, pydantic

@dataclass(frozen=True)
class Guilder:
    cents: int

@dataclass(slots=True)
class Slip:
    cents: int

@dataclass(frozen=True, slots=True)
class Seal:
    number: int

class Tint(Enum):
    RED = "red"

    def tell(self):
        return self.value

class Spot(NamedTuple):
    x: int
    y: int

class Heap(list):
    pass

class Mislaid(Exception):
    pass

class PriceTag(str):
    pass

class Crate:
    class Inner:
        def __init__(self, size):
            self.size = size

        def __eq__(self, other):
            return self.size == other.size

        def tell(self):
            return self.size

        __hash__ = None

class Docket(msgspec.Struct):
    cents: int

class Scheme(pydantic.BaseModel):
    cents: int

def rate():
    return 7
"""

TILL: Final = """
import importlib
from typing import Any
from datetime import timedelta
from perdure.actors import Retry, durable_actor, on_event, query, signal, step, step_info, wait_for_signal, workflow

@step(retry=Retry(initial=timedelta(minutes=1), max_attempts=3))
async def weigh(thing: Any) -> Any:
    if step_info().attempt == 1:
        raise ConnectionError("later")
    return thing

@step
async def fetch() -> Any:
    return importlib.import_module("wares").Guilder(5)

@durable_actor(name="Till")
class Till:
    go = signal()
    hear = signal(Any)

    def __init__(self):
        self.kept = None
        self.count = 0

    @on_event
    def keep(self, thing: Any) -> int:
        self.kept = thing
        self.count += 1
        return self.count

    @on_event
    def tick(self) -> int:
        self.count += 1
        return self.count

    @on_event
    async def hold(self) -> int:
        await wait_for_signal(Till.go)
        self.count += 1
        return self.count

    @query
    def what(self) -> Any:
        return self.kept

    @query
    def number(self) -> int:
        return self.count

    @query
    def same(self, other: Any) -> bool:
        return self.kept == other or repr(self.kept) == repr(other)

    @workflow
    async def run(self, how: str, thing: Any) -> Any:
        match how:
            case "start":
                await wait_for_signal(Till.go)
            case "signal":
                try:
                    thing = await wait_for_signal(Till.hear)
                except Exception:
                    thing = "unheard"
                await wait_for_signal(Till.go)
            case "kept":
                await wait_for_signal(Till.go)
                thing = await wait_for_signal(Till.hear)
            case "step":
                thing = await fetch()
                await wait_for_signal(Till.go)
            case "flight":
                thing = await weigh(thing)
            case "event":
                await wait_for_signal(Till.go)
        self.count += 1
        return thing
"""


@final
class Village:
    """Where a store stays, and the code around it changes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._count = 0

    @contextmanager
    def code(self, **sources: str) -> Iterator[Any]:
        """Modules of these sources, and no others; what is given is a namespace of them."""
        self._count += 1
        place = self._place / f"deploy-{self._count}"
        place.mkdir(parents=True)
        for name, source in sources.items():
            (place / f"{name}.py").write_text(source)
        sys.path.insert(0, str(place))
        importlib.invalidate_caches()
        steps = set(STEPS)
        try:
            modules = ModuleType("modules")
            for name in sources:
                setattr(modules, name, importlib.import_module(name))
            yield modules
        finally:
            sys.path.remove(str(place))
            for name in sources:
                sys.modules.pop(name, None)
            for name in STEPS.keys() - steps:
                del STEPS[name]
            RENAMES.clear()

    @asynccontextmanager
    async def hosted(self, *types: type, **options: Any) -> AsyncIterator[World]:
        """A host of the one store."""
        async with World(types, store=f"lmdb:{self._place}/store", **options) as world:
            yield world
            await world.settled()
