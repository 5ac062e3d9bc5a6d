"""The commands that carry a store, or actors of it, somewhere else; none overwrites anything."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, cast

import anyio.to_thread
import typer

from ....storage import StoreError, StoreLocked
from .._tree import printable
from .._view import StoreView
from .._wording import counted
from ._options import AnyKey, AnyType, Key, StoreUrl, TypeName
from ._screen import complain, console, perform, size_text

if TYPE_CHECKING:
    from ..._moving import Moved

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="A new file; standard output, if none.")
]

FROM_A_BACKUP: Final = (
    "Or export from a backup, restored:\n"
    "    perdure backup COPY --store {store}\n    perdure restore COPY lmdb:OTHER\n    perdure export --store lmdb:OTHER"
)


def back_up(target: Annotated[str, typer.Argument(metavar="TARGET", help="A directory that does not exist.")], store: StoreUrl) -> None:
    """Copy a store, while a host may run.

    The copy is one moment of it, with everything that was acknowledged before. `restore` makes a store of it.
    """
    from ....storage import backup  # here, since no other command needs it

    perform(partial(_copy, partial(backup, store, target), f"{store} is copied to {target}", target))


def restore_backup(
    source: Annotated[str, typer.Argument(metavar="BACKUP", help="What `backup` has made; it stays as it is.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The path of the new store.")],
) -> None:
    """Make a store out of a backup.

    Do not host it beside the one that was copied: each would do again what the other does.
    """
    from ....storage import restore  # as above

    path = target.removeprefix("lmdb:")
    perform(partial(_copy, partial(restore, source, path), f"{source} is restored; its store is lmdb:{path}", path))


async def _copy(work: Callable[[], None], done: str, directory: str) -> None:
    began = time.perf_counter()
    await anyio.to_thread.run_sync(work)
    _say(done, _size_of(directory), began)


def _size_of(directory: str) -> int:
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())


def export(store: StoreUrl, type_name: AnyType = None, key: AnyKey = None, output: Output = None) -> None:
    """Write actors into a file: all, those of TYPE, or one.

    Everything of them is in it, with each message that was acknowledged; the store keeps them. It needs the store for itself: while a host
    runs, export from a backup, restored. An actor comes without those it waits for, unless they are exported too.
    """
    from ..._moving import export_actors  # as above

    if output is None and sys.stdout.isatty():
        raise typer.BadParameter("an export is no text: name a file with --output, or pipe it")
    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists; nothing is overwritten")

    async def work() -> None:
        began = time.perf_counter()
        with _new_file(output) as file:
            try:
                moved = await export_actors(store, file, type_name, key)
            except StoreLocked as locked:
                complain(locked)
                console(to_errors=True).print(printable(FROM_A_BACKUP.format(store=store)))
                raise typer.Exit(1) from None
        _say(f"{counted(moved.actors, 'actor')} exported", moved.size, began, to_errors=output is None)

    perform(work)


def export_history(type_name: TypeName, key: Key, store: StoreUrl, output: Output = None) -> None:
    """Write what is kept of an actor's past into a file, to be replayed in tests.

    A line of JSON for each message, with its arguments. A host may be at work on the store meanwhile. `keep_history=` of the actor's type
    says how much is kept; `perdure.actors.testing.replay_history` runs it against the code of today.
    """
    from importlib.metadata import version

    from ..._past import write_past  # as above
    from ..._standing import python_version

    if output is not None and output.exists():
        raise typer.BadParameter(f"{output} exists; nothing is overwritten")

    async def work() -> None:
        began = time.perf_counter()
        async with StoreView(store) as view:
            past = await view.past(type_name, key)
        with _new_file(output) as file:
            size = write_past(file, past, version("perdure"), python_version())
        if output is not None:
            _say(f"{counted(len(past.rows), 'message')} of {past.actor} exported", size, began)

    perform(work)


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, show_default=False, help="What `export` wrote.")],
    store: StoreUrl,
) -> None:
    """Bring exported actors into a store, which is made if there is none.

    Each is there whole or not at all. If it was broken off, say it again: what is there is passed over. Actors that the store has already,
    and otherwise, are named, and nothing is imported. No host may run.
    """
    from ..._moving import import_actors  # as above

    async def work() -> None:
        began = time.perf_counter()
        with source.open("rb") as file:
            moved = await import_actors(store, file)
        _say(_imported(moved), moved.size, began)

    perform(work)


def _imported(moved: Moved) -> str:
    were_there = f", {moved.present:,} were there already" if moved.present else ""
    return f"{counted(moved.actors, 'actor')} imported{were_there}"


@contextmanager
def _new_file(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output; or a file under another name, which gets its own when it is complete and durable."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    if not path.parent.is_dir():
        raise StoreError(str(path), "there is no such directory", "Make it first, or name another file.")
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.new-", dir=path.parent, delete=False) as file:
        try:
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _say(what: str, size: int, began: float, *, to_errors: bool = False) -> None:
    told = f"{what}: {size_text(size)} in {time.perf_counter() - began:,.1f} s"
    console(to_errors=to_errors).print(printable(told))
