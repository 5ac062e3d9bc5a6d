"""The registry: types by name, and what tools may know of them."""

from __future__ import annotations

import msgspec
import pytest
from perdure.actors import DefinitionError, UnknownActorType, durable_actor, on_event, query, signal
from perdure.actors._define import definition_of
from perdure.actors._registry import Registry, RegistryEntry


class Money:
    """A class that msgspec does not know."""


@durable_actor
class Order:
    """An order."""

    approved = signal(str)

    @on_event
    def add_line(self, sku: str, count: int = 1) -> int:
        """Add a line."""
        return count

    @on_event
    def pay(self, money: Money) -> None:
        """Take what has no JSON form."""

    @query
    def progress(self) -> str:
        """Say how far it is."""
        return ""


@durable_actor(name="Order", version=2)
class NewOrder:
    """The next version of it."""


@durable_actor
class Shipment:
    """Another type."""


@pytest.fixture
def registry() -> Registry:
    """Two types, one of them in two versions."""
    return Registry.of_classes([NewOrder, Order, Shipment])


def test_a_name_stands_for_its_highest_version(registry: Registry) -> None:
    assert registry.require("Order").cls is NewOrder
    assert {definition.cls for definition in registry} == {NewOrder, Shipment}


def test_a_class_stands_for_its_own_version(registry: Registry) -> None:
    assert registry.of(Order) is definition_of(Order)


def test_an_unknown_name_is_refused_naming_what_exists(registry: Registry) -> None:
    with pytest.raises(UnknownActorType, match=r"Did you mean 'Shipment'\? There is: Order, Shipment"):
        registry.require("Shipmnt")


def test_a_class_that_is_not_served_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"as Order version \d it is not what is hosted: that is .*Order, version 1"):
        Registry.of_classes([Order]).of(NewOrder)


def test_two_classes_of_one_name_and_version_are_refused() -> None:
    @durable_actor(name="Order")
    class Other:
        pass

    with pytest.raises(DefinitionError, match="Order version 1 already"):
        Registry.of_classes([Order, Other])


def test_its_description_survives_without_the_users_code(registry: Registry) -> None:
    described = msgspec.msgpack.decode(msgspec.msgpack.encode(registry.describe()), type=list[RegistryEntry])

    assert [(entry.name, entry.version, entry.codec) for entry in described] == [
        ("Order", 1, "pickle"),
        ("Order", 2, "pickle"),
        ("Shipment", 1, "pickle"),
    ]


def test_handlers_are_described_with_their_schemas(registry: Registry) -> None:
    order = registry.describe()[0]

    assert [(entry.name, entry.kind, entry.doc) for entry in order.handlers] == [
        ("add_line", "event", "Add a line."),
        ("pay", "event", "Take what has no JSON form."),
        ("progress", "query", "Say how far it is."),
    ]
    assert [entry.name for entry in order.signals] == ["approved"]
    assert order.handlers[1].schema is None


def test_a_schema_says_what_is_required_and_what_defaults(registry: Registry) -> None:
    schema = msgspec.json.decode(registry.describe()[0].handlers[0].schema or b"")

    assert schema["required"] == ["sku"]
    assert schema["properties"] == {"sku": {"type": "string"}, "count": {"type": "integer", "default": 1}}
