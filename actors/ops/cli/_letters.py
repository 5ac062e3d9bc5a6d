"""The commands of `perdure dead-letters`: each is about the letters of one actor or, where that is said, of more."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final, final

import typer
from typer.core import TyperGroup

from .._view import StoreView
from .._wording import counted
from . import _looking
from ._options import AnyKey, AnyType, AsJson, Json, Key, Limit, StoreUrl, TypeName
from ._screen import first, key_text, perform

MAX_SEQ: Final = (1 << 63) - 1

Seq = Annotated[int, typer.Argument(metavar="SEQ", min=0, max=MAX_SEQ, help="The letter's number.")]
Seqs = Annotated[
    list[int] | None,
    typer.Argument(metavar="[SEQ]...", min=0, max=MAX_SEQ, show_default=False, help="The letters' numbers; all of the actor's, if none."),
]


@final
class ListingGroup(TyperGroup):
    """A group that lists, unless it is told what else to do."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in click."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


letters: Final = typer.Typer(cls=ListingGroup, rich_markup_mode=None, help="List the messages that could not be handled, and act on them.")


@letters.command("list")
def list_letters(store: StoreUrl, type_name: AnyType = None, key: AnyKey = None, limit: Limit = 100, as_json: AsJson = False) -> None:
    """List the messages that could not be handled. No command means this one."""

    async def work() -> None:
        async with StoreView(store) as view:
            found, more = await first(limit, view.dead_letters(type_name, key))
        if as_json:
            _looking.print_json([_looking.json_of_letter(letter) for letter in found])
        else:
            _looking.print_letters(found, more=more)

    perform(work)


@letters.command()
def show(type_name: TypeName, key: Key, seq: Seq, store: StoreUrl, as_json: AsJson = False) -> None:
    """Show one message whole, with what was wrong."""

    async def work() -> None:
        async with StoreView(store) as view:
            letter = await view.dead_letter(type_name, key, seq)
        if as_json:
            _looking.print_json(_looking.json_of_letter_view(letter))
        else:
            _looking.print_letter(letter)

    perform(work)


@letters.command()
def redrive(type_name: TypeName, store: StoreUrl, key: AnyKey = None, seqs: Seqs = None, as_json: AsJson = False) -> None:
    """Put messages back into the mailbox, in the order in which they were put aside.

    With TYPE alone: those of every actor of it. A host does it: where none answers, the request is stored for the next one.
    """
    from . import _asking  # here, since it loads what a client needs

    if key is None:
        perform(partial(_asking.redrive_all, store, type_name, as_json=as_json))
    else:
        perform(partial(_asking.redrive, store, type_name, key, seqs or [], as_json=as_json))


@letters.command()
def drop(
    type_name: TypeName,
    key: Key,
    store: StoreUrl,
    seqs: Seqs = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before all are forgotten.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget messages for good. Before it forgets all of an actor's it asks.

    A host does it, as with redrive.
    """
    from . import _asking  # as above

    if not (seqs or yes):
        perform(partial(_confirm_all, store, type_name, key))
    perform(partial(_asking.drop, store, type_name, key, seqs or [], as_json=as_json))


async def _confirm_all(store: str, type_name: str, key: str) -> None:
    async with StoreView(store) as view:
        count = len([letter async for letter in view.dead_letters(type_name, key)])
    if count:
        typer.confirm(f"Forget {counted(count, 'dead letter')} of {type_name}/{key_text(key)} for good?", abort=True, err=True)


@letters.command()
def edit(type_name: TypeName, key: Key, seq: Seq, json: Json, store: StoreUrl, as_json: AsJson = False) -> None:
    """Give a message other arguments; it stays where it is until redriven.

    They are checked as those of `send` are. A host does it, as with redrive.
    """
    from . import _asking  # as above

    perform(partial(_asking.edit, store, type_name, key, seq, json, as_json=as_json))
