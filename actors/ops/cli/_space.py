"""`perdure du` and `perdure compact`: what takes the room in a store, and how it gets smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .._view import StoreView
from ._looking import print_json
from ._options import AnyType, AsJson, StoreUrl
from ._screen import console, key_text, perform, size_text, table

if TYPE_CHECKING:
    from .._usage import Share, Usage

Top = Annotated[int, typer.Option(min=0, metavar="N", help="Name so many of the biggest actors.")]


def du(store: StoreUrl, type_name: AnyType = None, top: Top = 10, as_json: AsJson = False) -> None:
    """Show what takes the room in a store: by kind, by actor type, the biggest actors, the files.

    It reads beside a host, which goes on meanwhile; SIZE is what is in the rows, without what LMDB adds.
    """

    async def work() -> None:
        from .._usage import usage  # here, since it loads what measures files

        if type_name is not None:
            async with StoreView(store) as view:
                await view.check_type(type_name)
        found = usage(store, type_name, top)
        if as_json:
            print_json(_json_of(found))
        else:
            _print_usage(found, store)

    perform(work)


def compact(store: StoreUrl, as_json: AsJson = False) -> None:
    """Give back the room that a store does not need any more, while nobody has it open.

    An LMDB file shrinks only by a copy of what is in it, so there must be room for that. Killed at any instant, the store is whole.
    """

    async def work() -> None:
        from ....storage import compact as compact_store  # as above

        done = compact_store(store)
        if as_json:
            print_json(done._asdict())
            return
        for name, before, after in (("store", done.before, done.after), ("inbox", done.inbox_before, done.inbox_after)):
            console().print(f"{name}: {size_text(before)} before, {size_text(after)} after")

    perform(work)


def _json_of(found: Usage) -> dict[str, object]:
    return {
        "kinds": [share._asdict() for share in found.kinds],
        "types": [share._asdict() for share in found.types],
        "actors": [{**share.id._asdict(), "rows": share.rows, "size": share.size} for share in found.actors],
        "files": [file._asdict() for file in found.files],
    }


def _print_usage(found: Usage, store: str) -> None:
    screen = console()
    _print_shares(screen, "KIND", found.kinds)
    _print_shares(screen, "TYPE", found.types)
    if found.actors:
        rows = table("TYPE", "KEY", "ROWS", "SIZE", right=("ROWS", "SIZE"))
        for actor in found.actors:
            rows.add_row(actor.id.type, key_text(actor.id.key), f"{actor.rows:,}", size_text(actor.size))
        screen.print(rows)
        screen.print()
    rows = table("FILE", "SIZE", "SPARE", right=("SIZE", "SPARE"))
    for file in found.files:
        rows.add_row(file.name, size_text(file.size), size_text(file.spare) if file.spare else "")
    screen.print(rows)
    spare = sum(file.spare for file in found.files)
    if spare:
        screen.print(f"\nspare pages are used again; to give back {size_text(spare)}: perdure compact --store {store}", style="dim")


def _print_shares(screen: Console, title: str, shares: list[Share]) -> None:
    if not shares:
        return
    rows = table(title, "ROWS", "SIZE", right=("ROWS", "SIZE"))
    for share in shares:
        rows.add_row(share.name, f"{share.rows:,}", size_text(share.size))
    screen.print(rows)
    screen.print()
