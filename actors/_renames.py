"""Names that stored data knows and today's code has moved: how old pickles still find their classes.

A rename, once registered, wins over whatever now has the old name; classes that are gone are refused, or placeholders if asked.
"""

from __future__ import annotations

import io
import pickle
import sys
from contextlib import suppress
from typing import Any, Final, NoReturn, Self, cast, final

from ._errors import DefinitionError

RENAMES: Final[dict[str, str]] = {}  # dotted name then -> dotted name now; while it is empty, decoding takes the shorter way


def rename(old: str, new: str) -> None:
    """Let stored data that names `old` find `new`: a class or function (`"shop.Order"`, `"shop.orders.Order"`), or a whole module.

    Call it before the host starts, for as long as old data may be about. The longest registered name wins. Raises DefinitionError for
    names that are not dotted names, and for a rename of something to two different places.
    """
    if not (is_dotted(old) and is_dotted(new)):
        raise DefinitionError(
            f"rename({old!r}, {new!r})", "both have to be dotted names", 'As in rename("shop.Order", "shop.orders.Order").'
        )
    if RENAMES.setdefault(old, new) != new:
        raise DefinitionError(f"rename({old!r}, {new!r})", f"it is renamed to {RENAMES[old]!r} already", "Keep one of the two.")


def is_dotted(name: str) -> bool:
    """Whether it is a dotted name, as code could write it."""
    return all(part.isidentifier() for part in name.split("."))


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
        made.__dict__.update({"arguments": arguments, "items": [], **keywords})
        return made

    def __init__(self, *arguments: object, **keywords: object) -> None:
        """Do nothing: all is kept already."""

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                own = part.get("__dict__")  # what pydantic stores of a model has its attributes within it
                self.__dict__.update(own if isinstance(own, dict) else part)
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

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        refuse_to_store(type(self))

    def __repr__(self) -> str:
        return f"<Placeholder for {type(self).__module__}.{type(self).__qualname__}>"


def refuse_to_store(lost: type[Placeholder]) -> NoReturn:
    """Raise TypeError: whoever reads it is to make of it what can be stored."""
    raise TypeError(f"a placeholder for {lost.__module__}.{lost.__qualname__} cannot be stored again")


@final
class RenamingUnpickler(pickle.Unpickler):
    """Reads a pickle through the renames; with `placeholders`, unknown names become subclasses of Placeholder instead of an error."""

    def __init__(self, data: bytes, *, placeholders: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._placeholders = placeholders

    def find_class(self, module: str, name: str) -> Any:
        """What a name in a pickle means today."""
        if self._placeholders and (module, name) == ("builtins", "getattr"):
            return _attribute_of
        try:
            module_now, name_now = current_name(module, name)
            return super().find_class(module_now, name_now) if module_now else _resolved(name_now)
        except (ImportError, AttributeError):
            if not self._placeholders:
                raise
            return _placeholder(module, name)


def _placeholder(module: str, name: str) -> type[Placeholder]:
    return type(name, (Placeholder,), {"__module__": module, "__qualname__": name})


def _attribute_of(owner: object, name: str, *default: object) -> object:
    """As `getattr`, which pickles of bound methods call; what is lost has every attribute."""
    is_lost = isinstance(owner, Placeholder) or (isinstance(owner, type) and issubclass(owner, Placeholder))
    if not is_lost or hasattr(owner, name):
        return getattr(owner, name, *default)
    lost = owner if isinstance(owner, type) else type(owner)
    return _placeholder(lost.__module__, f"{lost.__qualname__}.{name}")


class _Missing(Exception):
    """What a pickle names is not there."""


@final
class _NameFinder(pickle.Unpickler):
    """Looks up all that a pickle names, and makes placeholders of everything: none of the code that it names is run."""

    def find_class(self, module: str, name: str) -> Any:
        """A placeholder. Raises _Missing where there is nothing of that name."""
        if current_name(module, name)[0]:
            try:
                super().find_class(module, name)
            except (ImportError, AttributeError) as error:
                if _is_itself_missing(error, module):
                    raise _Missing(module, name) from None
        return _placeholder(module, name)


def missing(data: bytes) -> tuple[str, str]:
    """What a pickle that cannot be read names and is not there, and where something of that name is today; empty where not known."""
    try:
        _NameFinder(io.BytesIO(data)).load()
    except _Missing as gone:
        module, name = gone.args
        return (f"{module}.{name}", _seen_elsewhere(name)) if is_dotted(f"{module}.{name}") else ("", "")
    except Exception:  # noqa: BLE001  a pickle that is damaged
        return "", ""
    return "", ""


def _is_itself_missing(error: ImportError | AttributeError, module: str) -> bool:
    """Whether it is the name that is missing, and not what its module imports."""
    return not isinstance(error, ImportError) or f"{module}.".startswith(f"{error.name}.")


def _seen_elsewhere(name: str) -> str:
    """The dotted name of the one thing that a module which is loaded now defines by that name."""
    found = [module for module in list(sys.modules) if _defines(module, name)]
    return f"{found[0]}.{name}" if len(found) == 1 else ""


def _defines(module: str, name: str) -> bool:
    value: object = sys.modules.get(module)
    with suppress(Exception):  # what stands for a module may be anything
        for part in name.split("."):
            value = vars(value).get(part)
        return getattr(value, "__module__", None) == module
    return False


def _resolved(name: str) -> object:
    from pkgutil import resolve_name  # here, since few programs ever rename anything

    try:
        return cast("object", resolve_name(name))
    except (ImportError, AttributeError) as error:
        raise AttributeError(f"a rename(…) leads to {name}, which is not there: {error}") from error
