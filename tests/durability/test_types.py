"""Actor types whose class moves, is renamed, or holds something else than before."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any, Final

import attrs
import msgspec
import pydantic
import pytest
from perdure.actors import (
    ActorQuarantined,
    UnknownActorType,
    durable_actor,
    migrate,
    on_event,
    query,
    send_signal,
)

from .village import TILL, Village

pytestmark = pytest.mark.anyio

KEEPER: Final = TILL.replace("class Till", "class Cashier").replace("Till.", "Cashier.")


# --- the class moves, or has another name in Python ---


@pytest.mark.parametrize("waits", [False, True])
async def test_a_class_that_moves_is_the_same_type_by_its_name(village: Village, waits: bool) -> None:
    with village.code(till=TILL) as then:
        async with village.hosted(then.till.Till) as world:
            till = world.ref(then.till.Till, "t")
            await till.ask("keep", [till, world.ref(then.till.Till.run, "t")])
            if waits:
                await till.send_event("hold")

    with village.code(desk=KEEPER) as now:
        async with village.hosted(now.desk.Cashier, max_active=0) as world:
            till = world.ref(now.desk.Cashier, "t")
            if waits:
                await send_signal(till, now.desk.Cashier.go)
                await world.settled()
            assert await till.ask(now.desk.Cashier.tick) == 3 if waits else 2
            assert await till.query("same", [till, world.ref(now.desk.Cashier.run, "t")])


@pytest.mark.promise("moved-classes-load")
async def test_a_renamed_type_is_told_the_line_and_loses_nothing(village: Village, caplog: pytest.LogCaptureFixture) -> None:
    unnamed = TILL.replace('(name="Till")', "")
    with village.code(till=unnamed) as then:
        async with village.hosted(then.till.Till) as world:
            await world.ref(then.till.Till, "t").ask("tick")
            await world.ref(then.till.Till, "t").send_event("hold")

    renamed = KEEPER.replace('(name="Till")', "")
    with village.code(till=renamed) as now:
        async with village.hosted(now.till.Cashier) as world:
            assert '@durable_actor(name="Till")' in caplog.text
            with pytest.raises(UnknownActorType, match="Till"):
                await world.ref(then.till.Till, "t").ask("tick")

    with village.code(till=KEEPER) as named:
        async with village.hosted(named.till.Cashier) as world:
            await send_signal(world.ref(named.till.Cashier, "t"), "go")
            await world.settled()
            assert await world.ref(named.till.Cashier, "t").ask("tick") == 3


# --- a field holds something else, comes or goes ---


@durable_actor(name="Price")
class Cents:
    def __init__(self) -> None:
        self.amount: object = 0
        self.gone = "soon"

    @on_event
    def put(self, amount: object) -> None:
        self.amount = amount


class Priced:
    """What every version 2 does."""

    amount: Any
    currency: Any

    @migrate(1)
    @staticmethod
    def in_euros(state: dict[str, Any]) -> dict[str, Any]:
        return {"amount": Decimal(state["amount"]) / 100, "currency": "EUR"}

    @query
    def shown(self) -> str:
        return f"{self.amount} {self.currency}"


@durable_actor(name="Price", version=2)
class Plain(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@durable_actor(name="Price", version=2)
@dataclasses.dataclass
class AsDataclass(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@durable_actor(name="Price", version=2)
@dataclasses.dataclass(slots=True)
class AsSlots(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@durable_actor(name="Price", version=2)
@attrs.define
class AsAttrs(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@durable_actor(name="Price", version=2)
class AsModel(pydantic.BaseModel):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"
    in_euros = Priced.__dict__["in_euros"]
    shown = Priced.shown


@durable_actor(name="Price", version=2)
class AsStruct(msgspec.Struct):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"
    in_euros = Priced.__dict__["in_euros"]
    shown = Priced.shown


@durable_actor(name="Price", version=2, codec="msgspec")
@dataclasses.dataclass
class InMessagePack(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@durable_actor(name="Price", version=2, codec="msgspec-json")
class InJson(Priced):
    amount: Decimal = Decimal(0)
    currency: str = "EUR"


@pytest.mark.parametrize("cls", [Plain, AsDataclass, AsSlots, AsAttrs, AsModel, AsStruct, InMessagePack, InJson])
async def test_a_field_of_another_type_is_migrated_in_every_kind_of_class(village: Village, cls: Any) -> None:
    async with village.hosted(Cents) as world:
        await world.ref(Cents, "p").ask(Cents.put, 550)

    async with village.hosted(cls) as world:
        assert await world.ref(cls, "p").query("shown") == "5.5 EUR"


@durable_actor(name="Count", codec="msgspec")
class Whole:
    def __init__(self) -> None:
        self.total: int = 0

    @on_event
    def add(self) -> int:
        self.total += 1
        return self.total


@durable_actor(name="Count", codec="msgspec")
@dataclasses.dataclass
class Listed:
    total: list[int] = dataclasses.field(default_factory=list)

    @on_event
    def add(self) -> int:
        self.total.append(1)
        return len(self.total)


@durable_actor(name="Count", version=2, codec="msgspec")
@dataclasses.dataclass
class Migrated:
    total: list[int] = dataclasses.field(default_factory=list)

    @migrate(1)
    @staticmethod
    def listed(state: dict[str, Any]) -> dict[str, Any]:
        return {"total": [state["total"]]}

    @on_event
    def add(self) -> int:
        self.total.append(1)
        return sum(self.total)


async def test_a_state_that_does_not_fit_its_class_leads_to_a_migration(village: Village) -> None:
    async with village.hosted(Whole) as world:
        await world.ref(Whole, "c").ask(Whole.add)
    async with village.hosted(Listed) as world:
        with pytest.raises(ActorQuarantined) as caught:
            await world.ref(Listed, "c").ask(Listed.add)
    assert "Expected `array`, got `int`" in str(caught.value)
    assert "\n    @durable_actor(version=2)\n    ...\n        @migrate(1)\n        @staticmethod\n" in str(caught.value)

    async with village.hosted(Migrated) as world:
        await world.settled()
        assert (await world.ref(Migrated, "c").info()).status == "idle"
        assert await world.ref(Migrated, "c").ask(Migrated.add) == 3  # with the one that met the class it did not fit
