"""Pickles looked at without being loaded: a small interpreter of the opcodes that imports nothing and calls nothing.

What a pickle would call is shown as `module.Class(…)`. Whatever the bytes are, the answer comes in bounded time; where they are damaged,
or too long, it is what could be read.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from datetime import date, datetime
from typing import Final, NamedTuple, cast, final

from ._tree import LEFT_OUT, Group, Name, Node, Plain, inline

MAX_OPCODES: Final = 300_000  # about half a second


class Outline(NamedTuple):
    """What was found in a pickle; `problem` says why that is not all, if so."""

    tree: Node
    problem: str | None = None


def outline(data: bytes) -> Outline:
    """The tree of a pickle. Never raises, never runs any of it."""
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                return Outline(machine.salvage(), "it is too long to be shown whole")
            machine.step(opcode.name, argument)
        return Outline(machine.pop())
    except Exception as error:  # noqa: BLE001  pickletools, given any bytes, raises what it likes
        return Outline(machine.salvage(), f"it is no whole pickle ({type(error).__name__}: {error})")


@final
class _Machine:
    """The stack, the stacks below its marks, and the memo of an unpickler that builds trees."""

    def __init__(self) -> None:
        self._stack: list[Node] = []
        self._below: list[list[Node]] = []
        self._memo: dict[int, Node] = {}
        self._copied = 0

    def step(self, name: str, argument: object) -> None:
        """Do what an opcode says."""
        if name in _CONSTANTS:
            self.push(Plain(cast("str", argument)))
        elif name in _PUTS:
            self._memo[int(cast("int", argument))] = self._stack[-1]
        elif name in _GETS:
            self.push(self._memo[int(cast("int", argument))])
        elif name not in _IGNORED:
            _STEPS[name](self, argument)

    def push(self, node: Node) -> None:
        """Put a node on top."""
        self._stack.append(node)

    def pop(self) -> Node:
        """Take the node on top."""
        return self._stack.pop()

    def pop_marked(self) -> list[Node]:
        """Take all nodes above the last mark."""
        nodes, self._stack = self._stack, self._below.pop()
        return nodes

    def mark(self) -> None:
        """Begin a new stack above this one."""
        self._below.append(self._stack)
        self._stack = []

    def memoize(self) -> None:
        """Remember the top under the next number."""
        self._memo[len(self._memo)] = self._stack[-1]

    def duplicate(self) -> None:
        """Push the top again."""
        self.push(self._stack[-1])

    def extend(self, nodes: list[Node]) -> None:
        """Add nodes to the group on top."""
        if isinstance(top := self._stack[-1], Group):
            top.items += nodes

    def update(self, nodes: list[Node]) -> None:
        """Add keys and values, in turn, to the group on top."""
        if isinstance(top := self._stack[-1], Group):
            top.pairs += zip(nodes[::2], nodes[1::2], strict=False)

    def call(self, made_by: Node, arguments: Node, keywords: Node | None = None) -> None:
        """Push what a call would have made."""
        name = _name_of(made_by)
        if name == "perdure.actors._state.the_actor":
            self.push(Name("(this actor)"))
            return
        made = Group(
            "ActorRef" if name == "perdure.actors._ref.restore_ref" else name,
            arguments=arguments.items if isinstance(arguments, Group) else [arguments],
        )
        if isinstance(keywords, Group):
            self._copy(keywords.pairs, made)
        if made.kind in _READABLE:
            made.arguments = _readable(made)
        self.push(Name("UTC") if inline(made, 50) == _UTC else made)

    def build(self, state: Node) -> None:
        """Give the object on top its attributes."""
        top = self._stack[-1]
        if not isinstance(top, Group):
            return
        of_dict_and_slots = isinstance(state, Group) and state.kind == "tuple" and len(state.items) == 2
        parts = state.items if of_dict_and_slots and isinstance(state, Group) else [state]
        for part in parts:
            if isinstance(part, Group) and part.kind == "dict":
                self._copy(part.pairs, top)
            elif part != Plain(None):
                top.pairs.append((Plain("state"), part))

    def _copy(self, pairs: list[tuple[Node, Node]], into: Group) -> None:
        self._copied += len(pairs)
        if self._copied > MAX_OPCODES:  # an object that is its own state would double at each opcode
            raise ValueError("it says the same again and again")
        into.pairs += pairs

    def salvage(self) -> Node:
        """The outermost value, as far as it was read."""
        self.push(LEFT_OUT)
        while self._below:
            nodes = self.pop_marked()
            if not self._stack:
                self._stack = nodes
            elif isinstance(top := self._stack[-1], Group) and top.kind == "dict":
                self.update(nodes)
            else:
                self.extend(nodes)
        return self._stack[0] if self._stack else LEFT_OUT


_UTC: Final = "datetime.timezone(datetime.timedelta(0, 0, 0))"
_Step = Callable[[_Machine, object], None]


def _name_of(node: Node) -> str:
    return (node.text if isinstance(node, Name) else f"({node})").removeprefix("builtins.")


def _global(machine: _Machine, argument: object) -> None:
    machine.push(Name(str(argument).replace(" ", ".")))


def _stack_global(machine: _Machine, _: object) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(Name(".".join(str(part.value) if isinstance(part, Plain) else "?" for part in (module, name))))


def _reduce(machine: _Machine, _: object) -> None:
    arguments, made_by = machine.pop(), machine.pop()
    machine.call(made_by, arguments)


def _newobj_ex(machine: _Machine, _: object) -> None:
    keywords, arguments, made_by = machine.pop(), machine.pop(), machine.pop()
    machine.call(made_by, arguments, keywords)


def _inst(machine: _Machine, argument: object) -> None:
    machine.call(Name(str(argument).replace(" ", ".")), Group("tuple", items=machine.pop_marked()))


def _obj(machine: _Machine, _: object) -> None:
    made_by, *arguments = machine.pop_marked()
    machine.call(made_by, Group("tuple", items=arguments))


def _append(machine: _Machine, _: object) -> None:
    node = machine.pop()
    machine.extend([node])


def _setitem(machine: _Machine, _: object) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _appends(machine: _Machine, _: object) -> None:
    nodes = machine.pop_marked()
    machine.extend(nodes)


def _setitems(machine: _Machine, _: object) -> None:
    nodes = machine.pop_marked()
    machine.update(nodes)


def _dict(machine: _Machine, _: object) -> None:
    nodes = machine.pop_marked()
    machine.push(Group("dict"))
    machine.update(nodes)


def _build(machine: _Machine, _: object) -> None:
    state = machine.pop()
    machine.build(state)


def _tuple(size: int) -> _Step:
    def step(machine: _Machine, _: object) -> None:
        nodes = [machine.pop() for _ in range(size)]
        machine.push(Group("tuple", items=nodes[::-1]))

    return step


def _marked(kind: str) -> _Step:
    return lambda machine, _: machine.push(Group(kind, items=machine.pop_marked()))


def _empty(kind: str) -> _Step:
    return lambda machine, _: machine.push(Group(kind))


def _plain(value: bool | None) -> _Step:
    return lambda machine, _: machine.push(Plain(value))


def _extension(machine: _Machine, argument: object) -> None:
    machine.push(Name(f"(extension {argument})"))


def _persistent(machine: _Machine, _: object) -> None:
    machine.call(Name("(persistent)"), machine.pop())


_STEPS: Final[dict[str, _Step]] = {
    "NONE": _plain(None),
    "NEWTRUE": _plain(True),
    "NEWFALSE": _plain(False),
    "EMPTY_DICT": _empty("dict"),
    "EMPTY_LIST": _empty("list"),
    "EMPTY_TUPLE": _empty("tuple"),
    "EMPTY_SET": _empty("set"),
    "LIST": _marked("list"),
    "TUPLE": _marked("tuple"),
    "FROZENSET": _marked("frozenset"),
    "DICT": _dict,
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: _discard(machine.pop()),
    "POP_MARK": lambda machine, _: _discard(machine.pop_marked()),
    "DUP": lambda machine, _: machine.duplicate(),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "INST": _inst,
    "OBJ": _obj,
    "BUILD": _build,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
    "PERSID": lambda machine, argument: machine.call(Name("(persistent)"), Plain(str(argument))),
    "BINPERSID": _persistent,
    "NEXT_BUFFER": lambda machine, _: machine.push(Name("(a buffer kept elsewhere)")),
}
_CONSTANTS: Final = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_PUTS: Final = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS: Final = frozenset(("GET", "BINGET", "LONG_BINGET"))
_IGNORED: Final = frozenset(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"))


def _discard(_: object) -> None:
    """Forget what an opcode took from the stack."""


# --- what is bytes in a pickle, and means something to people ---


def _readable(made: Group) -> list[Node]:
    match made.arguments:
        case [Plain(bytes() as packed), *zone]:
            try:
                return [Name(_READABLE[made.kind](packed)), *zone]
            except (ValueError, struct.error):
                return made.arguments
    return made.arguments


def _datetime(packed: bytes) -> str:
    year, month, day, hour, minute, second, high, low = struct.unpack(">HBBBBBBH", packed)
    return datetime(year, month & 0x7F, day, hour, minute, second, high << 16 | low).isoformat(" ")  # noqa: DTZ001  its zone is shown beside it


def _date(packed: bytes) -> str:
    return date(*struct.unpack(">HBB", packed)).isoformat()


_READABLE: Final[dict[str, Callable[[bytes], str]]] = {"datetime.datetime": _datetime, "datetime.date": _date}
