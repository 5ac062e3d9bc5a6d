"""The arguments and options that several commands take: each means the same in all of them."""

from __future__ import annotations

from typing import Annotated

import typer


def checked_url(url: str) -> str:
    """The URL of a store that other processes may open. Raises BadParameter, saying what to write."""
    if url.startswith("memory:"):
        raise typer.BadParameter("a store in memory is in the memory of its own process alone")
    if ":" not in url:
        raise typer.BadParameter(f"{url!r} is not the URL of a store: write lmdb:{url}")
    return url


StoreUrl = Annotated[
    str,
    typer.Option("--store", metavar="URL", envvar="PERDURE_STORE", callback=checked_url, show_default=False, help="The store: lmdb:PATH."),
]
TypeName = Annotated[str, typer.Argument(metavar="TYPE", help="The actor's type.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The actor's key.")]
AnyType = Annotated[str | None, typer.Argument(metavar="TYPE", show_default=False, help="Of this type only.")]
AnyKey = Annotated[str | None, typer.Argument(metavar="KEY", show_default=False, help="Of this actor only.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called in the actor's class.")]
Json = Annotated[str, typer.Argument(metavar="JSON", help="The arguments: an array, or an object by name.")]
Reason = Annotated[str, typer.Argument(metavar="[REASON]", show_default=False, help="Why, for whoever waits for it.")]
IdempotencyKey = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", show_default=False, help="Idempotency key: sent again with it, it happens once.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, metavar="N", help="Show so many at most.")]
