"""What `explain` prints, for people and as JSON: the sentences of an explanation, and below each the commands that help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

import msgspec
from rich.padding import Padding
from rich.text import Text

from .._explain import Explanation, Link, explain
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
    page = _Page()
    page.print(0, told.text, style=f"bold {STATUS_STYLES.get(told.status, '')}".strip())
    page.print(0, told.host.text, told.host.commands, "" if told.host.is_running else "yellow")
    page.head("what it waits for", told.waits)
    for wait in told.waits:
        page.print(1, wait.text, wait.commands)
        for depth, link in enumerate(wait.chain, 2):
            page.link(depth, link)
    page.head("its children", told.children)
    for child in told.children:
        page.link(1, child)
    if told.children_in_all > len(told.children) > 0:
        page.print(1, f"and {told.children_in_all - len(told.children):,} more: perdure show lists them")
    page.head("its last turns", told.turns)
    for turn in told.turns:
        page.print(1, turn.text)
    page.head("what went wrong last", told.errors)
    for error in told.errors:
        page.print(1, error.text, error.commands, "red")
    page.head("what happens next", told.next)
    for prospect in told.next:
        page.print(1, prospect.text, prospect.commands)


@final
class _Page:
    """What is printed; each command stands below the first sentence that it helps with."""

    def __init__(self) -> None:
        self._screen = console()
        self._told: set[str] = set()

    def head(self, title: str, parts: Sequence[object]) -> None:
        """A part's title, unless there is nothing in it."""
        if parts:
            self._screen.print(f"\n{title}")

    def link(self, depth: int, link: Link) -> None:
        """An actor that is waited for, or a child."""
        self.print(depth, link.text, link.commands, "" if link.problem is None else "red")

    def print(self, depth: int, text: str, commands: Iterable[str] = (), style: str = "") -> None:
        """A sentence and its commands, so many steps to the right."""
        self._line(2 * depth, text, style)
        for command in commands:
            if command not in self._told:
                self._told.add(command)
                self._line(2 * depth + 4, command, "cyan")

    def _line(self, margin: int, text: str, style: str) -> None:
        self._screen.print(Padding(Text(printable(text), style), (0, 0, 0, margin), expand=False))
