"""Comparison after replay: what the wall clock made is set, in place; whatever else differs is told by its path."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import math
import random
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import anyio
import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.actors import PickleCodec
from perdure.actors._comparison import StateDiffers, reconcile
from perdure.actors._digest import digest

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Colour(Enum):
    """A leaf."""

    RED = 1
    BLUE = 2


class Line:
    """A plain object."""

    def __init__(self, at: object = None) -> None:
        self.at = at


class Slotted:
    """The same with slots, one of them private."""

    __slots__ = ("__mine", "at")

    def __init__(self, at: object = None) -> None:
        self.at = at
        self.__mine = 1


class Own:
    """A state of its own making, in which attributes have other names."""

    def __init__(self, at: object = None) -> None:
        self.at = at

    def __getstate__(self) -> object:
        return {"when": self.at}

    def __setstate__(self, state: Any) -> None:
        self.at = state["when"]


class Rows(list[Any]):
    """A list with an attribute."""

    at: object = None


@dataclasses.dataclass
class AsDataclass:
    """A dataclass."""

    at: object = None


@dataclasses.dataclass(slots=True)
class AsSlottedDataclass:
    """A dataclass with slots."""

    at: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A frozen dataclass."""

    at: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlotted:
    """A frozen dataclass with slots."""

    at: object = None


@attrs.define
class AsAttrs:
    """An attrs class."""

    at: object = None


@attrs.frozen
class FrozenAttrs:
    """A frozen attrs class."""

    at: object = None


class AsStruct(msgspec.Struct):
    """A Struct."""

    at: object = None


class FrozenStruct(msgspec.Struct, frozen=True):
    """A frozen Struct."""

    at: object = None


class AsModel(pydantic.BaseModel):
    """A pydantic model."""

    at: object = None


class FrozenModel(pydantic.BaseModel):
    """A frozen pydantic model."""

    model_config = pydantic.ConfigDict(frozen=True)

    at: object = None


class Pair(NamedTuple):
    """A named tuple."""

    at: object = None


MUTABLE: list[Any] = [Line, Slotted, AsDataclass, AsSlottedDataclass, AsAttrs, AsStruct, AsModel]
IMMUTABLE: list[Any] = [Frozen, FrozenSlotted, FrozenAttrs, FrozenStruct, FrozenModel, Own]


def copied(value: Any) -> Any:
    """What a store gives back."""
    return PickleCodec().decode(PickleCodec().encode(value))


def mended(rebuilt: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """The paths that were set; attributes of the actor itself are set too."""
    return reconcile(rebuilt, stored, rebuilt.__setitem__)


def difference(rebuilt: object, stored: object) -> StateDiffers:
    """How an attribute `it` is told to differ."""
    with pytest.raises(StateDiffers) as differs:
        mended({"it": rebuilt}, {"it": stored})
    return differs.value


LEAVES: list[tuple[object, object]] = [
    *((True, False), (1, 2), (1, True), (1.0, 1), (0.0, -0.0), (1.5, math.nan), (1j, 2j), ("a", "b"), (b"a", b"b"), (None, "a")),
    *((NOON, NOON + timedelta(1)), (date(2026, 1, 1), NOON), (NOON.time(), NOON.timetz()), (timedelta(1), timedelta(2))),
    *((Decimal("1.0"), Decimal("1.00")), (UUID(int=1), UUID(int=2)), (Colour.RED, Colour.BLUE), (Fraction(1, 2), Fraction(1, 3))),
    *((PurePosixPath("a"), PurePosixPath("b")), (re.compile("a"), re.compile("b")), (range(1), range(2))),
]


@pytest.mark.parametrize(("rebuilt", "stored"), LEAVES)
def test_a_leaf_that_differs_is_set(rebuilt: object, stored: object) -> None:
    state, line = {"at": rebuilt, "line": Line(rebuilt)}, Line(stored)

    paths = mended(state, {"at": stored, "line": line})

    assert paths == ["self.at", "self.line.at"]
    assert (repr(state["at"]), repr(state["line"].at)) == (repr(stored), repr(stored))  # type: ignore[attr-defined]


@pytest.mark.parametrize("leaf", [*(pair[0] for pair in LEAVES), math.nan, -math.inf, ..., NOON.tzinfo])
def test_an_equal_leaf_is_left_alone(leaf: object) -> None:
    assert mended({"at": leaf, "line": Line(leaf)}, copied({"at": leaf, "line": Line(leaf)})) == []


@pytest.mark.parametrize("kind", MUTABLE)
def test_an_attribute_is_set_in_the_very_object(kind: Any) -> None:
    alias = kind(at="then")

    paths = mended({"lines": [1, alias]}, {"lines": [1, kind(at="now")]})

    assert (paths, alias.at) == (["self.lines[1].at"], "now")


@pytest.mark.parametrize("kind", IMMUTABLE)
def test_a_leaf_in_an_immutable_object_is_refused(kind: Any) -> None:
    error = difference([kind(at="then")], [kind(at="now")])

    assert (error.path.removesuffix(".when").removesuffix(".at"), error.rebuilt, error.stored) == ("self.it[0]", "'then'", "'now'")


@pytest.mark.parametrize("kind", IMMUTABLE)
def test_a_list_in_an_immutable_object_is_mended(kind: Any) -> None:
    rebuilt = kind(at=[1, Line("then")])

    paths = mended({"it": rebuilt}, {"it": kind(at=[1, Line("now")])})

    assert rebuilt.at[1].at == "now"
    assert len(paths) == 1


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda at: [0, at], "self.it[1]"),
        (lambda at: deque([0, at], 5), "self.it[1]"),
        (lambda at: {"a": {1: at}}, "self.it['a'][1]"),
        (lambda at: defaultdict(list, {(1, None): at}), "self.it[(1, None)]"),
        (lambda at: OrderedDict(a=at), "self.it['a']"),
        (lambda at: Counter({"a": at}), "self.it['a']"),
        (lambda at: ({"a": at},), "self.it[0]['a']"),
        (lambda at: {Frozen(1): at}, "self.it[Frozen(at=1)]"),
    ],
)
def test_a_leaf_in_a_container_is_named_as_code(make: Callable[[object], Any], path: str) -> None:
    rebuilt, stored = make(1.5), make(2.5)

    assert mended({"it": rebuilt}, {"it": stored}) == [path]
    assert repr(rebuilt) == repr(stored)


def test_a_list_with_attributes_is_mended_whole() -> None:
    rebuilt, stored = Rows([1]), Rows([2])
    rebuilt.at, stored.at = 3, 4

    assert mended({"it": rebuilt}, {"it": stored}) == ["self.it[0]", "self.it.at"]
    assert (rebuilt, rebuilt.at) == ([2], 4)


@pytest.mark.parametrize(
    ("rebuilt", "stored", "told"),
    [
        ([1], (1,), ("self.it", "[1]", "(1,)")),
        (None, [], ("self.it", "None", "[]")),
        ([1, 2], [1], ("self.it[1]", "2", "nothing")),
        ([1], [1, 2], ("self.it[1]", "nothing", "2")),
        ({"a": 1, "b": 2}, {"a": 1}, ("self.it['b']", "2", "nothing")),
        ({1: 1}, {True: 1}, ("self.it[1]", "1", "nothing")),
        ({1, 2}, {1, 3}, ("self.it", "{1, 2}", "{1, 3}")),
        (frozenset("a"), frozenset("b"), ("self.it", "frozenset({'a'})", "frozenset({'b'})")),
        ((1, "then"), (1, "now"), ("self.it[1]", "'then'", "'now'")),
        (Pair("then"), Pair("now"), ("self.it[0]", "'then'", "'now'")),
        (deque([1], 1), deque([1], 2), ("self.it", "deque([1])", "deque([1])")),
        (bytearray(b"a"), bytearray(b"b"), ("self.it", "b'a'", "b'b'")),
        (math.sin, math.cos, ("self.it", "<built-in function sin>", "<built-in function cos>")),
        (ValueError("a"), ValueError("b"), ("self.it", "'a'", "'b'")),
    ],
)
def test_another_shape_is_told_by_its_path(rebuilt: object, stored: object, told: tuple[str, str, str]) -> None:
    error = difference(rebuilt, stored)

    assert error.args == told
    assert type(error)(*error.args).args == told


def test_another_class_or_attribute_is_another_shape() -> None:
    more = Line()
    more.new = 1  # type: ignore[attr-defined]

    assert difference(Line(), Slotted()).path == "self.it"
    assert difference(Line(), more).args == ("self.it.new", "nothing", "1")
    assert difference(Line().__init__, Line().__eq__).path == "self.it"  # type: ignore[misc]


def test_an_attribute_of_the_actor_that_is_missing_is_told() -> None:
    with pytest.raises(StateDiffers, match=r"self\.at is nothing after replay, and 1 in the snapshot"):
        mended({}, {"at": 1})


def test_the_order_of_a_dict_does_not_matter() -> None:
    assert mended({"it": {"a": 1, "b": [2]}}, {"it": {"b": [2], "a": 1}}) == []


def test_members_of_a_set_are_found_by_their_value() -> None:
    rebuilt = {Frozen(number) for number in range(9)}

    assert mended({"it": rebuilt | {"a"}}, {"it": copied(rebuilt) | {"a"}}) == []


def test_objects_in_a_set_that_lead_in_a_circle_agree() -> None:
    line = Line()
    line.at = {line, Line()}

    assert mended({"it": line}, copied({"it": line})) == []
    assert difference({line}, {line, Line(line)}).path == "self.it"


def test_a_circle_is_walked_once() -> None:
    ring: list[Any] = [1, Line()]
    ring[1].at = ring
    stored = copied(ring)
    stored[0] = 2

    assert mended({"it": ring}, {"it": stored}) == ["self.it[0]"]


def test_a_long_chain_is_walked_without_recursion() -> None:
    chain, stored = Line(1), Line(2)
    for _ in range(1_000):
        chain, stored = Line(chain), Line(stored)

    assert mended({"it": chain}, {"it": stored}) == ["self.it" + ".at" * 1_001]


def test_the_two_actors_are_the_same_to_their_states() -> None:
    rebuilt, stored = Line(1), Line(2)
    rebuilt.me, stored.me = [rebuilt], [stored]  # type: ignore[attr-defined]

    paths = reconcile(vars(rebuilt), vars(stored), functools.partial(setattr, rebuilt), actors=(rebuilt, stored))

    assert (paths, rebuilt.at) == (["self.at"], 2)
    assert rebuilt.me == [rebuilt]  # type: ignore[attr-defined]


def test_one_object_where_two_were_stored_agrees_if_they_are_equal() -> None:
    shared = Line(1)

    assert mended({"a": shared, "b": shared}, {"a": Line(1), "b": Line(1)}) == []
    assert mended({"a": shared, "b": shared}, {"a": Line(2), "b": Line(2)}) == ["self.a.at"]


def test_one_object_cannot_become_two_that_differ() -> None:
    shared = Line(1)

    with pytest.raises(StateDiffers, match=r"self\.a\.at is 3 after replay, and 2"):
        mended({"a": shared, "b": shared}, {"a": Line(2), "b": Line(3)})


def test_what_a_class_validates_is_set_by_its_rules() -> None:
    class Strict(Line):
        def __setattr__(self, name: str, value: object) -> None:
            assert value != "now"
            super().__setattr__(name, value)

    stored = Strict("then")
    vars(stored)["at"] = "now"

    assert difference(Strict("then"), stored).path == "self.it.at"


def test_arguments_of_a_partial_are_compared() -> None:
    rebuilt, stored = functools.partial(Line, [1]), functools.partial(Line, [2])

    assert len(mended({"it": rebuilt}, {"it": stored})) == 1
    assert rebuilt().at == [2]
    assert difference(rebuilt, functools.partial(Line, 2)).path.startswith("self.it")


def test_a_random_generator_is_compared_by_its_state() -> None:
    assert mended({"it": random.Random(1)}, {"it": random.Random(1)}) == []
    assert difference(random.Random(1), random.Random(2)).path.startswith("self.it")


@pytest.mark.parametrize("make", [asyncio.Event, asyncio.Lock, asyncio.Condition, asyncio.Queue, anyio.Event, anyio.Lock, anyio.Condition])
def test_a_primitive_is_compared_by_what_is_stored(make: Callable[[], Any]) -> None:
    async def bound() -> dict[str, Any]:
        return {"it": make()}

    assert mended(asyncio.run(bound()), copied({"it": make()})) == []


def test_a_primitive_is_never_replaced() -> None:
    event = asyncio.Event()
    event.set()

    assert difference(event, asyncio.Event()).args == ("self.it", "True", "False")
    assert difference(event, asyncio.Lock()).path == "self.it"


def test_items_of_a_queue_are_mended_in_place() -> None:
    queues: list[asyncio.Queue[Any]] = [asyncio.Queue(), asyncio.Queue()]
    for at, queue in enumerate(queues):
        queue.put_nowait(at)

    assert mended({"it": queues[0]}, {"it": queues[1]}) == ["self.it[0]"]
    assert queues[0].get_nowait() == 1


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals(allow_nan=False)
keys = st.text() | st.integers() | st.tuples(st.text(), st.none())
values = st.recursive(
    leaves | st.frozensets(keys) | st.sets(keys),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.lists(inner).map(deque)
        | st.dictionaries(keys, inner)
        | st.builds(Line, inner)
        | st.builds(Slotted, inner)
        | st.builds(Frozen, inner)
        | st.builds(AsStruct, inner)
    ),
    max_leaves=20,
)
states = st.dictionaries(st.sampled_from("abc"), values)


def age(value: Any) -> None:
    """Change every leaf that can be changed."""
    if isinstance(value, list | deque | dict):
        for place in list(value if isinstance(value, dict) else range(len(value))):
            value[place] = aged(value[place])
    elif isinstance(value, tuple):
        for item in value:
            age(item)
    elif isinstance(value, Frozen):
        age(value.at)
    elif hasattr(value, "at"):
        value.at = aged(value.at)


def aged(value: Any) -> Any:
    """Another leaf in the place of a leaf, or the same object with other leaves."""
    if value is None or isinstance(value, bool | int | float | str | bytes | datetime | Decimal):
        return "later" if value != "later" else None
    age(value)
    return value


@given(states)
def test_a_state_agrees_with_its_copy(state: dict[str, Any]) -> None:
    assert mended(state, copied(state)) == []


@given(states)
def test_states_agree_once_their_leaves_are_set(state: dict[str, Any]) -> None:
    stored = copied(state)
    age(stored)
    differed = digest(state) != digest(stored)

    paths = mended(state, stored)

    assert digest(state) == digest(stored)
    assert bool(paths) == differed
    assert mended(state, stored) == []


@pytest.mark.promise("replay-is-checked")
@given(values, values)
def test_two_values_end_up_equal_or_are_told_apart(rebuilt: Any, stored: Any) -> None:
    state = {"it": rebuilt}
    with contextlib.suppress(StateDiffers):
        mended(state, {"it": stored})
        assert digest(state) == digest({"it": stored})
