"""Each package's `__init__` is its only door, and what is pickled under a public name is found there by every later release."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator


def public_names(door: types.ModuleType) -> set[str]:
    """What the module holds without an underscore, but for submodules and `from __future__`."""
    held = vars(door).items()
    return {name for name, value in held if name[0] != "_" and not (isinstance(value, types.ModuleType) or name == "annotations")}


def exported_classes(door: types.ModuleType) -> Iterator[type]:
    exported = (getattr(door, name) for name in getattr(door, "__all__", ()))
    return (value for value in exported if isinstance(value, type))


def test_each_door_lists_exactly_what_it_holds(doors: list[str]) -> None:
    for door in map(importlib.import_module, doors):
        exported = set(getattr(door, "__all__", ()))

        missing = {name for name in exported if not hasattr(door, name)}
        assert (door.__name__, missing, public_names(door) - exported) == (door.__name__, set(), set())


def test_each_exported_class_names_a_door_where_it_is_found(doors: list[str]) -> None:
    for door in map(importlib.import_module, doors):
        for exported in exported_classes(door):
            assert exported.__module__ in doors, exported
            assert getattr(importlib.import_module(exported.__module__), exported.__qualname__, None) is exported
