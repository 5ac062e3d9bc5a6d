"""Codecs: what goes in comes out, what cannot is refused by name, and nothing is shared."""

from __future__ import annotations

import contextlib
import pickle
import sys
import threading
import types
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import Codec, DefinitionError, NotDeserializable, NotSerializable, PickleCodec, Placeholder, codec_named, rename
from perdure.actors._renames import RENAMES

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Line:
    """What an order may hold."""

    def __init__(self, sku: str = "") -> None:
        self.sku = sku
        self.socket: object = None


class Slotted:
    """The same with slots."""

    __slots__ = ("handle",)

    def __init__(self, handle: object) -> None:
        self.handle = handle


class Stubborn:
    """Refuses to be pickled, in its own words."""

    def __reduce_ex__(self, protocol: object) -> str:
        raise LookupError("not today")


@pytest.fixture(params=["pickle", "msgspec", "msgspec-json"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """Each codec that comes with the package."""
    return codec_named(request.param)


@pytest.fixture
def shop() -> Iterator[Any]:
    """An importable module, without anything in it yet; renames are forgotten afterwards."""
    module = types.ModuleType("corner_shop")
    sys.modules["corner_shop"] = module
    yield module
    del sys.modules["corner_shop"]
    RENAMES.clear()


def defined(shop: Any, name: str) -> type:
    """A new class in the shop."""
    cls = type(name, (Line,), {"__module__": shop.__name__})
    setattr(shop, name, cls)
    return cls


@given(plain)
@pytest.mark.parametrize("name", ["pickle", "msgspec", "msgspec-json"])
def test_plain_data_comes_back_equal_from_every_codec(name: str, value: object) -> None:
    codec = codec_named(name)

    assert codec.decode(codec.encode(value)) == value


@pytest.mark.promise("nothing-mutable-crosses")
def test_what_is_decoded_shares_nothing_with_what_was_encoded(codec: Codec) -> None:
    lines = {"n": [1]}

    decoded = codec.decode(codec.encode(lines))
    lines["n"].append(2)

    assert decoded == {"n": [1]}


def test_a_codec_is_found_by_the_name_it_knows(codec: Codec) -> None:
    assert codec_named(codec.name) is codec


def test_an_unknown_codec_is_refused_naming_what_exists() -> None:
    with pytest.raises(DefinitionError, match="pickle, msgspec, msgspec-json"):
        codec_named("yaml")


def test_msgspec_brings_back_annotated_types(codec: Codec) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    decoded = codec.decode(codec.encode({"at": (noon, Decimal("1.10"))}), dict[str, tuple[datetime, Decimal]])

    assert decoded == {"at": (noon, Decimal("1.10"))}


def test_lambdas_and_local_classes_are_stored_by_value() -> None:
    class Local:
        tax = staticmethod(lambda cents: cents // 5)

    decoded = PickleCodec().decode(PickleCodec().encode(Local()))

    assert decoded.tax(10) == 2  # type: ignore[attr-defined]


def test_beside_a_lambda_other_classes_stay_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "Line", Line, raising=False)
    monkeypatch.setattr(Line, "__module__", "__main__")

    decoded = PickleCodec().decode(PickleCodec().encode([Line(), lambda: None]))

    assert type(decoded[0]) is Line  # type: ignore[index]


def with_socket() -> Line:
    """A line that holds what cannot be stored."""
    line = Line()
    line.socket = threading.Lock()
    return line


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (threading.Lock, "value"),
        (lambda: [1, 2, with_socket()], "value[2].socket"),
        (lambda: {"a": (with_socket(),)}, "value['a'][0].socket"),
        (lambda: {Stubborn(): 1}, "(the key"),
        (lambda: defaultdict(int, {(1, 2): Slotted(threading.Lock())}), "value[(1, 2)].handle"),
        (lambda: deque([Stubborn()]), "value[0]"),
        (lambda: {frozenset({Stubborn()})}, "(the member"),
    ],
)
def test_what_pickle_refuses_is_named_by_its_path(make: Callable[[], object], path: str) -> None:
    with pytest.raises(NotSerializable) as refused:
        PickleCodec().encode(make())

    assert path in refused.value.path
    assert refused.value.reason


def test_what_msgspec_refuses_is_named_by_its_path() -> None:
    with pytest.raises(NotSerializable, match=r"value\['lines'\]\[1\] is a Line"):
        codec_named("msgspec").encode({"lines": ["sku", Line()]})


def test_a_value_nested_too_deeply_is_refused(codec: Codec) -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(NotSerializable, match="nested too deeply"):
        codec.encode(nested)


def test_an_endless_structure_is_refused_by_msgspec_alone() -> None:
    ring: list[object] = []
    ring.append(ring)

    again = PickleCodec().decode(PickleCodec().encode(ring))

    assert again[0] is again  # type: ignore[index]
    with pytest.raises(NotSerializable):
        codec_named("msgspec").encode(ring)


@pytest.mark.promise("damage-costs-one-actor")
@given(st.binary(max_size=40))
@pytest.mark.parametrize("name", ["msgspec", "msgspec-json"])
def test_damaged_bytes_raise_one_error_only(name: str, data: bytes) -> None:
    with contextlib.suppress(NotDeserializable):
        assert isinstance(codec_named(name).decode(data, dict[str, int]), dict)


@pytest.mark.parametrize("data", [b"", b"\x80", b"junk", pickle.dumps([1, 2, 3])[:-2], b"cno_such_module\nThing\n."])
def test_damaged_pickles_raise_one_error_only(data: bytes) -> None:
    with pytest.raises(NotDeserializable, match="rename"):
        PickleCodec().decode(data)


@pytest.mark.promise("moved-classes-load")
def test_a_class_that_moved_is_found_by_its_rename(shop: Any) -> None:
    stored = PickleCodec().encode(defined(shop, "Basket")("sku-1"))
    del shop.Basket
    defined(shop, "Cart")

    rename("corner_shop.Basket", "corner_shop.Cart")

    assert type(PickleCodec().decode(stored)) is shop.Cart


def test_a_module_that_moved_takes_its_classes_along(shop: Any) -> None:
    stored = PickleCodec().encode(defined(shop, "Basket")("sku-1"))
    sys.modules["corner_shop"] = types.ModuleType("corner_shop")
    sys.modules["corner_shop.sales"] = shop

    rename("corner_shop", "corner_shop.sales")
    decoded = PickleCodec().decode(stored)
    del sys.modules["corner_shop.sales"]

    assert type(decoded) is shop.Basket


def test_a_rename_wins_over_what_now_has_the_old_name(shop: Any) -> None:
    stored = PickleCodec().encode(defined(shop, "Basket")("sku-1"))
    defined(shop, "Cart")

    rename("corner_shop.Basket", "corner_shop.Cart")

    assert type(PickleCodec().decode(stored)) is shop.Cart


@pytest.mark.parametrize(("old", "new"), [("corner_shop.Basket", "not a name"), ("", "corner_shop.Cart"), ("a.b", "d.e")])
@pytest.mark.usefixtures("shop")
def test_a_rename_that_makes_no_sense_is_refused(old: str, new: str) -> None:
    rename("a.b", "a.c")

    with pytest.raises(DefinitionError):
        rename(old, new)


def test_a_class_that_is_gone_becomes_a_placeholder_if_asked(shop: Any) -> None:
    stored = PickleCodec().encode(defined(shop, "Basket")("sku-1"))
    del shop.Basket

    decoded = PickleCodec(placeholders=True).decode(stored)

    assert isinstance(decoded, Placeholder)
    assert (repr(decoded), vars(decoded)["sku"]) == ("<Placeholder for corner_shop.Basket>", "sku-1")
    with pytest.raises(NotSerializable, match="cannot be stored again"):
        PickleCodec().encode(decoded)


def test_a_placeholder_keeps_what_a_container_held(shop: Any) -> None:
    shop.Bag = type("Bag", (dict,), {"__module__": "corner_shop"})
    shop.Row = type("Row", (list,), {"__module__": "corner_shop"})
    stored = PickleCodec().encode([shop.Bag(a=1), shop.Row([1]), shop.Row([1, 2])])
    del shop.Bag, shop.Row

    decoded: Any = PickleCodec(placeholders=True).decode(stored)

    assert [each.items for each in decoded] == [[("a", 1)], [1], [1, 2]]
