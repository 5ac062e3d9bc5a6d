"""What is replayed: the code that runs again when a suspended actor comes back into memory.

That is each handler but the queries, and `__init__`, of a durable type that can be suspended, and all functions in the linted files that
they mention, from one to the next. A step is not among them, for its outcome is recorded.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias, final

from ._names import FUNCTIONS, Definition, Files, Function, Scope, dotted, family_of, members

PACKAGE: Final = "perdure.actors"
WAITING: Final = {"on_event", "on_timer"}  # the handlers that may be async, besides the workflow
HANDLERS: Final = {"workflow", "on_signal", *WAITING}

Spot: TypeAlias = tuple[ast.AST, Scope]  # a node, and the scope that its names are looked up in


@final
class Replayed(NamedTuple):
    """A function that is replayed, all that is in it, and the handler that leads to it, as `Order.run`."""

    definition: Definition
    handler: str
    spots: list[Spot]

    @property
    def is_handler(self) -> bool:
        """Whether it is the handler itself."""
        family = self.definition.family
        return bool(family) and self.handler == f"{family[0].node.name}.{self.definition.node.name}"


def durable_types(files: Files) -> list[Definition]:
    """The classes with `@durable_actor`, wherever they stand."""
    return [
        Definition(node, scope)
        for module in files
        for node, scope in _spots(module.source.tree.body, module)
        if isinstance(node, ast.ClassDef) and "durable_actor" in marks_of(node, scope)
    ]


def replayed(types: Iterable[Definition]) -> Iterator[Replayed]:
    """Each function that is replayed, once for each class of `self`."""
    waiting = deque(entry for each in types for entry in _entries(each))
    seen = {definition.identity for definition, _ in waiting}
    while waiting:
        definition, handler = waiting.popleft()
        assert isinstance(definition.node, FUNCTIONS)
        spots = list(_spots(definition.node.body, definition.scope.inside_method(definition)))
        yield Replayed(definition, handler, spots)
        for called in _mentioned(spots):
            if called.identity not in seen:
                seen.add(called.identity)
                waiting.append((called, handler))


def _entries(durable: Definition) -> list[tuple[Definition, str]]:
    """Where the replay of a type begins; nowhere if it can never be suspended."""
    methods = [last for found in members(family_of(durable)).values() if isinstance(last := found[-1], Definition)]
    marked = [(method, marks_of(method.node, method.scope)) for method in methods]
    if not any("workflow" in marks or (marks & WAITING and isinstance(method.node, ast.AsyncFunctionDef)) for method, marks in marked):
        return []
    return [
        (method, f"{durable.node.name}.{method.node.name}")
        for method, marks in marked
        if isinstance(method.node, FUNCTIONS) and (marks & HANDLERS or method.node.name == "__init__")
    ]


def _mentioned(spots: Iterable[Spot]) -> Iterator[Definition]:
    """The functions that some code calls, or hands to somebody who may."""
    for node, scope in spots:
        match node:
            case ast.Call(func=function):
                meaning = scope.meaning(dotted(function))
                if isinstance(meaning, Definition) and isinstance(meaning.node, ast.ClassDef):
                    yield from _constructors(meaning)
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
                meaning = scope.meaning(dotted(node))
                if isinstance(meaning, Definition) and _is_followed(meaning, node, scope):
                    yield meaning


def _is_followed(meaning: Definition, node: ast.expr, scope: Scope) -> bool:
    """Not a step; nor `Order.add_line`, which names a handler and does not call it: that runs in a turn of its own."""
    marks = marks_of(meaning.node, meaning.scope)
    names_handler = bool(marks & (HANDLERS | {"query"})) and isinstance(node, ast.Attribute) and _is_class(node.value, scope)
    return isinstance(meaning.node, FUNCTIONS) and "step" not in marks and not names_handler


def _is_class(node: ast.expr, scope: Scope) -> bool:
    meaning = scope.meaning(dotted(node))
    return isinstance(meaning, Definition) and isinstance(meaning.node, ast.ClassDef)


def _constructors(called: Definition) -> Iterator[Definition]:
    found = members(family_of(called))
    for name in ("__init__", "__post_init__"):
        yield from (each for each in found.get(name, []) if isinstance(each, Definition))


def marks_of(node: Function | ast.ClassDef, scope: Scope) -> set[str]:
    """The names of the package's decorators on a definition, whatever they were imported as."""
    return {_mark(decorator.func if isinstance(decorator, ast.Call) else decorator, scope) for decorator in node.decorator_list}


def _mark(decorator: ast.expr, scope: Scope) -> str:
    meaning = scope.meaning(dotted(decorator))
    if isinstance(meaning, Definition):
        return meaning.node.name
    origin, _, name = (meaning or "").rpartition(".")
    return name if origin == PACKAGE or (meaning or "").startswith(".") else ""


def _spots(body: Iterable[ast.AST], scope: Scope) -> Iterator[Spot]:
    """All nodes of a body and of what is defined in it, but for steps and annotations."""
    waiting: list[Spot] = [(node, scope) for node in body]
    while waiting:
        node, scope = waiting.pop()
        yield node, scope
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if "step" not in marks_of(node, scope):
                    waiting.extend((each, scope) for each in (*node.decorator_list, *_defaults(node.args)))
                    inner = scope.inside(node)
                    waiting.extend((each, inner) for each in node.body)
            case ast.Lambda(args=arguments, body=result):
                waiting.extend((each, scope) for each in _defaults(arguments))
                waiting.append((result, scope.inside(node)))
            case ast.AnnAssign(target=target, value=value):
                waiting.extend((each, scope) for each in (target, value) if each is not None)
            case _:
                waiting.extend((child, scope) for child in ast.iter_child_nodes(node))


def _defaults(arguments: ast.arguments) -> list[ast.expr]:
    return [each for each in (*arguments.defaults, *arguments.kw_defaults) if each is not None]
