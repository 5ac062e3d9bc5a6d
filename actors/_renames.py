"""Names that stored data knows and today's code has moved: how old pickles still find their classes.

A rename, once registered, wins over whatever now has the old name; classes that are gone are refused, or placeholders if asked.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final, Self, cast, final

from ._errors import DefinitionError

RENAMES: Final[dict[str, str]] = {}  # dotted name then -> dotted name now; while it is empty, decoding takes the shorter way


def rename(old: str, new: str) -> None:
    """Let stored data that names `old` find `new`: a class or function (`"shop.Order"`, `"shop.orders.Order"`), or a whole module.

    Call it before the host starts, for as long as old data may be about. The longest registered name wins. Raises DefinitionError for
    names that are not dotted names, and for a rename of something to two different places.
    """
    if not all(part.isidentifier() for part in (*old.split("."), *new.split("."))):
        raise DefinitionError(
            f"rename({old!r}, {new!r})", "both have to be dotted names", 'As in rename("shop.Order", "shop.orders.Order").'
        )
    if RENAMES.setdefault(old, new) != new:
        raise DefinitionError(f"rename({old!r}, {new!r})", f"it is renamed to {RENAMES[old]!r} already", "Keep one of the two.")


def current_name(module: str, name: str) -> tuple[str, str]:
    """Where to look today for what was `name` in `module`: (module, qualified name); the module is empty where only the whole is known."""
    full = f"{module}.{name}"
    known = full
    while known:
        now = RENAMES.get(known)
        if now is not None:
            return ("", now + full[len(known) :])
        known = known.rpartition(".")[0]
    return (module, name)


class Placeholder:
    """Stands for an instance of a class that cannot be found: its attributes, and in `arguments` and `items` what else was stored of it.

    It can be looked at, not stored again.
    """

    __module__ = "perdure.actors"
    arguments: tuple[object, ...]
    items: list[object]

    def __new__(cls, *arguments: object, **keywords: object) -> Self:
        """Accept whatever the lost class was made from."""
        made = super().__new__(cls)
        made.__dict__.update(keywords, arguments=arguments, items=[])
        return made

    def __init__(self, *arguments: object, **keywords: object) -> None:
        """Do nothing: all is kept already."""

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)
            elif part is not None:
                self.items.append(part)

    def __setitem__(self, key: object, value: object) -> None:
        self.items.append((key, value))

    def append(self, item: object) -> None:
        """Keep what the lost class would have appended."""
        self.items.append(item)

    def extend(self, items: list[object]) -> None:
        """Keep what the lost class would have been extended with."""
        self.items.extend(items)

    def __reduce_ex__(self, protocol: object) -> str:
        name = f"{type(self).__module__}.{type(self).__qualname__}"
        raise TypeError(f"a placeholder for {name} cannot be stored again")

    def __repr__(self) -> str:
        return f"<Placeholder for {type(self).__module__}.{type(self).__qualname__}>"


@final
class RenamingUnpickler(pickle.Unpickler):
    """Reads a pickle through the renames; with `placeholders`, unknown names become subclasses of Placeholder instead of an error."""

    def __init__(self, data: bytes, *, placeholders: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._placeholders = placeholders

    def find_class(self, module: str, name: str) -> Any:
        """What a name in a pickle means today."""
        module_now, name_now = current_name(module, name)
        try:
            return super().find_class(module_now, name_now) if module_now else _resolved(name_now)
        except (ImportError, AttributeError):
            if not self._placeholders:
                raise
            return type(name_now, (Placeholder,), {"__module__": module, "__qualname__": name})


def _resolved(name: str) -> object:
    from pkgutil import resolve_name  # here, since few programs ever rename anything

    return cast("object", resolve_name(name))
