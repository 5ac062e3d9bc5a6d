"""State: every kind of class is made, stored and brought back, and whatever could not be is refused by name."""

from __future__ import annotations

import abc
import dataclasses
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import attrs
import msgspec
import pydantic
import pytest
from perdure.actors import DefinitionError, NotDeserializable, NotSerializable, Transient, durable_actor, on_activate, signal
from perdure.actors._define import Definition, definition_of

CODECS = ["pickle", "msgspec", "msgspec-json"]


class WithInit:
    """Attributes that `__init__` sets."""

    status: str
    lines: list[str]

    def __init__(self) -> None:
        self.status = "new"
        self.lines = []


class WithDefaults:
    """Attributes that are declared with defaults, as in a dataclass."""

    status: str = "new"
    lines: list[str] = dataclasses.field(default_factory=list)
    count: int = dataclasses.field(default=0)
    rates: ClassVar[dict[str, int]] = {}


class WithSlots:
    """Slots, one of which nothing is in."""

    __slots__ = ("__private", "lines", "status", "unset")

    def __init__(self) -> None:
        self.status = "new"
        self.lines: list[str] = []
        self.__private = 1


class SlotsAndDict(WithSlots):
    """Slots of the base, a dict of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = {"a": 1}


@dataclasses.dataclass
class AsDataclass:
    """A dataclass."""

    status: str = "new"
    lines: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class AsSlottedDataclass:
    """A dataclass with slots."""

    status: str = "new"
    lines: list[str] = dataclasses.field(default_factory=list)


class PlainOnDataclass(AsDataclass):
    """A plain class, with a default of its own, on a dataclass."""

    more: int = 1


@attrs.define
class AsAttrs:
    """An attrs class, which has slots."""

    status: str = "new"
    lines: list[str] = attrs.Factory(list)


@attrs.define(slots=False)
class AsAttrsWithDict:
    """An attrs class without slots."""

    status: str = "new"
    lines: list[str] = attrs.Factory(list)


class AsStruct(msgspec.Struct):
    """A msgspec Struct."""

    status: str = "new"
    lines: list[str] = []


class AsModel(pydantic.BaseModel):
    """A pydantic model with a private attribute."""

    status: str = "new"
    lines: list[str] = []
    _seen: int = pydantic.PrivateAttr(default=2)


class Tree:
    """What refers back to the actor."""

    def __init__(self, root: object) -> None:
        self.root = root


class Rooted:
    """An actor that what it holds refers to."""

    status: str = "new"

    def __init__(self) -> None:
        self.tree = Tree(self)
        self.method = self.grow

    def grow(self) -> None:
        """Be referred to as a bound method."""


class Pooled:
    """A transient attribute, set by `@on_activate`, and by that of a base first."""

    pool: Transient[threading.Lock]
    log: Transient[list[str]]

    def __init__(self) -> None:
        self.status = "new"

    @on_activate
    def open(self) -> None:
        """Set what is transient."""
        self.pool = threading.Lock()
        self.log = ["base"]


class PooledMore(Pooled):
    """Another method to be called."""

    @on_activate
    def announce(self) -> None:
        """Come after the base's."""
        self.log.append("derived")


@dataclasses.dataclass
class PooledDataclass:
    """A transient attribute that is no argument of `__init__`."""

    pool: Transient[threading.Lock] = dataclasses.field(init=False)


KINDS = [
    *(WithInit, WithDefaults, WithSlots, SlotsAndDict, AsDataclass, AsSlottedDataclass, PlainOnDataclass),
    *(AsAttrs, AsAttrsWithDict, AsStruct, AsModel),
]


def as_actor(cls: type, **options: Any) -> Definition:
    """The definition of a class that is decorated so; the class stays free for other options."""
    return definition_of(durable_actor(**options)(cls))


def attributes(instance: Any) -> dict[str, object]:
    """All that the kinds above have, if it is set."""
    names = ("status", "lines", "count", "more", "extra", "_seen", "_WithSlots__private")
    return {name: getattr(instance, name) for name in names if hasattr(instance, name)}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_class_comes_back_as_it_was(kind: type, codec: str) -> None:
    definition = as_actor(kind, codec=codec)
    first = definition.create()
    first.lines.append("sku-1")
    first.status = "open"

    second = definition.decode_state(definition.encode_state(first))

    assert type(second) is kind
    assert attributes(second) == attributes(first) != attributes(definition.create())


@pytest.mark.promise("nothing-mutable-crosses")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_mutable_is_shared_between_instances(kind: type) -> None:
    definition = as_actor(kind)
    first, other = definition.create(), definition.create()
    second = definition.decode_state(definition.encode_state(first))

    first.lines.append("sku-1")

    assert (other.lines, second.lines) == ([], [])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_brought_back_can_be_stored_again(kind: type) -> None:
    definition = as_actor(kind)
    once = definition.encode_state(definition.create())

    twice = definition.encode_state(definition.decode_state(once))

    assert attributes(definition.decode_state(twice)) == attributes(definition.create())


def test_init_is_not_called_to_bring_an_actor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = as_actor(WithInit)
    stored = definition.encode_state(definition.create())

    monkeypatch.setattr(WithInit, "__init__", None)

    assert definition.decode_state(stored).status == "new"


def test_the_state_may_refer_to_its_own_actor() -> None:
    definition = as_actor(Rooted)

    again = definition.decode_state(definition.encode_state(definition.create()))

    assert again.tree.root is again
    assert again.method.__self__ is again
    assert again.tree.root.status == "new"


def test_an_actor_class_can_still_be_pickled_as_an_object() -> None:
    definition = as_actor(WithInit)
    holder = as_actor(WithDefaults)
    outer = holder.create()
    outer.status = definition.create()

    again = holder.decode_state(holder.encode_state(outer))

    assert (type(again.status), again.status.lines) == (WithInit, [])


def test_transient_attributes_are_neither_stored_nor_set() -> None:
    definition = as_actor(Pooled)
    actor = definition.create()
    definition.activate(actor)

    again = definition.decode_state(definition.encode_state(actor))

    assert vars(again) == {"status": "new"}
    assert definition.transient == {"pool", "log"}


@pytest.mark.parametrize("kind", [Pooled, PooledMore, PooledDataclass])
def test_what_is_transient_does_not_hinder_storing(kind: type) -> None:
    definition = as_actor(kind)
    actor = definition.create()

    actor.pool = threading.Lock()

    assert not hasattr(definition.decode_state(definition.encode_state(actor)), "pool")


def test_activation_calls_the_methods_of_bases_first() -> None:
    definition = as_actor(PooledMore)
    actor = definition.create()

    definition.activate(actor)

    assert actor.log == ["base", "derived"]


def test_an_unresolvable_annotation_is_still_read_as_transient() -> None:
    class Lazy:
        pool: Transient[Nowhere]  # type: ignore[name-defined]  # noqa: F821
        status: str = "new"

    definition = as_actor(Lazy)

    assert definition.transient == {"pool"}
    assert definition.create().status == "new"


@pytest.mark.parametrize("kind", [WithInit, WithDefaults, WithSlots, AsSlottedDataclass, AsAttrs, AsStruct])
def test_what_cannot_be_stored_is_named_from_self_on(kind: type) -> None:
    definition = as_actor(kind)
    actor = definition.create()
    actor.lines = [1, {"pool": threading.Lock()}]

    with pytest.raises(NotSerializable) as refused:
        definition.encode_state(actor)

    assert refused.value.path == "self.lines[1]['pool']"


@pytest.mark.promise("damage-costs-one-actor")
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"junk", b"\x80\x05]\x94.", b"[1]", b"\x91\x01", b'{"status": 3}', b"\x81\xa6status\x03"])
def test_damaged_state_raises_one_error_only(codec: str, data: bytes) -> None:
    definition = as_actor(WithInit, codec=codec)

    with pytest.raises(NotDeserializable):
        definition.decode_state(data)


def test_an_attribute_that_a_class_has_no_more_slot_for_is_refused() -> None:
    stored = as_actor(WithInit).encode_state(as_actor(SlotsAndDict).create())
    smaller = as_actor(AsStruct)

    with pytest.raises(NotDeserializable, match="AsStruct cannot hold it"):
        smaller.decode_state(stored.replace(b"status", b"statvs"))


def test_declared_signals_are_no_state() -> None:
    class Order:
        approved: Any = signal(str)

    assert vars(as_actor(Order).create()) == {}


class MutableDefault:
    """Shares a list among all."""

    lines: list[str] = []  # noqa: RUF012


class RequiredArgument:
    """Cannot be made without arguments."""

    def __init__(self, status: str) -> None:
        self.status = status


@dataclasses.dataclass
class RequiredTransient:
    """Cannot be made either, and for no good reason."""

    pool: Transient[threading.Lock]


class Abstract(abc.ABC):
    """Cannot be made at all."""

    @abc.abstractmethod
    def total(self) -> int:
        """Be missing."""


class Items(list[str]):
    """Keeps data beside its attributes."""


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda: MutableDefault, r"lines: list = field\(default_factory=list\)"),
        (lambda: RequiredArgument, "requires status"),
        (lambda: RequiredTransient, r"pool: Transient\[…\] = field\(init=False\)"),
        (lambda: Abstract, "total"),
        (lambda: Items, "Keep a list in an attribute"),
    ],
)
def test_a_class_that_cannot_hold_state_is_refused(make: Callable[[], type], cure: str) -> None:
    with pytest.raises(DefinitionError, match=cure):
        durable_actor(make())
