"""Checks: the rules applied to one replayed function, each refusal at the place in the file that is to be changed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, final

from . import _rules
from ._names import Meaning, Scope, dotted
from ._replay import Replayed
from ._rules import Rule, rule_of_call, rule_of_mention
from ._values import GATHERING, PATH, SET, elements, is_coroutine, makes

MAX_TEXT: Final = 40  # characters of the refused code that a message shows

COMPREHENSIONS: Final = (ast.ListComp, ast.GeneratorExp)


@final
class Finding(NamedTuple):
    """What is wrong at a place; lines and columns count from 1. `handler` is the one whose replay would come there, as `Order.run`."""

    path: Path
    line: int
    column: int
    code: str
    message: str
    handler: str


Finding.__module__ = "perdure.actors.ops.lint"


def findings_in(function: Replayed) -> Iterator[Finding]:
    """What is wrong in a replayed function, but for what its lines say `# noqa` of."""
    via = "" if function.is_handler else f" (`{function.handler}` leads here)"
    source = function.definition.scope.source
    for node, rule, what in _refusals(function):
        if not source.silences(node.lineno, rule.code):
            yield Finding(source.path, node.lineno, source.column(node), rule.code, rule.told(what) + via, function.handler)


def _refusals(function: Replayed) -> Iterator[tuple[ast.expr, Rule, str]]:
    """Nodes, the rules that refuse them, and how the message calls them."""
    unordered = {id(argument) for node, scope in function.spots for argument in _taken_in_any_order(node, scope)}
    for node, scope in function.spots:
        match node:
            case ast.Name(ctx=ast.Load()) | ast.Attribute(ctx=ast.Load()):
                meaning = scope.meaning(dotted(node))
                rule = rule_of_mention(meaning) if isinstance(meaning, str) else None
                if rule is not None:
                    yield node, rule, _shown(meaning)
            case ast.Call():
                yield from _refused_calls(node, scope)
        if id(node) not in unordered:
            yield from ((each, _rules.ORDER, _text(each)) for each in _ordered_uses(node, scope) if makes(SET, each, scope))


def _refused_calls(call: ast.Call, scope: Scope) -> Iterator[tuple[ast.expr, Rule, str]]:
    meaning = scope.meaning(dotted(call.func))
    if isinstance(meaning, str):
        rule = rule_of_call(meaning, bare=not call.args and not call.keywords) or _rule_of_waiting(meaning, call, scope)
        if rule is not None:
            yield call.func, rule, _shown(meaning)
    if meaning is None and isinstance(call.func, ast.Attribute):
        rule = _rule_of_method(call.func, scope)
        if rule is not None:
            yield call.func, rule, call.func.attr


def _rule_of_waiting(name: str, call: ast.Call, scope: Scope) -> Rule | None:
    """That of `as_completed` over coroutines, and of `wait` over gatherings: CPython keeps what both make of them in sets by address."""
    if name == "asyncio.as_completed" and any(is_coroutine(*each) for each in elements(_first(call), scope)):
        return _rules.COMPLETED
    if name == "asyncio.wait" and any(makes(GATHERING, *each) for each in elements(_first(call), scope)):
        return _rules.GATHERED
    return None


def _rule_of_method(method: ast.Attribute, scope: Scope) -> Rule | None:
    if method.attr in _rules.PATH_METHODS and makes(PATH, method.value, scope):
        return _rules.OUTSIDE
    return _rules.METHODS.get(method.attr)


def _ordered_uses(node: ast.AST, scope: Scope) -> Iterator[ast.expr]:
    """The expressions that are gone through in their own order."""
    match node:
        case ast.For(iter=iterated) | ast.Starred(value=iterated, ctx=ast.Load()):
            yield iterated
        case ast.ListComp(generators=generators) | ast.GeneratorExp(generators=generators) | ast.DictComp(generators=generators):
            yield from (generator.iter for generator in generators)
        case ast.Call(func=ast.Attribute(value=value, attr="pop"), args=[]):
            yield value
        case ast.Call(func=ast.Attribute(value=ast.Constant(), attr="join"), args=[argument]):
            yield argument
        case ast.Call(func=function, args=arguments) if scope.meaning(dotted(function)) in _rules.ORDERED:
            yield from arguments


def _taken_in_any_order(node: ast.AST, scope: Scope) -> list[ast.expr]:
    """The arguments of a call that makes the same of them in whatever order they come, as `sorted` does."""
    match node:
        case ast.Call(func=function, args=arguments) if scope.meaning(dotted(function)) in _rules.UNORDERED:
            return [each for each in arguments if isinstance(each, COMPREHENSIONS)]
        case _:
            return []


def _first(call: ast.Call) -> ast.expr:
    return call.args[0] if call.args else ast.Constant(None)


def _shown(meaning: Meaning) -> str:
    return str(meaning).removeprefix("builtins.")


def _text(node: ast.expr) -> str:
    """The code as it may stand in a message."""
    text = ast.unparse(node)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
