"""The comparison of a state that replay rebuilt with the one that was stored, and the mending of what the wall clock made of it.

Only leaves are set, in place: containers and objects are never replaced, so locals that alias them stay right. Where that cannot make the
two states agree, StateDiffers.
"""

from __future__ import annotations

import copyreg
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from reprlib import repr as short_repr
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, TypeAlias, cast, final
from uuid import UUID

import msgspec

from ._digest import digest
from ._primitives import register_loaded

LEAVES: Final = (type(None), bool, int, float, complex, str, bytes, date, time, timedelta, Decimal, UUID, Enum)
NAMED: Final = (type, FunctionType, BuiltinFunctionType, ModuleType)  # code, which is stored as its name and never set
NOTHING: Final = "nothing"  # what is where the other state has something

Setter: TypeAlias = Callable[[Any], object] | None
Match: TypeAlias = "tuple[Place, Place, str]"  # of one place in both states, and its path


@final
class StateDiffers(Exception):
    """The rebuilt state has another shape than the stored one, or another leaf where none can be set. Both are given as short reprs."""

    def __init__(self, path: str, rebuilt: str, stored: str) -> None:
        super().__init__(path, rebuilt, stored)
        self.path = path
        self.rebuilt = rebuilt
        self.stored = stored

    def __str__(self) -> str:
        return f"{self.path} is {self.rebuilt} after replay, and {self.stored} in the snapshot"


class Place(NamedTuple):
    """A part of a value: what it is known by in both states, the code that leads to it, and how to set it, if that can be."""

    key: object
    label: str
    value: Any
    put: Setter = None


def reconcile(
    rebuilt: dict[str, Any],
    stored: dict[str, Any],
    assign: Callable[[str, Any], object],
    *,
    actors: tuple[object, object] = (None, None),
) -> list[str]:
    """Make a rebuilt state agree with the stored one; returns the paths of the leaves that were set, as in `self.lines[3].at`.

    Both are attributes by name. An attribute of the actor itself is set by `assign(name, value)`, after everything else; `actors` are the
    two actors, which their own states may refer to. Raises StateDiffers, and what is rebuilt is then of no more use: leaves may be set.
    """
    register_loaded()
    attributes = dict(rebuilt)
    patched = _mended(attributes, stored, actors)
    if patched:
        # What was set may be no part but a copy of it, or be two places of the stored state and one of this.
        _mended(attributes, stored, actors, is_last=True)
    for name, value in attributes.items():
        if value is not rebuilt[name]:
            assign(name, value)
    return patched


def _mended(attributes: dict[str, Any], stored: dict[str, Any], actors: tuple[object, object], *, is_last: bool = False) -> list[str]:
    """The paths of the leaves that differ; each is set, unless nothing may differ any more."""
    patched: list[str] = []
    met = {_pair(*actors): actors}  # kept, so that no other object gets the same id
    pending = _matched(_of_actor(attributes), _of_actor(stored), "self")
    while pending:
        here, there, path = pending.pop()
        if here.value is there.value or _pair(here.value, there.value) in met:
            continue
        if _is_leaf(here.value) and _is_leaf(there.value):
            if digest(here.value) != digest(there.value):
                _set(here, there, path, is_last=is_last)
                patched.append(path)
            continue
        met[_pair(here.value, there.value)] = (here.value, there.value)
        pending.extend(_parts(here, there, path))
    return patched


def _pair(rebuilt: object, stored: object) -> tuple[int, int]:
    return id(rebuilt), id(stored)


def _set(here: Place, there: Place, path: str, *, is_last: bool) -> None:
    refusal = _differs(path, here.value, there.value)
    if here.put is None or is_last:
        raise refusal
    try:
        here.put(there.value)
    except Exception:  # noqa: BLE001  a frozen class refuses in its own way
        raise refusal from None


def _differs(path: str, rebuilt: object, stored: object) -> StateDiffers:
    return StateDiffers(path, short_repr(rebuilt), short_repr(stored))


def _parts(here: Place, there: Place, path: str) -> list[Match]:
    """The parts of two values of one shape, the first of them last."""
    if _is_leaf(here.value) or _is_leaf(there.value):
        raise _differs(path, here.value, there.value)
    shape, parts = _taken_apart(here.value)
    shape_there, parts_there = _taken_apart(there.value)
    if shape != shape_there:
        raise _differs(path, here.value, there.value)
    return _matched(parts, parts_there, path)


def _matched(parts: list[Place], parts_there: list[Place], path: str) -> list[Match]:
    for part in _excess(parts, parts_there):
        raise StateDiffers(path + part.label, short_repr(part.value), NOTHING)
    for part in _excess(parts_there, parts):
        raise StateDiffers(path + part.label, NOTHING, short_repr(part.value))
    pairs = zip(reversed(parts), reversed(parts_there), strict=True)
    return [(part, there, path + part.label) for part, there in pairs]


def _excess(parts: list[Place], others: list[Place]) -> Iterator[Place]:
    keys = Counter(part.key for part in parts) - Counter(other.key for other in others)
    return (part for part in parts if part.key in keys)


def _of_actor(attributes: dict[str, Any]) -> list[Place]:
    return [Place(name, f".{name}", attributes[name], partial(attributes.__setitem__, name)) for name in sorted(attributes)]


def _is_leaf(value: object) -> bool:
    """Whether it is a value without parts that could be changed: one of the usual kinds, or hashed by value and made of such."""
    if isinstance(value, LEAVES):
        return True
    if type(value).__hash__ in {None, object.__hash__} or isinstance(value, (tuple, frozenset, msgspec.Struct, MethodType, *NAMED)):
        return False
    match _reduced(value):
        case str():
            return True
        case (_, arguments, *rest):
            return all(part is None for part in rest) and all(_is_plain(argument) for argument in arguments)
        case _:
            return False


def _is_plain(argument: object) -> bool:
    if isinstance(argument, tuple):
        return all(map(_is_plain, argument))
    return isinstance(argument, type) or _is_leaf(argument)


def _taken_apart(value: Any) -> tuple[object, list[Place]]:
    """What must be the same for two values to have one shape, and their parts in an order that does not depend on the process."""
    kind = type(value)
    if isinstance(value, NAMED):
        return (kind, getattr(value, "__module__", None), getattr(value, "__qualname__", value.__name__)), []
    if isinstance(value, set | frozenset):
        return (kind, sorted(map(_identity, value))), _attributes(value, object.__getstate__(value))
    if isinstance(value, dict | list | deque | tuple):
        return (kind, getattr(value, "maxlen", None)), [*_contents(value), *_attributes(value, object.__getstate__(value))]
    if isinstance(value, msgspec.Struct):
        return kind, _attributes(value, {name: getattr(value, name) for name in value.__struct_fields__ if hasattr(value, name)})
    return _object_parts(value)


def _contents(value: Any) -> list[Place]:
    if isinstance(value, dict):
        items = [Place(_identity(key), f"[{short_repr(key)}]", item, partial(value.__setitem__, key)) for key, item in value.items()]
        return sorted(items, key=lambda item: cast("bytes", item.key))
    put = None if isinstance(value, tuple) else value.__setitem__
    return [Place(index, f"[{index}]", item, put and partial(put, index)) for index, item in enumerate(value)]


def _identity(value: object) -> bytes:
    """What a key or member is known by: its digest, or, of what has none since it contains itself, its type's."""
    try:
        return digest(value)
    except (RecursionError, TypeError, AttributeError):
        return digest(type(value))


def _object_parts(value: Any) -> tuple[object, list[Place]]:
    """The parts of an object are those that pickle would write; they can be set where they are attributes."""
    reduced = _reduced(value)
    if reduced is None or isinstance(reduced, str):
        return (type(value), reduced), []
    make, arguments, *rest = reduced
    kind = None if type(value) in copyreg.dispatch_table else type(value)  # anyio has several classes for one primitive
    state, items, pairs = (*rest, None, None, None)[:3]
    parts = [Place(("argument", index), "", argument) for index, argument in enumerate(arguments)]
    parts += _contents(tuple(items or ())) + [part._replace(put=None) for part in _contents(dict(pairs or ()))]
    return (make, kind), [*parts, *_attributes(value, state)]


def _reduced(value: Any) -> Any:
    """What pickle would write; None for what only cloudpickle takes apart."""
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        return reducer(value) if reducer else value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001  the value's own methods may raise anything
        return None


def _attributes(value: Any, state: Any) -> list[Place]:
    if state is None:
        return []
    if isinstance(state, list) and is_dataclass(value):  # of a frozen one with slots
        state = dict(zip((field.name for field in fields(value)), state, strict=True))
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        state = {**(state[0] or {}), **state[1]}
    if not isinstance(state, dict):
        return [Place("state", "", tuple(state) if isinstance(state, list) else state)]
    state = {**state, **state.get("__dict__", {})}  # pydantic keeps its fields one level down
    state.pop("__dict__", None)
    return [Place(name, f".{name}", state[name], _setter(value, str(name), state[name])) for name in sorted(state, key=str)]


def _setter(value: Any, name: str, part: object) -> Setter:
    """Sets what is an attribute indeed, and not just called so in a state of the object's own making."""
    return partial(setattr, value, name) if getattr(value, name, NOTHING) is part else None
