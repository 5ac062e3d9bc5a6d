"""`perdure check-upgrade`: what would become of a store's actors under the code of today, before that is deployed.

The report goes to standard output, and how far it is to standard error, if that is a terminal.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..._registry import Registry
from .._serving import actor_classes, import_named
from .._tree import printable
from .._upgrade import Concern, Verdict
from .._upgrade_report import Group, Report
from .._wording import counted
from ._looking import print_json
from ._options import AsJson, StoreUrl
from ._screen import console, key_text, perform

PATCHED: Final = """If the code was changed on purpose, let those that wait go on as before:
    if patched("what-has-changed"): …   # as it is now
    else: …                             # as it was then
or give the class the next version, and host the old one beside it. If it was not: `perdure lint` finds what differs each run."""

OF_A_SCRIPT: Final = """The host that recorded this ran a script, whose steps are named for `__main__`; here they are named for the module.
Define them in a module that the script imports, or give each the name that is recorded: @step(name="__main__.…")."""


def check_upgrade(
    module: Annotated[str, typer.Argument(metavar="MODULE", help="The code to be deployed: a dotted name, or the path of a .py file.")],
    store: StoreUrl,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", show_default="one for each CPU", help="Processes at work.")] = os.cpu_count()
    or 1,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long an actor's code may run at a time.")] = 10.0,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show so many keys of each kind at most.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Tell before a deploy which actors would not go on with the new code.

    Every actor that waits is replayed against the code of MODULE, and the state of every other one is migrated and loaded, in processes of
    their own. Nothing is written and no step runs, and a host may be at work on the store meanwhile. Ends with status 1 if any actor would
    be quarantined, or a message put aside.
    """
    from .._upgrade_workers import Task, check_all, count_actors  # here, since no other command needs it

    report = Report(limit)

    async def work() -> None:
        Registry.of_classes(actor_classes(import_named(module)))
        with _showing(report) as (has_bar, follow):
            follow(await count_actors(store) if has_bar else 0)
            await check_all(Task(store, module, timeout), jobs, report, lambda: follow(None))

    perform(work)
    if as_json:
        print_json(json_of_report(report))
    else:
        print_report(report)
    if report.is_refusal:
        raise typer.Exit(1)


@contextmanager
def _showing(report: Report) -> Iterator[tuple[bool, Callable[[int | None], None]]]:
    """(whether there is a bar, what shows how far it is; it is told the total once that is known)."""
    screen = Console(stderr=True, highlight=False, emoji=False, markup=False)
    if not screen.is_terminal:
        yield False, lambda _: None
        return
    columns = (
        TextColumn("  checking"),
        BarColumn(40, complete_style="cyan", finished_style="cyan"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=None)

        def follow(total: int | None) -> None:
            if total is not None:
                bar.update(task, total=total)
            bar.update(task, completed=report.actors)

        yield True, follow


# --- for people ---


def print_report(report: Report) -> None:
    """What was found, the gravest first, and a line that sums it up."""
    screen = console()
    for group in report.groups():
        screen.print(_text_of(group), soft_wrap=True)
        screen.print()
    screen.print(_summary(report))


def _text_of(group: Group) -> Text:
    first = group.first
    style = "bold red" if first.concern.is_refusal else "yellow"
    text = Text.assemble((_whose(group), "bold"), (f" {first.concern}", style), f": {_keys(group)}")
    if first.then or first.now:
        text.append(f"\n  On replay of {printable(first.name)} it asks for something else than when it first ran, and ends there:\n")
        text.append_text(_difference(first.then, first.now))
        cure = OF_A_SCRIPT if any(asked.startswith("step __main__.") for asked in first.then) else PATCHED
        return text.append("".join(f"\n  {line}" for line in cure.splitlines()))
    about = f"{first.name}: " if first.name else ""
    return text.append("".join(f"\n  {line}" for line in printable(about + first.text).splitlines()))


def _whose(group: Group) -> str:
    first = group.first
    versions = f" version {first.version}" if first.version else ""
    if first.target and first.version not in {0, first.target}:
        versions += f" → {first.target}"
    what = "message" if first.concern is Concern.PUT_ASIDE else "actor"
    return f"{printable(first.actor.type)}{versions}: {counted(group.count, what)}"


def _keys(group: Group) -> str:
    shown = ", ".join(key_text(key) for key in group.keys)
    return f"{shown}, …" if group.count > len(group.keys) else shown


def _difference(then: tuple[str, ...], now: tuple[str, ...]) -> Text:
    styles = {"-": "red", "+": "green"}
    made = Text()
    for line in list(difflib.unified_diff(then, now, "then", "now", lineterm="", n=3)):
        made.append(f"    {printable(line)}\n", "dim" if line.startswith(("---", "+++", "@@")) else styles.get(line[0], ""))
    made.rstrip()
    return made


def _summary(report: Report) -> Text:
    found = report.verdicts
    refused = found[Verdict.QUARANTINED]
    rest = (
        (Verdict.ENDED, "ended"),
        (Verdict.STANDS_STILL, "stand still already"),
        (Verdict.UNSERVED, "are of a type that is not served"),
        (Verdict.UNCHECKED, "could not be checked"),
    )
    parts = [f"{found[Verdict.GOES_ON]:,} go on as they are", f"{found[Verdict.MIGRATES]:,} migrate"]
    parts += [f"{found[verdict]:,} {said}" for verdict, said in rest if found[verdict]]
    text = Text(f"{counted(report.actors, 'actor')}: {', '.join(parts)}, ")
    return text.append(f"{refused:,} would be quarantined", "bold red" if refused else "bold green")


# --- for programs ---


def json_of_report(report: Report) -> dict[str, object]:
    """The report as JSON."""
    return {
        "actors": report.actors,
        **{verdict.name.lower(): report.verdicts[verdict] for verdict in Verdict},
        "findings": [_json_of_group(group) for group in report.groups()],
    }


def _json_of_group(group: Group) -> dict[str, object]:
    told: dict[str, object] = group.first._asdict()
    del told["actor"]
    return {**told, "concern": group.first.concern.name.lower(), "type": group.first.actor.type, "count": group.count, "keys": group.keys}
