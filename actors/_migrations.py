"""Migrations: how the state of an older version of a type becomes that of a newer one.

Only what every step of the way was written for is migrated: a state has a path if its very version has a migration.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import Any, Final, final

from ._digest import digest
from ._errors import DefinitionError
from ._marks import migrates_from

State = dict[str, Any]  # the attributes of an actor, by name


@final
class Migrations:
    """The migrations of one class, which is a type's version `version`."""

    __slots__ = ("_fingerprints", "_steps", "_version")

    def __init__(self, cls: type, version: int) -> None:
        self._version = version
        self._steps: Final = dict(sorted(_found(cls, version).items()))
        self._fingerprints: Final[dict[int, bytes]] = {}

    def __repr__(self) -> str:
        return f"<Migrations to version {self._version} from {', '.join(map(str, self._steps)) or 'none'}>"

    def lead_from(self, version: int) -> bool:
        """Whether there is a path for states of that version."""
        return version in self._steps

    def fingerprint(self, version: int) -> bytes:
        """A digest of the migrations that a state of `version` goes through: another one as soon as the code of any is changed."""
        found = self._fingerprints.get(version)
        if found is None:
            chain = [(start, _parts(migration.__code__)) for start, migration in self._steps.items() if start >= version]
            found = self._fingerprints[version] = digest((self._version, chain))
        return found

    def apply(self, state: State, version: int) -> State:
        """A state of `version` as it is today. Raises what a migration raises, and TypeError for what is no state."""
        for start, migration in self._steps.items():
            if start >= version:
                state = migration(state)
                _check(state, migration)
        return state


def check_replays(cls: type, version: int, replays: Sequence[int]) -> tuple[int, ...]:
    """The older versions whose past a class says it can replay. Raises DefinitionError for what can be none."""
    for each in replays:
        if type(each) is not int or not 1 <= each < version:
            raise DefinitionError(
                cls.__qualname__,
                f"replays={tuple(replays)!r} names {each!r}, which is no version before its own, {version}",
                f"Raise version= beyond it, as in @durable_actor(version={version + 1}, replays=({version},)).",
            )
    return tuple(replays)


def _found(cls: type, version: int) -> dict[int, FunctionType]:
    """The migrations of a class and its bases, by the version they start from; that of the class defined last counts."""
    steps: dict[int, FunctionType] = {}
    for base in reversed(cls.__mro__):
        own: dict[int, str] = {}
        for name, attribute in vars(base).items():
            start = migrates_from(attribute)
            if start is None:
                continue
            _refuse_unfit(f"{base.__qualname__}.{name}", attribute, start, version)
            if start in own:
                raise DefinitionError(
                    f"{base.__qualname__}.{name}", f"{own[start]!r} migrates version {start} already", "Make one of the two."
                )
            own[start] = name
            steps[start] = getattr(base, name)
    return steps


def _parts(code: CodeType) -> tuple[object, ...]:
    """What a function does, without where it is written."""
    return code.co_code, code.co_names, [_parts(each) if isinstance(each, CodeType) else each for each in code.co_consts]


def _refuse_unfit(place: str, attribute: object, start: int, version: int) -> None:
    if not isinstance(attribute, staticmethod):
        name = place.rpartition(".")[2]
        written = f"    @migrate({start})\n    @staticmethod\n    def {name}(state: dict[str, Any]) -> dict[str, Any]: …"
        raise DefinitionError(place, "a migration is a static method: there is no actor of that state yet", f"Write it so:\n{written}")
    function = attribute.__func__
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(place, "a migration cannot wait for anything", "Write it as a plain function.")
    if function.__code__.co_argcount != 1:
        raise DefinitionError(place, "a migration takes one argument, the state", "Write `(state: dict[str, Any]) -> dict[str, Any]`.")
    if start >= version:
        raise DefinitionError(
            place,
            f"it migrates version {start}, and its class is version {version}",
            f"Give the class the next one: @durable_actor(version={start + 1}).",
        )


def _check(state: object, migration: Callable[[State], State]) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise TypeError(f"{migration.__qualname__} returned {type(state).__qualname__}, and not the attributes in a dict by their names")
