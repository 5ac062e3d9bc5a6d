"""Values as trees: what tools show of a state or of arguments, whether or not the classes behind it are at hand.

A tree may share parts, and may contain itself; whoever walks it has a budget, so that the largest and the strangest are shown in bounded
time and space, with `…` for what was left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar, final

MAX_DEPTH: Final = 40  # levels that are shown
MAX_NODES: Final = 5_000  # nodes that are shown, shared ones as often as they are met
MAX_TEXT: Final = 400  # characters of one text or bytes value
MAX_BITS: Final = 10_000  # of an integer that is written out: Python refuses beyond 4,300 digits
CUT: Final = "…"

_Part = TypeVar("_Part")
Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


@final
@dataclass(frozen=True, slots=True)
class Plain:
    """A value without parts."""

    value: bool | int | float | str | bytes | bytearray | None

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            return f"(an integer of {value.bit_length():,} bits)"
        if isinstance(value, str | bytes | bytearray) and len(value) > MAX_TEXT:
            return f"{value[:MAX_TEXT]!r}{CUT} ({len(value):,} in all)"
        return repr(value)


@final
@dataclass(frozen=True, slots=True)
class Name:
    """What is known by its name alone: a class, a function, a place that was cut."""

    text: str

    def __str__(self) -> str:
        return self.text


@final
@dataclass(slots=True, eq=False)
class Group:
    """A value with parts. `kind` is dict, list, tuple, set or frozenset; anything else is what an object was made by, with `arguments`."""

    kind: str
    arguments: list[Node] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    @property
    def brackets(self) -> tuple[str, str]:
        """What stands around the parts."""
        return _BRACKETS.get(self.kind, (f"{self.kind}(", ")"))

    @property
    def summary(self) -> str:
        """One line for a group whose parts are shown below it."""
        if self.kind not in _BRACKETS:
            return self.kind
        return f"{self.kind} of {len(self.items) + len(self.pairs):,}"

    def parts(self) -> Iterator[tuple[str, Node]]:
        """Each part with its label, empty where it has none."""
        for argument in self.arguments:
            yield "", argument
        if self.kind not in _BRACKETS and self.items:
            yield "items=", Group("list", items=self.items)
        else:
            yield from (("", item) for item in self.items)
        is_dict = self.kind == "dict"
        for key, value in self.pairs:
            yield _label(key, is_dict), value


Node: TypeAlias = Plain | Name | Group

LEFT_OUT: Final = Name(CUT)
_BRACKETS: Final = {"dict": ("{", "}"), "list": ("[", "]"), "tuple": ("(", ")"), "set": ("{", "}"), "frozenset": ("frozenset({", "})")}


def node_of(value: object) -> Node:
    """The tree of a live value; an object of an unknown class is its repr."""
    return _node(value, {}, 0)


def _node(value: object, known: dict[int, Group], depth: int) -> Node:
    if value is None or isinstance(value, bool | int | float | str | bytes | bytearray):
        return Plain(value)
    if id(value) in known:
        return known[id(value)]
    if depth >= MAX_DEPTH:
        return LEFT_OUT
    if type(value) not in {dict, list, tuple, set, frozenset}:
        return Name(_shortened(repr(value)))
    group = known[id(value)] = Group(type(value).__name__)
    if isinstance(value, dict):
        group.pairs += [(_node(key, known, depth + 1), _node(item, known, depth + 1)) for key, item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        group.items += [_node(item, known, depth + 1) for item in value]
    return group


def inline(node: Node, room: int) -> str | None:
    """The tree as one line of at most `room` characters; None where it has no place there."""
    text = ""
    for piece in _pieces(node, min(room, MAX_DEPTH)):
        text += piece
        if len(text) > room:
            return None
    return text


def printable(text: str) -> str:
    """Text from a store as a terminal may see it: whatever is not printable is escaped, but for line ends."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def json_of(node: Node) -> Json:
    """The tree as JSON. A tuple is an array; what JSON has no form for is an object with the key `python`."""
    return _Json().of(node, 0)


@final
class _Json:
    """Writes one tree, within its budget."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def of(self, node: Node, depth: int) -> Json:
        self._left -= 1
        if self._left < 0 or depth >= MAX_DEPTH:
            return {"python": CUT}
        if isinstance(node, Group):
            return self._group(node, depth + 1)
        value = node.value if isinstance(node, Plain) else b""
        if isinstance(value, str):
            return _encodable(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float) and _is_json_number(value):
            return value
        return {"python": str(node)}

    def _group(self, group: Group, depth: int) -> Json:
        if group.kind in {"list", "tuple"}:
            return self._all(group.items, depth)
        named = {key.value: value for key, value in group.pairs if isinstance(key, Plain) and isinstance(key.value, str)}
        if group.kind == "dict" and len(named) == len(group.pairs):
            return {_encodable(key): self.of(value, depth) for key, value in self._affordable(named.items())}
        told: dict[str, Json] = {"python": group.kind}
        if group.arguments:
            told["arguments"] = self._all(group.arguments, depth)
        if group.items:
            told["items"] = self._all(group.items, depth)
        if group.pairs:
            told["pairs"] = [[self.of(key, depth), self.of(value, depth)] for key, value in self._affordable(group.pairs)]
        return told

    def _all(self, nodes: list[Node], depth: int) -> Json:
        return [self.of(node, depth) for node in self._affordable(nodes)]

    def _affordable(self, parts: Iterable[_Part]) -> Iterator[_Part]:
        for part in parts:
            yield part
            if self._left < 0:
                return


def _pieces(node: Node, depth: int) -> Iterator[str]:
    if not isinstance(node, Group):
        yield str(node)
        return
    if depth <= 0:
        yield CUT
        return
    opening, closing = node.brackets
    yield opening
    for place, (label, part) in enumerate(node.parts()):
        yield ", " if place else ""
        yield label
        yield from _pieces(part, depth - 1)
    yield ",)" if node.kind == "tuple" and len(node.items) == 1 else closing


def _label(key: Node, is_dict: bool) -> str:
    if not is_dict and isinstance(key, Plain) and isinstance(key.value, str) and key.value.isidentifier():
        return f"{key.value}="
    return f"{(inline(key, 60) or CUT) if isinstance(key, Group) else key}: "


def _is_json_number(value: float) -> bool:
    return value.bit_length() <= MAX_BITS if isinstance(value, int) else math.isfinite(value)


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # a lone surrogate has no place in JSON


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT
