"""The commands of `perdure`, and what each takes."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Final, final

import msgspec
import typer

from ..._define import definition_of
from ..._errors import UnknownActorType
from ..._records import status_named
from ..._runtime import Runtime
from .._serving import actor_classes, import_named, serve
from .._tree import Node, node_of
from .._view import ActorView, StoreView
from ..demo._feed import Columns, read_feed, shipped_feed
from . import _looking
from ._explaining import explain_actor
from ._letters import letters
from ._moving import back_up, export, export_history, import_, restore_backup
from ._options import AnyKey, AnyType, AsJson, IdempotencyKey, Json, Key, Limit, Name, Reason, StoreUrl, TypeName, checked_url
from ._screen import console, first, perform
from ._space import compact, du
from ._tracing import trace
from ._upgrading import check_upgrade

app: Final = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Look at the actors of a store and act on them, host a module's actors, check their code, or watch a host being killed.",
)
app.add_typer(letters, name="dead-letters")


def _checked_new_store(url: str | None) -> str | None:
    if url is not None and Path(checked_url(url).partition(":")[2]).exists():
        raise typer.BadParameter(f"{url} is there already; the demo begins with a new one")
    return url


def _checked_status(name: str | None) -> str | None:
    try:
        return name if name is None else status_named(name).name.lower()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def demo(
    feed: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, show_default=False, help="Events as JSON lines, or a process log (.csv)."
        ),
    ] = None,
    kills: Annotated[int, typer.Option(min=0, max=100, metavar="N", help="How often the host is killed.")] = 3,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False, callback=_checked_new_store, help="Keep the store here, to look at it afterwards: lmdb:PATH."
        ),
    ] = None,
    case_column: Annotated[str, typer.Option(metavar="NAME", help="Of a process log: the case.")] = Columns().case,
    activity_column: Annotated[str, typer.Option(metavar="NAME", help="Of a process log: what happened.")] = Columns().activity,
    time_column: Annotated[str, typer.Option(metavar="NAME", help="Of a process log: when.")] = Columns().time,
) -> None:
    """Kill a busy host three times, and count what was lost.

    A feed of events goes to actors whose host is killed half-way; in the end each is asked what it has applied. Without FILE
    it is a shop's: some 2,000 events of 200 orders. Ends with status 1 if anything was lost, or happened twice.
    """
    from ._demonstrating import demonstrate  # here, since no other command needs it

    columns = Columns(case_column, activity_column, time_column)

    async def work() -> None:
        await demonstrate(shipped_feed() if feed is None else read_feed(feed, columns), kills, store)

    perform(work)


@app.command()
def run(
    module: Annotated[str, typer.Argument(metavar="MODULE", help="A dotted name, or the path of a .py file.")],
    store: StoreUrl,
) -> None:
    """Host the actor types of a module until SIGTERM or Ctrl-C."""

    async def work() -> None:
        actors = actor_classes(import_named(module))
        await serve(actors, store, partial(_say_serving, store))

    perform(work)


def _say_serving(store: str, runtime: Runtime) -> None:
    types = ", ".join(definition.name for definition in runtime.registry)
    console().print(f"serving {types} on {store}; stop with Ctrl-C")


@app.command()
def ls(
    store: StoreUrl,
    type_name: AnyType = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="STATUS", callback=_checked_status, show_default=False, help="Only these, as idle or quarantined."),
    ] = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", show_default=False, help="Only keys that begin so.")] = "",
    version: Annotated[int | None, typer.Option(min=1, metavar="N", show_default=False, help="Only what is of this version.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List actors, in order of type and key."""

    async def work() -> None:
        async with StoreView(store) as view:
            found = view.actors(type_name, status, prefix)
            infos, more = await first(limit, (info async for info in found if version in {None, info.version}))
        if as_json:
            _looking.print_json([_looking.json_of_info(info) for info in infos])
        else:
            _looking.print_actors(infos, more=more)

    perform(work)


@app.command()
def show(
    type_name: TypeName,
    key: Key,
    store: StoreUrl,
    unpickle: Annotated[
        str | None,
        typer.Option(metavar="MODULE", show_default=False, help="Load the state with the classes of this module, which runs its code."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an actor is, what waits for it, and its state.

    The state is read without being loaded, so no class is needed, and nothing that it holds can run.
    """

    async def work() -> None:
        async with StoreView(store) as view:
            actor = await view.actor(type_name, key)
        state = actor.state if unpickle is None or actor.state is None else _loaded(actor, unpickle)
        if as_json:
            _looking.print_json(_looking.json_of_actor(actor, state))
        else:
            _looking.print_actor(actor, state)

    perform(work)


def _loaded(actor: ActorView, module: str) -> Node:
    definitions = {definition.name: definition for definition in map(definition_of, actor_classes(import_named(module)))}
    definition = definitions.get(actor.info.id.type)
    if definition is None:
        raise UnknownActorType(actor.info.id.type, definitions)
    return node_of(_attributes(definition.decode_state(actor.raw_state)))


def _attributes(instance: object) -> dict[str, object]:
    if isinstance(instance, msgspec.Struct):
        return msgspec.structs.asdict(instance)
    state = object.__getstate__(instance)  # not the class's own, which may leave out what it likes
    parts = state if isinstance(state, tuple) else (state,)
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


@app.command()
def send(
    type_name: TypeName,
    key: Key,
    name: Name,
    store: StoreUrl,
    json: Json = "{}",
    idempotency_key: IdempotencyKey = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a host has handled it, and print what the handler returns.")] = False,
) -> None:
    """Send an event to an actor.

    It is checked against what the actor's type takes before anything is stored. Works without a host, too: the next one handles it.
    """
    from . import _sending  # here, since it loads what a client needs

    perform(partial(_sending.ask if wait else _sending.send_event, store, type_name, key, name, json, idempotency_key))


@app.command()
def signal(type_name: TypeName, key: Key, name: Name, store: StoreUrl, json: Json = "{}", idempotency_key: IdempotencyKey = None) -> None:
    """Send a signal, which is taken before all events that wait.

    It is checked as an event is.
    """
    from . import _sending  # as above

    perform(partial(_sending.send_signal, store, type_name, key, name, json, idempotency_key))


@app.command()
def retry(type_name: TypeName, store: StoreUrl, key: AnyKey = None) -> None:
    """Let a quarantined actor go on, once the cause is mended. With TYPE alone: every one of that type.

    A host does it: where none answers, the request is stored for the next one.
    """
    from . import _asking  # as above

    if key is None:
        perform(partial(_asking.retry_all, store, type_name))
    else:
        perform(partial(_asking.retry, store, type_name, key))


@app.command()
def cancel(type_name: TypeName, key: Key, store: StoreUrl, reason: Reason = "") -> None:
    """Ask an actor to end, and to clean up.

    Its workflow is told the reason wherever it waits. A host does it: where none answers, the request is stored for the next one.
    """
    from . import _asking  # as above

    perform(partial(_asking.cancel, store, type_name, key, reason))


@app.command()
def terminate(type_name: TypeName, key: Key, store: StoreUrl, reason: Reason = "") -> None:
    """End an actor now, quarantined or not, and clean nothing up.

    A host does it: where none answers, the request is stored for the next one.
    """
    from . import _asking  # as above

    perform(partial(_asking.terminate, store, type_name, key, reason))


@final
class LintFormat(StrEnum):
    """How findings are printed."""

    CONCISE = "concise"
    JSON = "json"


@app.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", exists=True, show_default=False, help="Files, or folders of them.")],
    output: Annotated[LintFormat, typer.Option("--format", help="Lines of text, or JSON.")] = LintFormat.CONCISE,
) -> None:
    """Find in the code of actors what a replay would not repeat.

    The files are read, and nothing of them is run. Ends with status 1 if anything is found, and with 2 if a file is no Python.
    """
    from . import _linting  # here, since no other command needs it

    _linting.report_on(paths, as_json=output is LintFormat.JSON)


# Those that have modules of their own.
app.command("explain")(explain_actor)
app.command("check-upgrade")(check_upgrade)
app.command("backup")(back_up)
app.command("restore")(restore_backup)
app.command("export")(export)
app.command("import")(import_)
app.command("export-history")(export_history)
app.command("trace")(trace)
app.command("du")(du)
app.command("compact")(compact)
