"""Decorators: what a class comes to, and what is refused at the line that is wrong."""

from __future__ import annotations

import dataclasses
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from perdure.actors import (
    Codec,
    DefinitionError,
    NotSerializable,
    PickleCodec,
    Retry,
    UnknownHandler,
    WrongArguments,
    durable_actor,
    on_activate,
    on_event,
    on_signal,
    query,
    signal,
)
from perdure.actors._define import Definition, definition_of
from perdure.actors._handlers import Handler


class Address(msgspec.Struct):
    """A typed argument."""

    town: str


class Money:
    """An argument that has no JSON form."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method as users' decorators do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@durable_actor
class Order:
    """An order with a handler of every kind."""

    approved = signal(str)
    paused = signal()
    note = signal(str | None)

    @on_event
    def add_line(self, sku: str, count: int = 1) -> int:
        """Add a line."""
        return count

    @on_event
    async def ship(self, address: Address, /, *, fast: bool) -> Address:
        """Ship it."""
        return address

    @on_event
    def tag(self, /, *tags: str, **values: int) -> None:
        """Tag it."""

    @on_event
    def pay(self, money: Money) -> None:
        """Pay for it."""

    @on_event
    @checked
    def recount(self, by: str) -> str:
        """Count again."""
        return by

    @on_signal
    def hurry(self, why: str) -> None:
        """Hurry up."""

    @query
    def progress(self) -> str:
        """Say how far it is."""
        return "new"


@durable_actor(name="rush", version=3, mailbox_limit=None, dedupe_for=timedelta(hours=1), retry=Retry(max_attempts=5))
class Rush(Order):
    """An order that inherits handlers, overrides one and adds one."""

    approved = signal(str)

    async def add_line(self, sku: str, count: int = 2) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Add a line quickly."""
        return count

    @on_event
    def faster(self) -> None:
        """Go faster."""


@pytest.fixture
def order() -> Definition:
    """The definition of Order."""
    return definition_of(Order)


def with_codec(name: str) -> Definition:
    """The definition of an order that is stored with another codec."""
    return definition_of(durable_actor(name="Order", codec=name)(type("Order", (Order,), {})))


def test_a_decorator_returns_the_function_itself() -> None:
    def add_line(self: object, sku: str) -> None: ...

    assert on_event(add_line) is add_line  # type: ignore[comparison-overlap]


def test_handlers_are_called_as_plain_methods_too() -> None:
    assert Order().add_line("sku", 3) == 3


def test_a_definition_names_what_the_class_says(order: Definition) -> None:
    assert (order.name, order.version, order.codec.name) == ("Order", 1, "pickle")
    assert list(order.handlers) == ["add_line", "ship", "tag", "pay", "recount", "hurry", "progress"]
    assert list(order.waits) == ["approved", "paused", "note"]
    assert [name for name, handler in order.handlers.items() if handler.is_async] == ["ship"]


def test_options_are_kept_as_given() -> None:
    rush = definition_of(Rush)

    assert (rush.name, rush.version, rush.mailbox_limit) == ("rush", 3, sys.maxsize)
    assert (rush.dedupe_for, rush.retry) == (timedelta(hours=1), Retry(max_attempts=5))


def test_a_codec_of_ones_own_is_taken() -> None:
    class Sealed:
        name = "sealed"

        def encode(self, value: object) -> bytes:
            return PickleCodec().encode(value)[::-1]

        def decode(self, data: bytes, type: object = object) -> object:  # noqa: A002
            return PickleCodec().decode(data[::-1])

    sealed: Codec = Sealed()
    handler = definition_of(durable_actor(codec=sealed)(type("Order", (Order,), {}))).event("add_line")

    assert handler.decode_call(handler.encode_call(("sku",), {"count": 2})) == (("sku", 2), {})


def test_handlers_are_found_by_function_and_by_name(order: Definition) -> None:
    assert order.event(Order.add_line) is order.event("add_line")
    assert order.signal(Order.hurry) is order.signal_handler("hurry")
    assert order.signal(Order.approved) is order.waits["approved"]
    assert order.query(Order.progress).function is vars(Order)["progress"]


def test_a_subclass_inherits_and_overrides_by_name() -> None:
    rush = definition_of(Rush)

    assert rush.event(Order.add_line) is rush.event(Rush.add_line)
    assert rush.event(Order.add_line).function is vars(Rush)["add_line"]
    assert rush.event(Order.add_line).is_async
    assert rush.signal(Order.approved) is rush.signal(Rush.approved)


def test_the_decorator_goes_above_one_that_makes_the_class_again() -> None:
    @durable_actor
    @dataclasses.dataclass(slots=True)
    class Slotted:
        approved = signal(str)
        status: str = "new"

        @on_event
        def close(self) -> None:
            self.status = "closed"

    definition = definition_of(Slotted)

    assert (definition.event(Slotted.close).name, definition.signal(Slotted.approved).name) == ("close", "approved")


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda order: order.event("ad_line"), ["no event 'ad_line'", "Did you mean 'add_line'?", "ship"]),
        (lambda order: order.query(Order.add_line), ["an event", "await ref.ask(Order.add_line, …)", "await ref.query(Order.add_line, …)"]),
        (lambda order: order.event(Order.hurry), ["a signal", "await send_signal(ref, Order.hurry, …)"]),
        (lambda order: order.signal("aproved"), ["Did you mean 'approved'?", "hurry"]),
        (lambda order: order.event(Rush.faster), ["no event 'Rush.faster'"]),
        (lambda order: order.event(["add_line"]), ["no event"]),
        (lambda order: order.signal_handler("approved"), ["declared signal"]),
        (lambda order: definition_of(durable_actor(type("Empty", (), {}))).event("x"), ["There is none."]),
    ],
)
def test_an_unknown_handler_is_refused_showing_what_was_meant(
    order: Definition, look: Callable[[Definition], object], words: list[str]
) -> None:
    with pytest.raises(UnknownHandler) as refused:
        look(order)

    assert [word for word in words if word not in str(refused.value)] == []


CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("add_line", ("sku",), {}),
    ("add_line", ("sku", 3), {}),
    ("ship", (Address("Ulm"),), {"fast": True}),
    ("tag", (), {}),
    ("tag", ("a", "b"), {}),
    ("tag", ("a", "b"), {"c": 1}),
    ("recount", ("ada",), {}),
    ("progress", (), {}),
]


@pytest.mark.parametrize("codec", ["pickle", "msgspec", "msgspec-json"])
@pytest.mark.parametrize(("name", "args", "kwargs"), CALLS)
def test_a_call_comes_back_from_its_bytes(codec: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    handler = with_codec(codec).handlers[name]

    assert handler.decode_call(handler.encode_call(args, kwargs)) == (args, kwargs)


@pytest.mark.parametrize("codec", ["pickle", "msgspec"])
def test_the_same_arguments_make_the_same_bytes(codec: str) -> None:
    handler = with_codec(codec).event("add_line")

    assert (
        handler.encode_call(("sku", 2), {})
        == handler.encode_call(("sku",), {"count": 2})
        == handler.encode_call((), {"count": 2, "sku": "sku"})
    )


@pytest.mark.parametrize("codec", ["pickle", "msgspec", "msgspec-json"])
def test_a_result_comes_back_as_its_annotated_type(codec: str) -> None:
    handler = with_codec(codec).event("ship")

    assert handler.decode_result(handler.encode_result(Address("Ulm"))) == Address("Ulm")


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "problem"),
    [
        ("add_line", (), {}, "missing a required argument: 'sku'"),
        ("add_line", ("sku", 1, 2), {}, "too many positional arguments"),
        ("add_line", ("sku",), {"colour": "red"}, "colour"),
        ("ship", (Address("Ulm"),), {}, "'fast'"),
        ("progress", (1,), {}, "too many positional arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(order: Definition, name: str, args: Any, kwargs: Any, problem: str) -> None:
    with pytest.raises(WrongArguments, match=problem) as refused:
        order.handlers[name].encode_call(args, kwargs)

    assert str(order.handlers[name].signature).partition(" ->")[0].replace("'", "") in str(refused.value).replace("'", "")


@pytest.mark.parametrize(("args", "kwargs"), [((["a", threading.Lock()],), {}), ((), {"sku": ["a", threading.Lock()]})])
def test_an_argument_that_cannot_be_stored_is_named(order: Definition, args: Any, kwargs: Any) -> None:
    with pytest.raises(NotSerializable) as refused:
        order.event("add_line").encode_call(args, kwargs)

    assert refused.value.path == "sku[1]"


def test_a_result_that_cannot_be_stored_is_named(order: Definition) -> None:
    with pytest.raises(NotSerializable, match=r"Order\.add_line\(\)\[0\] is a lock"):
        order.event("add_line").encode_result([threading.Lock()])


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("add_line", b'["sku", 3]', (("sku", 3), {})),
        ("add_line", b'{"count": 3, "sku": "sku"}', (("sku", 3), {})),
        ("add_line", b'{"sku": "sku"}', (("sku",), {})),
        ("ship", b'{"address": {"town": "Ulm"}, "fast": true}', ((Address("Ulm"),), {"fast": True})),
        ("tag", b'["a", "b"]', (("a", "b"), {})),
        ("tag", b'{"tags": ["a"], "c": 1}', (("a",), {"c": 1})),
        ("progress", b"[]", ((), {})),
    ],
)
def test_json_arguments_are_converted_to_the_annotations(order: Definition, name: str, payload: bytes, expected: object) -> None:
    assert order.handlers[name].decode_json(payload) == expected


@pytest.mark.parametrize(
    ("name", "payload", "problem"),
    [
        ("add_line", b'["sku", "three"]', "Expected `int`, got `str`"),
        ("add_line", b'{"count": 3}', "sku"),
        ("add_line", b'{"sku": "a", "colour": 1}', "colour"),
        ("add_line", b"[]", "missing a required argument: 'sku'"),
        ("add_line", b"[1, 2, 3]", "too many"),
        ("ship", b'[{"town": "Ulm"}]', "fast"),
        ("tag", b'{"c": "x"}', "Expected `int`"),
        ("add_line", b"3", "array or an object"),
        ("add_line", b"{", "not JSON"),
        ("add_line", b"\xff", "not JSON"),
        ("pay", b"[{}]", "no JSON form"),
    ],
)
def test_json_arguments_that_do_not_fit_are_refused(order: Definition, name: str, payload: bytes, problem: str) -> None:
    with pytest.raises(WrongArguments, match=problem):
        order.handlers[name].decode_json(payload)


def test_a_declared_signal_takes_what_it_was_declared_with(order: Definition) -> None:
    approved, paused, note = (order.waits[name] for name in ("approved", "paused", "note"))

    assert approved.decode_call(approved.encode_call(("ada",), {})) == (("ada",), {})
    assert paused.decode_call(paused.encode_call((), {})) == ((), {})
    assert note.decode_json(b"[null]") == ((None,), {})


@pytest.mark.parametrize(("name", "args"), [("approved", ()), ("paused", (1,)), ("note", (1, 2))])
def test_a_declared_signal_refuses_another_number_of_payloads(order: Definition, name: str, args: tuple[int, ...]) -> None:
    with pytest.raises(WrongArguments):
        order.waits[name].encode_call(args, {})


def test_annotations_may_name_what_is_defined_later() -> None:
    @durable_actor
    class Later:
        @on_event
        def take(self, address: DefinedLater) -> None: ...

    assert definition_of(Later).event("take").decode_json(b"[3]") == ((3,), {})


DefinedLater = int


def test_an_annotation_that_leads_nowhere_makes_a_handler_opaque() -> None:
    @durable_actor
    class Nowhere:
        @on_event
        def take(self, address: DefinedNever) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    handler = definition_of(Nowhere).event("take")

    assert handler.schema is None
    assert handler.encode_call((1,), {})


def no_self() -> None: ...
def generator(self: object) -> Iterator[int]:
    yield 1


async def waiting(self: object) -> None: ...
def with_arguments(self: object, more: int) -> None: ...


@pytest.mark.parametrize(
    ("decorate", "function", "problem"),
    [
        (on_event, no_self, "no `self`"),
        (on_event, generator, "generator"),
        (on_event, staticmethod(waiting), "plain method"),
        (on_signal, waiting, "cannot wait"),
        (query, waiting, "def waiting"),
        (on_activate, waiting, "cannot wait"),
        (on_activate, with_arguments, "takes arguments"),
    ],
)
def test_a_function_that_cannot_be_a_handler_is_refused(decorate: Callable[[Any], object], function: object, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        decorate(function)


def test_two_handlers_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two handlers of this name"):

        class Twice:
            @on_event
            def close(self) -> None: ...  # pyright: ignore[reportRedeclaration]

            @on_signal  # type: ignore[no-redef]
            def close(self) -> None: ...  # noqa: F811


def test_one_method_is_of_one_kind() -> None:
    def close(self: object) -> None: ...

    on_event(close)

    with pytest.raises(DefinitionError, match="already"):
        query(close)


BODIES: list[tuple[dict[str, Any], str]] = [
    ({"progress": on_event(lambda self: None)}, "marked as event here and as query in a base"),
    ({"add_line": None}, "no plain method"),
    ({"hurry": waiting}, "cannot wait"),
    ({"add_line": signal(str)}, "no plain method"),
    ({"other": Order.approved}, "declared signal 'approved'"),
]


@pytest.mark.parametrize(("body", "problem"), BODIES)
def test_a_subclass_cannot_make_a_name_mean_something_else(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        durable_actor(type("Rush", (Order,), body))


@pytest.mark.parametrize(
    "options",
    [
        *({"version": 0}, {"version": True}, {"version": "1"}, {"name": "n" * 65}, {"name": "ü" * 33}, {"name": ""}, {"name": "a/b"}),
        *({"mailbox_limit": 0}, {"dedupe_for": timedelta(-1)}, {"codec": "yaml"}, {"supervise": "one_for_one"}),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        durable_actor(**options)(type("Order", (), {}))


def test_what_is_no_class_cannot_be_an_actor_type() -> None:
    with pytest.raises(DefinitionError, match="goes on a class"):
        durable_actor(waiting)  # type: ignore[call-overload]


class Undecorated(Order):
    """A subclass without a decorator of its own."""


def test_an_undecorated_subclass_is_no_actor_type() -> None:
    with pytest.raises(DefinitionError, match=r"@durable_actor\n    class Undecorated"):
        definition_of(Undecorated)


def test_a_class_that_was_made_again_is_refused() -> None:
    again: type = dataclasses.dataclass(slots=True)(durable_actor(type("Order", (), {"__annotations__": {"status": str}, "status": "new"})))

    with pytest.raises(DefinitionError, match="above the other decorators"):
        definition_of(again)


def test_definitions_and_handlers_show_what_they_are(order: Definition) -> None:
    assert repr(order).startswith("<Definition of Order version 1: add_line, ship")
    assert repr(order.query("progress")) == "<query Order.progress() -> 'str'>"
    assert repr(order.waits["approved"]) == "<declared signal Order.approved(payload: str)>"
    assert isinstance(order.event("add_line"), Handler)
