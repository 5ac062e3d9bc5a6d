"""Handlers: the methods and declared signals of one actor type, by name.

A name means one thing in a class and all its bases; which function it is, is decided by the class that was defined last, as for any method.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from functools import cache
from inspect import Parameter
from types import FunctionType
from typing import Any, Final, final

from ._calls import Call, method_signature
from ._codec import Codec, shown_as_json
from ._envelope import Form
from ._errors import DefinitionError
from ._marks import HandlerKind, Waits, is_activation, kind_of, refuse_unfit


@final
class Handler(Call):
    """A method that handles messages. `function` is called with the instance and the decoded arguments; `doc` is its docstring."""

    def __init__(self, type_name: str, name: str, kind: HandlerKind, function: FunctionType, codec: Codec) -> None:
        @cache
        def annotations() -> Mapping[str, object]:
            return typing.get_type_hints(function, include_extras=True)

        super().__init__(f"{type_name}.{name}", name, method_signature(function), annotations, codec)
        self.kind: Final = kind
        self.function: Final = function
        self.is_async: Final = inspect.iscoroutinefunction(function)
        self.doc: Final = inspect.getdoc(function) or ""

    def __repr__(self) -> str:
        return f"<{self.kind.value} {self.label}{self.signature}>"

    def encode_result(self, value: object, form: Form = Form.CODEC) -> bytes:
        """What the function returned, as bytes; as JSON for whoever called with JSON.

        Raises NotSerializable, its path beginning with the handler's name.
        """
        if form is Form.JSON:
            return shown_as_json(value)
        return self._encode_value(value, f"{self.label}()")

    def decode_result(self, data: bytes) -> Any:
        """A new value, as the function returned it, of the annotated type. Raises NotDeserializable."""
        return self._decode_value(data, "return")


@final
class WaitsSpec(Call):
    """A declared signal of a type: called with its payload, or with nothing."""

    def __init__(self, type_name: str, waits: Waits[Any], codec: Codec) -> None:
        parameter = Parameter("payload", Parameter.POSITIONAL_OR_KEYWORD, annotation=waits.payload)
        signature = inspect.Signature([parameter] if waits.payload is not None else [])
        super().__init__(f"{type_name}.{waits.name}", waits.name, signature, lambda: {"payload": waits.payload}, codec)
        self.payload: Final = waits.payload

    def __repr__(self) -> str:
        return f"<declared signal {self.label}{self.signature}>"


def handlers_of(cls: type, type_name: str, codec: Codec) -> tuple[dict[str, Handler], dict[object, str]]:
    """The handlers of a class by name, and what else leads to a name: the functions of the class and of its bases.

    Raises DefinitionError for a name that means two things, or something that is not a method.
    """
    kinds: dict[str, HandlerKind] = {}
    names: dict[object, str] = {}
    for base in reversed(cls.__mro__):
        for name, attribute in vars(base).items():
            kind = kind_of(attribute) or kinds.get(name)  # a base's handler may be overridden without a word
            if kind is None:
                continue
            if kinds.setdefault(name, kind) is not kind:
                raise DefinitionError(
                    f"{cls.__qualname__}.{name}", f"it is marked as {kind.value} here and as {kinds[name].value} in a base", "Rename it."
                )
            if isinstance(attribute, FunctionType):
                names[attribute] = name
    for kind, cure in _ONLY_ONE.items():
        found = [name for name, its in kinds.items() if its is kind]
        if len(found) > 1:
            raise DefinitionError(cls.__qualname__, f"it has {len(found)} handlers for its {kind.value}: {', '.join(found)}", cure)
    return {name: Handler(type_name, name, kind, _method(cls, name, kind), codec) for name, kind in kinds.items()}, names


_ONLY_ONE: Final = {
    HandlerKind.WORKFLOW: "An actor has one main coroutine at most: make events of the others.",
    HandlerKind.CHILD_EXIT: "One handler hears of all children: look at its argument, which says whose end it is.",
}


def waits_of(cls: type, type_name: str, codec: Codec, taken: Mapping[str, Handler]) -> tuple[dict[str, WaitsSpec], dict[object, str]]:
    """The declared signals of a class by name, and the objects that lead to a name. No handler, in `taken`, may have the same name."""
    specs: dict[str, WaitsSpec] = {}
    names: dict[object, str] = {}
    for base in reversed(cls.__mro__):
        for name, attribute in vars(base).items():
            if not isinstance(attribute, Waits):
                continue
            attribute.name = attribute.name or name
            if name in taken or attribute.name != name:
                other = f"the declared signal {attribute.name!r}" if name not in taken else "a handler"
                raise DefinitionError(
                    f"{cls.__qualname__}.{name}", f"it is {other} as well", "Give each its own name and its own signal(…)."
                )
            specs[name] = WaitsSpec(type_name, attribute, codec)
            names[attribute] = name
    return specs, names


def activations_of(cls: type) -> tuple[str, ...]:
    """The names of the methods to call when an actor comes into memory, those of base classes first."""
    names = (name for base in reversed(cls.__mro__) for name, attribute in vars(base).items() if is_activation(attribute))
    return tuple(dict.fromkeys(names))


def _method(cls: type, name: str, kind: HandlerKind) -> FunctionType:
    function = inspect.getattr_static(cls, name)
    if not isinstance(function, FunctionType):
        raise DefinitionError(
            f"{cls.__qualname__}.{name}", f"the {kind.value} of this name is no plain method", "Write `def` there, or rename it."
        )
    refuse_unfit(function, kind)
    return function
