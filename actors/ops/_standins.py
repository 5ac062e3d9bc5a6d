"""Stand-ins for the resources of a host, for code of actors that is looked at where no host is.

They may be kept, as `@on_activate` hooks do with resources; whoever does more with one is found out, and what comes of it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, final


@final
class ResourceUsed(Exception):
    """What only a host has was used, and not just kept. `name` is the resource's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"it uses the resource {self.name!r}, which only a host has"


@final
class StandIn:
    """In the place of a resource: it may be kept, as hooks do with it, and not used."""

    def __init__(self, name: str, used: Callable[[str], NoReturn]) -> None:
        self.__name = name
        self.__used = used

    def __repr__(self) -> str:
        return f"<in the place of the resource {self.__name!r}>"

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):  # what Python asks of anything
            raise AttributeError(attribute)
        self.__used(self.__name)

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise ResourceUsed."""
        self.__used(self.__name)

    def __getitem__(self, _: object) -> NoReturn:
        self.__used(self.__name)


@final
class Resources(Mapping[str, object]):
    """Any resource that code asks for, by stand-ins; `used` are those that it did more with than keep them."""

    def __init__(self) -> None:
        self.used: list[str] = []

    def __getitem__(self, name: str) -> object:
        return StandIn(name, self._use)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def _use(self, name: str) -> NoReturn:
        self.used.append(name)
        raise ResourceUsed(name)
