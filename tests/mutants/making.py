"""Mutants: copies of a module that differ from it in one small thing, which a test ought to notice.

The same seed draws the same ones from the same source. Nothing is drawn that no program can notice: annotations, docstrings, `@final`.
"""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from cosmic_ray import plugins  # pyright: ignore[reportMissingImports]
from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports]
from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports]

# `is` is used for None, for members of enumerations and for classes here: of these, what is equal is identical.
UNNOTICEABLE: Final = {"core/ReplaceComparisonOperator_Is_Eq", "core/ReplaceComparisonOperator_IsNot_NotEq"}
NEEDS_NAMES: Final = {"core/VariableReplacer", "core/VariableInserter"}  # operators that are told of what to change


class Mutant(NamedTuple):
    """One changed module; `where` is the function or class that has the change, `before` and `after` are the lines it is in."""

    module: str
    where: str
    before: str
    after: str
    text: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others, whatever else changes in the module."""
        return self[:4]


class _Site(NamedTuple):
    operator: str
    nth: int  # of the operator's changes in the module
    place: tuple[str, tuple[int, int]]  # the kind of change, and where it begins


def draw(modules: Mapping[str, str], count: int, seed: int) -> list[Mutant]:
    """Draw `count` mutants of modules given as their texts, of each in proportion to its statements."""
    sizes = {module: sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(text))) for module, text in modules.items()}
    chance = random.Random(seed)
    drawn: list[Mutant] = []
    left = sum(sizes.values())
    for module, text in modules.items():
        share = round((count - len(drawn)) * sizes[module] / left)
        left -= sizes[module]
        drawn += _draw_of(module, text, share, chance)
    return drawn


def _draw_of(module: str, text: str, count: int, chance: random.Random) -> Iterator[Mutant]:
    seen: set[object] = {_meaning(text)}
    for site in _in_order(_sites(text), chance):
        if count == 0:
            return
        changed: str = mutate_code(text, plugins.get_operator(site.operator)(), site.nth) or text
        meaning = _meaning(changed)
        if not meaning or meaning in seen:
            continue
        mutant = _mutant(module, text, changed)
        if mutant.key not in seen:  # of two that read alike, one
            seen |= {meaning, mutant.key}
            count -= 1
            yield mutant
    raise SystemExit(f"{module} has {count} mutants less than are wanted of it; lower COUNT")


def _sites(text: str) -> Iterator[_Site]:
    nodes = list(ast_nodes(get_ast(text)))
    for name in sorted({*plugins.operator_names()} - UNNOTICEABLE - NEEDS_NAMES):
        operator = plugins.get_operator(name)()
        begins = [begin for node in nodes for begin, _ in operator.mutation_positions(node)]
        for nth, begin in enumerate(begins):
            yield _Site(name, nth, (name.partition("_")[0], begin))


def _in_order(sites: Iterator[_Site], chance: random.Random) -> list[_Site]:
    """By chance, but each place once before any comes twice: a plus has eleven replacements, and most of those fail at once."""
    shuffled = list(sites)
    chance.shuffle(shuffled)
    before: Counter[tuple[str, tuple[int, int]]] = Counter()
    ranked: list[tuple[int, _Site]] = []
    for site in shuffled:
        ranked.append((before[site.place], site))
        before[site.place] += 1
    return [site for _, site in sorted(ranked, key=lambda each: each[0])]


OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


class _Bare(ast.NodeTransformer):
    """Takes away what has no effect when the program runs, and says things in one way."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        """The node without annotations, docstring, `@final` and what needs no `not`; None for the name of a type."""
        match node:
            case ast.UnaryOp(op=ast.Not(), operand=ast.UnaryOp(op=ast.Not(), operand=operand)):
                return self.visit(operand)
            case ast.UnaryOp(op=ast.Not(), operand=ast.Compare(ops=[op]) as compared) if type(op) in OPPOSITES:
                compared.ops = [OPPOSITES[type(op)]()]
                return self.visit(compared)
            case _:
                return self._visit_typed(node)

    def _visit_typed(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.AnnAssign):
            if ast.unparse(node.annotation) == "TypeAlias":
                return None
            node.annotation = ast.Name("object")
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._undress(node)
        return self.generic_visit(node)

    def _undress(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if not isinstance(node, ast.ClassDef):
            node.returns = None
        node.decorator_list = [each for each in node.decorator_list if ast.unparse(each) != "final"]
        if ast.get_docstring(node) is not None:
            node.body = [*node.body[1:], ast.Pass()]


def _meaning(text: str) -> str:
    """What the program does, as text; empty if it is no program."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    _Bare().visit(tree)
    return ast.dump(tree)


def _mutant(module: str, text: str, changed: str) -> Mutant:
    old, new = text.splitlines(), changed.splitlines()
    begin = _alike(old, new)
    end = len(old) - _alike(old[begin:][::-1], new[begin:][::-1])
    before, after = old[begin:end], new[begin : len(new) - len(old) + end]
    return Mutant(module, _where(ast.parse(text), end), _joined(before), _joined(after), changed)


def _joined(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines).strip()


def _alike(some: list[str], others: list[str]) -> int:
    """How many lines are the same before the first that differs."""
    pairs = zip(some, others, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(some), len(others)))


def _where(tree: ast.AST, line: int) -> str:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                names.append(node.name)  # `walk` comes to what is around first
    return ".".join(names)
