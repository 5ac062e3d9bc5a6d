"""The registry: the actor types that a host serves, by name.

Name and version together are unique in it. Its description holds nothing of the user's code, so tools can read it without any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar, final

import msgspec

from ._define import Definition, definition_of, is_actor_type
from ._errors import DefinitionError, UnknownActorType, UnknownHandler

Found = TypeVar("Found")


@final
class HandlerEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A handler or declared signal; `schema` describes its arguments in JSON, None if opaque.

    `kind` is "event", "signal", "query", "workflow", "timer" or "child exit".
    """

    name: str
    kind: str
    doc: str
    schema: bytes | None


@final
class RegistryEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One version of an actor type, as a host wrote it down; `signals` are the declared ones."""

    name: str
    version: int
    codec: str
    handlers: list[HandlerEntry]
    signals: list[HandlerEntry]


@final
class Registry:
    """The types of a host. Several versions of one name may be there; the highest is the current one.

    One that `grows` is a client's: it takes in whatever class it is shown, or one of whose functions.
    """

    __slots__ = ("_current", "_grows", "_of_name", "_versions")

    def __init__(self, definitions: Iterable[Definition], *, grows: bool = False) -> None:
        self._grows = grows
        self._versions: Final[dict[tuple[str, int], Definition]] = {}
        self._of_name: Final[dict[str, list[Definition]]] = {}  # the newest first
        self._current: Final[dict[str, Definition]] = {}
        for definition in definitions:
            self._add(definition)

    @classmethod
    def of_classes(cls, classes: Iterable[type]) -> Registry:
        """The registry of decorated classes. Raises DefinitionError for one that is not decorated, or for two of one name and version."""
        return cls(definition_of(actor) for actor in classes)

    def __iter__(self) -> Iterator[Definition]:
        """The current definitions, one for each name."""
        return iter(self._current.values())

    def __repr__(self) -> str:
        return f"<Registry of {', '.join(f'{name} version {version}' for name, version in self._versions)}>"

    def require(self, name: str) -> Definition:
        """The current definition of that name. Raises UnknownActorType, naming what there is."""
        definition = self._current.get(name)
        if definition is None:
            raise UnknownActorType(name, self._current)
        return definition

    def versions(self, name: str) -> list[Definition]:
        """All versions of a type, the newest first; none of one that is not served."""
        return self._of_name.get(name, [])

    def find(self, name: str, look: Callable[[Definition, object], Found], handler: object) -> Found:
        """What `look` finds of a handler in the current version, or in an older one: callers may hold the class of either.

        As in `find("Order", Definition.event, Order.add_line)`. Raises UnknownActorType, and what `look` raises for the current one.
        """
        try:
            return look(self._current.get(name) or self.require(name), handler)
        except UnknownHandler:
            for older in self._of_name[name][1:]:
                try:
                    return look(older, handler)
                except UnknownHandler:
                    continue
            raise

    def serves(self, name: str) -> bool:
        """Whether there is a type of that name."""
        return name in self._current

    def of(self, cls: type) -> Definition:
        """The definition of a class that is served.

        Raises UnknownActorType for a name that is not, DefinitionError for another class of that name, or one that is no actor type.
        """
        definition = definition_of(cls)
        if self._grows:
            self._add(definition)
        if self._versions.get((definition.name, definition.version)) is definition:
            return definition
        hosted = self._current.get(definition.name)
        if hosted is None:
            raise UnknownActorType(definition.name, self._current)
        raise DefinitionError(
            f"{cls.__module__}.{cls.__qualname__}",
            f"as {definition.name} version {definition.version} it is not what is hosted: that is"
            f" {hosted.cls.__module__}.{hosted.cls.__qualname__}, version {hosted.version}",
            "Use that class, or host this one.",
        )

    def of_workflow(self, run: object) -> Definition:
        """The definition whose workflow that function is: of several versions the newest, of several types the one that it is written in.

        Raises UnknownHandler, showing what was meant, for anything else of a type that is hosted; UnknownActorType if there is none.
        """
        if self._grows:
            self._take_in_owner(run)
        begun = (next((each for each in versions if each.begins(run)), None) for versions in self._of_name.values())
        found = [definition for definition in begun if definition is not None]
        written = str(getattr(run, "__qualname__", run))
        for definition in found:
            if len(found) == 1 or definition.cls.__qualname__ == written.rpartition(".")[0]:
                return definition
        if found:
            raise DefinitionError(
                written, f"it is the workflow of {', '.join(each.name for each in found)}", "Override it in each, or name one by its class."
            )
        owner = written.rpartition(".")[0]
        for definition in self._current.values():
            if definition.cls.__qualname__ == owner:
                definition.refuse_workflow(run)
        raise UnknownActorType(owner or written, self._current)

    def describe(self) -> list[RegistryEntry]:
        """What a host writes into its store about its types, all versions, ordered by name and version."""
        return [_entry(self._versions[key]) for key in sorted(self._versions)]

    def _add(self, definition: Definition) -> None:
        taken = self._versions.setdefault((definition.name, definition.version), definition)
        if taken is not definition:
            raise DefinitionError(
                definition.cls.__qualname__,
                f"{taken.cls.__module__}.{taken.cls.__qualname__} is {definition.name} version {definition.version} already",
                "Give one of them another name=… or version=….",
            )
        versions = self._of_name.setdefault(definition.name, [])
        if definition not in versions:
            versions.append(definition)
            versions.sort(key=lambda each: -each.version)
        self._current[definition.name] = versions[0]

    def _take_in_owner(self, function: object) -> None:
        """Take in the class in which a function is written, if it can be found by its name and is an actor type."""
        owner: object = sys.modules.get(getattr(function, "__module__", ""))
        for name in str(getattr(function, "__qualname__", "")).split(".")[:-1]:
            owner = getattr(owner, name, None)
        if isinstance(owner, type) and is_actor_type(owner):
            self._add(definition_of(owner))


def _entry(definition: Definition) -> RegistryEntry:
    return RegistryEntry(
        name=definition.name,
        version=definition.version,
        codec=definition.codec.name,
        handlers=[HandlerEntry(each.name, each.kind.value, each.doc, _schema(each.schema)) for each in definition.handlers.values()],
        signals=[HandlerEntry(each.name, "signal", "", _schema(each.schema)) for each in definition.waits.values()],
    )


def _schema(schema: dict[str, object] | None) -> bytes | None:
    return None if schema is None else msgspec.json.encode(schema)
