"""Values: what an expression makes, where the text leaves no doubt.

A name counts if it is declared so, or if all that is ever assigned to it in its function counts; in doubt the answer is no.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from ._names import Annotation, Binding, Definition, Scope, dotted
from ._replay import marks_of

TASK_MAKERS: Final = {"create_task", "ensure_future", "start_soon", "Task", "Future"}


@final
class Kind(NamedTuple):
    """A kind of value, by what makes one: calls (which are types, too), displays, and operators and attributes of another one."""

    calls: frozenset[str]
    displays: tuple[type[ast.expr], ...] = ()
    operators: tuple[type[ast.operator], ...] = ()
    attributes: frozenset[str] = frozenset()


SET: Final = Kind(
    calls=frozenset(
        {
            *("builtins.set", "builtins.frozenset", "collections.abc.Set", "collections.abc.MutableSet"),
            *("typing.Set", "typing.FrozenSet", "typing.AbstractSet", "typing.MutableSet"),
        }
    ),
    displays=(ast.Set, ast.SetComp),
    operators=(ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub),
    attributes=frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"}),
)
PATH: Final = Kind(
    calls=frozenset({"pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "anyio.Path"}),
    operators=(ast.Div,),
    attributes=frozenset(
        {"absolute", "cwd", "expanduser", "home", "joinpath", "parent", "resolve", "with_name", "with_stem", "with_suffix"}
    ),
)
GATHERING: Final = Kind(calls=frozenset({"asyncio.gather"}))


def makes(kind: Kind, node: ast.expr, scope: Scope, asked: frozenset[str] = frozenset()) -> bool:
    """Whether an expression makes a value of that kind for certain. `asked` are the names that the answer is already sought for."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, kind.operators):
            return makes(kind, left, scope, asked) or makes(kind, right, scope, asked)
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in kind.attributes:
            return makes(kind, value, scope, asked) or scope.meaning(dotted(value)) in kind.calls
        case ast.Call(func=function):
            return scope.meaning(dotted(function)) in kind.calls
        case ast.Name() | ast.Attribute():
            return _is_bound_to(kind, node, scope, asked)
        case _:
            return isinstance(node, kind.displays) and not _holds_tasks(node)


def _is_bound_to(kind: Kind, node: ast.Name | ast.Attribute, scope: Scope, asked: frozenset[str]) -> bool:
    if isinstance(node, ast.Attribute) and node.attr in kind.attributes:
        return makes(kind, node.value, scope, asked)
    name = dotted(node)
    found = name and scope.bindings(name)
    if not name or not found:
        return False
    if name in asked:
        return True  # `seen = seen | more` is what the other assignments make it
    bindings, holder = found
    if any(isinstance(each, Annotation) for each in bindings):
        return any(isinstance(each, Annotation) and _is_type(kind, each.type, holder) for each in bindings)
    return all(isinstance(each, ast.expr) and makes(kind, each, holder, asked | {name}) for each in bindings)


def _is_type(kind: Kind, annotation: ast.expr, scope: Scope) -> bool:
    """Whether an annotation is of the kind; of a set's, that it is not of tasks."""
    match annotation:
        case ast.Subscript(value=value, slice=inner):
            return _is_type(kind, value, scope) and not _mentions_tasks(inner)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_type(kind, left, scope) or _is_type(kind, right, scope)
        case _:
            return scope.meaning(dotted(annotation)) in kind.calls


def _holds_tasks(display: ast.expr) -> bool:
    """Whether a set's members are made as tasks, whose order in sets is that of their creation inside an actor."""
    parts = list(_written_elements(display))
    return bool(parts) and all(_is_made_as_task(part) for part in parts)


def _mentions_tasks(annotation: ast.expr) -> bool:
    return any((dotted(node) or "").rpartition(".")[2] in TASK_MAKERS for node in ast.walk(annotation))


def _is_made_as_task(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name in TASK_MAKERS
        case _:
            return False


def elements(node: ast.expr, scope: Scope) -> Iterator[tuple[ast.expr, Scope]]:
    """The expressions that make the elements of a collection, where it is written out or bound to a name that is."""
    yield from ((each, scope) for each in _written_elements(node))
    found = scope.bindings(node.id) if isinstance(node, ast.Name) else None
    bindings: list[Binding] = found[0] if found else []
    for binding in bindings:
        if found and isinstance(binding, ast.expr):
            yield from ((each, found[1]) for each in _written_elements(binding))


def _written_elements(node: ast.expr) -> list[ast.expr]:
    match node:
        case ast.List(elts=elts) | ast.Tuple(elts=elts) | ast.Set(elts=elts):
            return elts
        case ast.ListComp(elt=elt) | ast.SetComp(elt=elt) | ast.GeneratorExp(elt=elt):
            return [elt]
        case _:
            return []


def is_coroutine(node: ast.expr, scope: Scope) -> bool:
    """Whether an expression makes a coroutine: a call of something async, or of something unknown that does not sound like a task's."""
    if not isinstance(node, ast.Call) or _is_made_as_task(node):
        return False
    meaning = scope.meaning(dotted(node.func))
    if not isinstance(meaning, Definition):
        return True
    return isinstance(meaning.node, ast.AsyncFunctionDef) or "step" in marks_of(meaning.node, meaning.scope)
