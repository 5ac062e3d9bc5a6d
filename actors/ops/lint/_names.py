"""Names: what each stands for where it is read, over all linted files, as far as the text alone tells.

Nothing is imported or run. What cannot be known stands for nothing: a local variable hides the module that is called the same.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, final

from ._source import Source

MAX_HOPS: Final = 20  # from alias to alias and file to file; two files may import a name from each other

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
ROOMS: Final = (*FUNCTIONS, ast.Lambda)  # what has a scope of its own


@final
class Definition(NamedTuple):
    """A function or class, and the scope it stands in.

    `family` is the class of `self`, for a method, and then its bases; `home` says whose of them this method is.
    """

    node: Function | ast.ClassDef
    scope: Scope
    family: tuple[Definition, ...] = ()
    home: int = 0

    @property
    def identity(self) -> tuple[int, int]:
        """Equal for the same function with the same class of `self`."""
        return id(self.node), id(self.family[0].node) if self.family else 0


@final
class Annotation(NamedTuple):
    """That a name is of a type."""

    type: ast.expr


Binding: TypeAlias = str | Definition | Annotation | ast.expr | None
"""What binds a name: an import (by its path, dots in front if relative), a definition, a declaration, a value, anything else."""

Meaning: TypeAlias = str | Definition | None
"""What a name stands for: something outside of the linted files, by its full name; a definition in them; or nobody knows."""


@final
@dataclass(slots=True, eq=False)
class Scope:
    """The names that a module or a function binds, and the scope around it. A method's holds `self.name`, too."""

    files: Files
    source: Source
    around: Scope | None
    bound: dict[str, list[Binding]]

    def inside(self, node: Function | ast.Lambda) -> Scope:
        """The scope of a function that stands in this one."""
        inner = Scope(self.files, self.source, self, {})
        inner.bind(argument for argument in ast.walk(node.args) if isinstance(argument, ast.arg))
        inner.bind(_own_nodes(node.body if isinstance(node.body, list) else [node.body]))
        return inner

    def inside_method(self, method: Definition) -> Scope:
        """The same for a function or method, which knows what its `self` has."""
        assert isinstance(method.node, FUNCTIONS)
        inner = self.inside(method.node)
        arguments = [*method.node.args.posonlyargs, *method.node.args.args]
        if method.family and arguments:
            inner.bound.update((f"{arguments[0].arg}.{name}", found) for name, found in members(method.family).items())
            inner.bound.update((f"super().{name}", found) for name, found in members(method.family, method.home + 1).items())
        return inner

    def bind(self, nodes: Iterable[ast.AST]) -> None:
        """Take note of what these nodes bind."""
        nodes = list(nodes)
        elsewhere = {name for node in nodes if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        for name, binding in (each for node in nodes for each in _bindings(node, self)):
            if name not in elsewhere:
                self.bound.setdefault(name, []).append(binding)

    def bindings(self, name: str) -> tuple[list[Binding], Scope] | None:
        """What binds a name, or a `self.name`, and in which scope; None if nothing does: it is a builtin, or an attribute."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound:
                return scope.bound[name], scope
            scope = scope.around if name.partition(".")[0] not in scope.bound else None
        return None

    def meaning(self, name: str | None, hops: int = MAX_HOPS) -> Meaning:
        """What a dotted name stands for."""
        if name is None or not hops:
            return None
        for held, rest in _splits(name):
            found = self.bindings(held)
            if found is not None:
                return found[1]._meaning_of(found[0], rest, hops - 1)
        return None if name.startswith("super()") else f"builtins.{name}"

    def _meaning_of(self, bindings: list[Binding], rest: str, hops: int) -> Meaning:
        binding = next((each for each in reversed(bindings) if isinstance(each, str | Definition)), bindings[-1])
        match binding:
            case str():
                return self.files.imported(self.source, f"{binding}{rest}", hops)
            case Definition():
                return _member(binding, rest)
            case ast.Name() | ast.Attribute() if len(bindings) == 1:
                alias = dotted(binding)
                return alias and self.meaning(f"{alias}{rest}", hops)
            case _:
                return None


@final
class Files:
    """The linted files, by where they are imported from."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._modules: dict[Path, Scope] = {}
        for source in sources:
            scope = Scope(self, source, None, {})
            scope.bind(_own_nodes(source.tree.body))
            self._modules[_import_path(source.path)] = scope

    def __iter__(self) -> Iterator[Scope]:
        return iter(self._modules.values())

    def imported(self, source: Source, path: str, hops: int) -> Meaning:
        """What a file gets that imports this."""
        parts = path.lstrip(".").split(".")
        level = len(path) - len(path.lstrip("."))
        for folder in _origins(source.path, level):
            for length in range(len(parts), 0 if not level else -1, -1):
                module = self._modules.get(folder.joinpath(*parts[:length]))
                if module is not None:
                    name = ".".join(parts[length:])
                    return module.meaning(name, hops) if parts[length : length + 1] and parts[length] in module.bound else None
        return path


def dotted(node: ast.AST) -> str | None:
    """The text of a name, of `name.name…` and of `super().name`; None for other expressions."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    match node:
        case ast.Name(id=name):
            return ".".join([name, *reversed(parts)])
        case ast.Call(func=ast.Name(id="super"), args=[]) if parts:
            return ".".join(["super()", *reversed(parts)])
        case _:
            return None


def family_of(definition: Definition) -> tuple[Definition, ...]:
    """A class and its bases, as far as they are in the linted files; near ones first."""
    found: dict[int, Definition] = {}
    waiting = [definition]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each.node, ast.ClassDef) and id(each.node) not in found:
            found[id(each.node)] = each
            bases = (each.scope.meaning(dotted(base)) for base in each.node.bases)
            waiting.extend(base for base in bases if isinstance(base, Definition))
    return tuple(found.values())


@lru_cache(maxsize=256)  # the methods of one class are asked about one after another
def members(family: tuple[Definition, ...], first: int = 0) -> dict[str, list[Binding]]:
    """What an instance has, by name, from the first of these classes on: methods, declarations, and what methods assign to it."""
    found: dict[str, list[Binding]] = {}
    for home, owner in enumerate(family[first:], first):
        assert isinstance(owner.node, ast.ClassDef)
        inside = Scope(owner.scope.files, owner.scope.source, None, {})
        inside.bind(_own_nodes(owner.node.body))
        for name, bindings in inside.bound.items():
            methods: list[Binding] = [Definition(each.node, owner.scope, family, home) for each in bindings if isinstance(each, Definition)]
            found.setdefault(name, methods or bindings)
        for name, assigned in _assigned(owner.node):
            found.setdefault(name, []).append(assigned)
    return found


def _assigned(owner: ast.ClassDef) -> Iterator[tuple[str, Binding]]:
    """What the methods of a class assign to attributes of `self`; a name tells nothing, for elsewhere it may be another's."""
    for method in owner.body:
        if isinstance(method, FUNCTIONS) and method.args.args:
            myself = method.args.args[0].arg
            for node in _own_nodes(method.body):
                match node:
                    case ast.Assign(targets=[ast.Attribute(value=ast.Name(id=name), attr=attribute)], value=value) if name == myself:
                        yield attribute, None if isinstance(value, ast.Name) else value
                    case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if name == myself:
                        yield attribute, Annotation(node.annotation)


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes of a body but those of the functions and classes in it, and but the names that a value is assigned to by itself."""
    waiting = list(body)[::-1]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (*ROOMS, ast.ClassDef)):
            waiting.extend(reversed([child for child in ast.iter_child_nodes(node) if not _is_target(child, node)]))


def _is_target(child: ast.AST, parent: ast.AST) -> bool:
    """Whether a name is bound as a part of its parent: `name = value`, `name: type`, `name += value`, `(name := value)`."""
    match parent:
        case ast.Assign(targets=[ast.Name() as target]):
            return child is target
        case ast.AnnAssign(target=ast.Name() as target) | ast.AugAssign(target=ast.Name() as target) | ast.NamedExpr(target=target):
            return child is target
        case _:
            return False


def _bindings(node: ast.AST, scope: Scope) -> Iterator[tuple[str, Binding]]:
    match node:
        case ast.Import(names=names):
            yield from ((alias.asname or alias.name.partition(".")[0], _imported_module(alias)) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            origin = "." * level + (f"{module}." if module else "")
            yield from ((alias.asname or alias.name, origin + alias.name) for alias in names)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name, Definition(node, scope)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.NamedExpr(target=ast.Name(id=name), value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
            yield name, Annotation(annotation)
        case ast.arg(arg=name, annotation=type_):
            yield name, Annotation(type_) if type_ is not None else None
        case ast.Name(id=name, ctx=ast.Store()) | ast.ExceptHandler(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name, None
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name, None


def _imported_module(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.partition(".")[0]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """`self.rows.append` as `self.rows` and `.append`, then as `self` and `.rows.append`."""
    parts = name.split(".")
    for length in (2, 1)[len(parts) < 2 :]:
        yield ".".join(parts[:length]), "".join(f".{part}" for part in parts[length:])


def _member(definition: Definition, rest: str) -> Definition | None:
    """The definition itself, or a class's own or inherited method."""
    if not rest or not isinstance(definition.node, ast.ClassDef):
        return None if rest else definition
    found = members(family_of(definition)).get(rest[1:], [None])[-1]
    return found if isinstance(found, Definition) else None


def _import_path(path: Path) -> Path:
    """The path that an import of the file leads to: without the suffix, and a package's is its folder."""
    absolute = Path(os.path.abspath(path))
    return absolute.parent if absolute.name == "__init__.py" else absolute.with_suffix("")


def _origins(path: Path, level: int) -> Iterator[Path]:
    """The folders where an import may begin: for a relative one its package's, else where the outermost package lies, and above."""
    folder = Path(os.path.abspath(path)).parent
    if level:
        yield Path(folder, *[".."] * (level - 1)).resolve()
        return
    while (folder / "__init__.py").exists() and folder != folder.parent:
        folder = folder.parent
    yield folder
    yield from folder.parents
