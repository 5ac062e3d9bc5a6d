"""What `perdure demo` shows: a bar while events go out, a line for each kill, and at the end the count.

It leaves nothing behind, however it ends: no process, and no file but a store that was asked for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, final

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from .._wording import counted
from ..demo import Order
from ..demo._drive import Count, Drive, Kill
from ..demo._drive import Progress as Driven
from ..demo._feed import Feed
from ..demo._process import HostProcess
from ._screen import console, facts

STOPPED: Final = 143  # the status of a process that ended by SIGTERM


async def demonstrate(feed: Feed, kills: int, store: str | None) -> None:
    """Run the demo. Raises typer.Exit with status 1 if anything was lost, doubled or disordered."""
    counts: list[Count] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_heed_signals, tasks.cancel_scope)
        counts.append(await _driven(feed, kills, store))
        tasks.cancel_scope.cancel()
    if not counts:
        raise typer.Exit(STOPPED)
    if not counts[0].is_sound:
        raise typer.Exit(1)


async def _driven(feed: Feed, kills: int, store: str | None) -> Count:
    screen = console()
    things = "order" if feed.actor is Order else "case"
    cases = counted(len(feed.by_case()), things)
    screen.print(f"{feed.name}: {counted(len(feed.events), 'event')} of {cases}; their host is killed {counted(kills, 'time')}\n")
    with TemporaryDirectory(prefix="perdure-demo-") as directory:
        host = HostProcess(store or f"lmdb:{directory}/store", Path(directory))
        try:
            with _showing(screen) as display:
                drive = Drive(feed, store or f"lmdb:{directory}/store", host, kills, display.show)
                count = await drive.run()
                await host.stop()
        finally:
            host.close()
    _print_count(screen, count, drive.progress, things)
    if store is not None:
        screen.print(f"\nThe store is kept: perdure ls --store {store}", style="dim")
    return count


async def _heed_signals(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()
            return


@final
class _Display:
    """Follows a drive on the screen."""

    def __init__(self, screen: Console, bar: Progress | None) -> None:
        self._screen = screen
        self._bar = bar
        self._told = 0
        self._task = None if bar is None else bar.add_task("", total=None, rate="", doing="starting a host")

    def show(self, progress: Driven) -> None:
        """Show how far it is."""
        if self._bar is not None and self._task is not None:
            dead = progress.kills and progress.kills[-1].recovery is None
            doing = "killed" if dead else "sending" if progress.acknowledged < progress.events else "reading back"
            self._bar.update(self._task, total=progress.events, completed=progress.acknowledged, doing=doing)
        while self._told < len(progress.kills) and progress.kills[self._told].recovery is not None:
            self._screen.print(_line_of(progress.kills[self._told]))
            self._told += 1


@contextmanager
def _showing(screen: Console) -> Iterator[_Display]:
    if not screen.is_terminal:
        yield _Display(screen, None)
        return
    columns = (
        TextColumn("  {task.fields[doing]:<16}"),
        BarColumn(40, complete_style="cyan", finished_style="cyan", pulse_style="dim"),
        TextColumn("{task.completed:>7,.0f}"),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        yield _Display(screen, bar)


def _line_of(kill: Kill) -> Text:
    return Text.assemble(
        ("  SIGKILL ", "red"),
        f"after {kill.after:>6,} events, {kill.in_flight:>3} in flight; ",
        f"the next host answers after {kill.recovery or 0:.2f} s",
    )


def _print_count(screen: Console, count: Count, progress: Driven, things: str) -> None:
    def verdict(number: int) -> Text:
        return Text(f"{number:,}", "bold green" if number == 0 else "bold red")

    rows: list[tuple[str, str | Text]] = [
        ("sent", f"{count.sent:,}"),
        ("applied", f"{count.applied:,}"),
        ("lost", verdict(count.lost)),
        ("doubled", verdict(count.doubled)),
        (f"{things}s out of order", verdict(count.disordered)),
        ("sent again", f"{progress.again:,}"),
        ("restarts", f"{len(progress.kills):,}"),
    ]
    recoveries = [kill.recovery for kill in progress.kills if kill.recovery is not None]
    if recoveries:
        rows += [("recovery, median", f"{median(recoveries):.2f} s"), ("recovery, longest", f"{max(recoveries):.2f} s")]
    rows += [("time", f"{progress.seconds:.1f} s"), ("throughput", f"{count.sent / progress.seconds:,.0f} events/s")]
    screen.print()
    screen.print(facts(rows, right=True))
    good = "Every event was applied exactly once, in its order."
    bad = "The promise is broken: what was applied is not what was sent."
    screen.print(Text(f"\n{good}" if count.is_sound else f"\n{bad}", "green" if count.is_sound else "bold red"))
