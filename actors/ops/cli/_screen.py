"""What the command line looks like: one column of names, few colours, times as people say them; errors as help, on standard error.

Whatever comes from a store is escaped, so that it cannot steer the terminal.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final, NoReturn, TextIO, TypeVar, cast, final

import anyio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ....storage import PerdureError
from ..._clock import SystemClock
from ..._errors import ActorNotFound, DeadLetterNotFound, InvalidKey, UnknownActorType, UnknownHandler, WrongArguments
from .._serving import NoActors
from .._tree import printable
from .._wording import roughly
from ..demo._feed import FeedError

MISTAKES: Final = (ActorNotFound, DeadLetterNotFound, FeedError, InvalidKey, NoActors, UnknownActorType, UnknownHandler, WrongArguments)
WIDE: Final = 400  # columns of what is no terminal: a file or a pipe wraps nothing
STATUS_STYLES: Final = {"quarantined": "red", "failed": "red", "suspended": "cyan", "completed": "green", "cancelled": "dim"}

T = TypeVar("T")

_ENDS: Final = re.compile(r" +$", re.MULTILINE)
_SIZES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@final
class _Trimmed(io.TextIOBase):
    """Standard output without the spaces that align the ends of lines: a file or a pipe has no use for them."""

    def write(self, text: str, /) -> int:
        """Write whole lines."""
        return sys.stdout.write(_ENDS.sub("", text))

    def flush(self) -> None:
        """Flush standard output."""
        sys.stdout.flush()


def console(*, to_errors: bool = False) -> Console:
    """Standard output, or standard error: what is printed beside JSON."""
    if to_errors:
        return Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)
    if sys.stdout.isatty():
        return Console(highlight=False, emoji=False, markup=False)
    return Console(file=cast("TextIO", _Trimmed()), highlight=False, emoji=False, markup=False, width=WIDE)


def perform(work: Callable[[], Awaitable[None]]) -> None:
    """Do a command's work; whatever goes wrong in it in an expected way ends the command with one sentence and its status."""
    try:
        anyio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BaseExceptionGroup as group:
        refuse(_first_of(group))
    except (PerdureError, OSError) as error:
        refuse(error)


def refuse(error: BaseException) -> NoReturn:
    """Say what went wrong, and end the command: with 2 for a mistake in its call, with 1 for trouble."""
    if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough
        raise typer.Exit(0)
    if not isinstance(error, PerdureError | OSError):
        raise error
    complain(error)
    raise typer.Exit(2 if isinstance(error, MISTAKES) else 1)


def complain(error: BaseException) -> None:
    """Say what went wrong, on standard error."""
    console(to_errors=True).print(Text.assemble(("error: ", "bold red"), printable(str(error))))


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of several errors that are all expected: many requests may fail for one cause. Else the group."""
    expected, others = group.split((PerdureError, OSError))
    if expected is None or others is not None:
        return group
    error: BaseException = expected
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def first(limit: int, items: AsyncIterator[T]) -> tuple[list[T], bool]:
    """The first items, and whether there are more."""
    found: list[T] = []
    async for item in items:
        if len(found) == limit:
            return found, True
        found.append(item)
    return found, False


def table(*columns: str, right: Iterable[str] = ()) -> Table:
    """A table without lines, its columns aligned; those named in `right` to the right."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def facts(rows: Iterable[tuple[str, str | Text]], *, right: bool = False) -> Table:
    """Names and what they stand for, in two columns."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(justify="right" if right else "left", overflow="fold")
    for name, value in rows:
        made.add_row(f"  {name}", value)
    return made


def key_text(key: str) -> str:
    """A key as it can be typed and read."""
    return key if key and key.isprintable() and key == key.strip() else repr(key)


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, STATUS_STYLES.get(status, ""))


def ago(at: float) -> str:
    """How long ago a time of the store was, or in how long it will be."""
    if not at:
        return "-"
    seconds = SystemClock().now() - at
    return f"{roughly(seconds)} ago" if seconds >= 0 else f"in {roughly(-seconds)}"


def due(at: float) -> str:
    """When something is to happen: in some time, or at once if a host comes."""
    return ago(at) if at > SystemClock().now() else f"due since {roughly(SystemClock().now() - at)}"


def when(at: float) -> str:
    """A time of the store, in the local time zone, and how long ago that was."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S} ({ago(at)})" if at else "-"


def size_text(size: int) -> str:
    """A number of bytes as people say it."""
    for unit, name in _SIZES:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
