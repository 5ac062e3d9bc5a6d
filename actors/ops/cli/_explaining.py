"""What `explain` prints, for people and as JSON: the sentences of an explanation, and below each the commands that help."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from .._explain import Awaited, Explanation, Link, explain
from .._tree import printable
from .._view import StoreView
from ._looking import print_json
from ._options import AsJson, Key, StoreUrl, TypeName
from ._screen import STATUS_STYLES, console, perform


def explain_actor(type_name: TypeName, key: Key, store: StoreUrl, as_json: AsJson = False) -> None:
    """Say what an actor waits for, what it did last, what went wrong, and what happens next.

    Needs no host, and says whether one runs. Each command that it tells takes --store, or $PERDURE_STORE.
    """

    async def work() -> None:
        async with StoreView(store) as view:
            situation = await view.situation(type_name, key)
        explanation = explain(situation, store)
        if as_json:
            print_json(msgspec.to_builtins(explanation))
        else:
            print_explanation(explanation)

    perform(work)


def print_explanation(told: Explanation) -> None:
    """All of it, in the order in which somebody who is woken up asks."""
    screen = console()
    screen.print(Text(printable(told.text), f"bold {STATUS_STYLES.get(told.status, '')}".strip()))
    _print(screen, 0, told.host.text, told.host.commands, "" if told.host.is_running else "yellow")
    _head(screen, "what it waits for", told.waits)
    for wait in told.waits:
        _print_wait(screen, wait)
    _head(screen, "its children", told.children)
    for child in told.children:
        _print_link(screen, 1, child)
    if told.children_in_all > len(told.children) > 0:
        _print(screen, 1, f"and {told.children_in_all - len(told.children):,} more: perdure show lists them")
    _head(screen, "its last turns", told.turns)
    for turn in told.turns:
        _print(screen, 1, turn.text)
    _head(screen, "what went wrong last", told.errors)
    for error in told.errors:
        _print(screen, 1, error.text, error.commands, "red")
    _head(screen, "what happens next", told.next)
    said = set(chain.from_iterable(wait.commands for wait in told.waits)) | set(chain.from_iterable(each.commands for each in told.errors))
    for prospect in told.next:
        _print(screen, 1, prospect.text, [command for command in prospect.commands if command not in said])


def _head(screen: Console, title: str, parts: tuple[object, ...]) -> None:
    if parts:
        screen.print(f"\n{title}")


def _print_wait(screen: Console, wait: Awaited) -> None:
    _print(screen, 1, wait.text, wait.commands)
    for depth, link in enumerate(wait.chain, 2):
        _print_link(screen, depth, link)


def _print_link(screen: Console, depth: int, link: Link) -> None:
    _print(screen, depth, link.text, link.commands, "" if link.problem is None else "red")


def _print(screen: Console, depth: int, text: str, commands: Iterable[str] = (), style: str = "") -> None:
    screen.print(Padding(Text(printable(text), style), (0, 0, 0, 2 * depth), expand=False))
    for command in commands:
        screen.print(Padding(Text(printable(command), "cyan"), (0, 0, 0, 2 * depth + 4), expand=False))
