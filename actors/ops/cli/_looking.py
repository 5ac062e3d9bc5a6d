"""What `ls`, `show` and `dead-letters` print, for people and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.text import Text
from rich.tree import Tree

from ..._ids import ActorId
from ..._info import ActorInfo, DeadLetterInfo, Waiting
from .._tree import LEFT_OUT, MAX_DEPTH, MAX_NODES, Group, Node, inline, json_of, printable
from .._view import ActorView, LetterView, MessageView
from .._wording import counted
from ._screen import ago, console, due, facts, key_text, status_text, table, when

ONE_LINE: Final = 88  # characters of a value that is shown on one line
CHILDREN_SHOWN: Final = 20  # of one actor, for people
MAX_PARTS: Final = 24  # of one value that are shown, for people


def print_json(value: object) -> None:
    """JSON on standard output, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


# --- actors ---


def print_actors(infos: list[ActorInfo], *, more: bool) -> None:
    """A table of actors."""
    screen = console()
    if not infos:
        screen.print("no such actors", style="dim")
        return
    rows = table("TYPE", "KEY", "VERSION", "STATUS", "WAITING", "TURNS", "UPDATED", "", right=("VERSION", "WAITING", "TURNS"))
    for info in infos:
        waiting = str(info.events + info.interrupts or "")
        version, turns = str(info.version or ""), f"{info.turn:,}"
        status, updated = status_text(info.status), ago(info.updated)
        rows.add_row(info.id.type, key_text(info.id.key), version, status, waiting, turns, updated, _remark(info))
    screen.print(rows)
    if more:
        screen.print(f"{len(infos)} are shown, and there are more: --limit", style="dim")


def _remark(info: ActorInfo) -> Text:
    if info.error is not None:
        return Text(_first_line(info.error.removeprefix(f"{info.id} is quarantined: ")), "red")
    if info.retry_at is not None:
        return Text(f"failed {counted(info.attempts, 'time')}, again: {due(info.retry_at)}", "yellow")
    return Text(", ".join(_waiting(waiting) for waiting in info.waits), "dim")


def _waiting(waiting: Waiting) -> str:
    until = "" if waiting.until is None else f" {due(waiting.until)}"
    name = printable(waiting.name)
    return (name if name.startswith(waiting.kind) else f"{waiting.kind} {name}".rstrip()) + until


def json_of_info(info: ActorInfo) -> dict[str, object]:
    """An info as JSON."""
    told: dict[str, object] = {"type": info.id.type, "key": info.id.key, **info._asdict(), "cursor": info.cursor._asdict()}
    del told["id"]
    told["waits"] = [waiting._asdict() for waiting in info.waits]
    told["timers"] = [timer._asdict() for timer in info.timers]
    told["parent"] = None if info.parent is None else info.parent._asdict()
    told["children"] = [
        {**child.id._asdict(), "restarts": child.restarts, "on_parent_close": child.on_parent_close} for child in info.children
    ]
    return told


# --- one actor ---


def print_actor(view: ActorView, state: Node | None) -> None:
    """All of one actor; `state` is its state's tree."""
    screen = console()
    info = view.info
    screen.print(Text.assemble((f"{info.id.type}/{key_text(info.id.key)}", "bold"), "  ", status_text(info.status)))
    screen.print(facts(_facts(view)))
    for title, messages, waiting in (
        ("events that wait", view.events, info.events),
        ("interrupts that wait", view.interrupts, info.interrupts),
        ("signals that nobody has taken", view.untaken, len(view.untaken)),
    ):
        _print_messages(screen, title, messages, waiting)
    if state is None:
        screen.print("\nno state yet: no message has been handled", style="dim")
        return
    screen.print(Text.assemble("\nstate", (f"  {view.codec}, {counted(view.state_size, 'byte')}", "dim")))
    print_tree(screen, state)
    if view.problem is not None:
        screen.print(f"  {printable(view.problem)}", style="yellow")


def _facts(view: ActorView) -> Iterator[tuple[str, str | Text]]:
    info = view.info
    if info.error is not None:
        yield "because", Text(printable(info.error), "red")
    if info.retry_at is not None:
        yield "back-off", Text(f"its next event failed {counted(info.attempts, 'time')}, again: {due(info.retry_at)}", "yellow")
    if info.version:
        yield "version", str(info.version)
        yield "created", when(info.created)
        yield "updated", when(info.updated)
        yield "turns", f"{info.turn:,}"
        yield "cursor", f"event {info.cursor.event:,}, interrupt {info.cursor.interrupt:,}"
        yield "incarnation", info.incarnation
    yield from _family(info)
    for waiting in info.waits:
        yield "waits for", _waiting(waiting) + (f", since {when(waiting.since)}" if waiting.since else "")
    for timer in info.timers:
        yield "timer", f"{printable(timer.name)}, {due(timer.due)}" + (f", every {timer.every:g} s" if timer.every else "")
    if info.emitted:
        yield "stream", counted(info.emitted, "item")
    yield "mailbox", _mailbox(info)
    if view.dead_letters:
        command = f"perdure dead-letters list {info.id.type} {key_text(info.id.key)}"
        yield "dead letters", Text(f"{view.dead_letters:,}, see: {command}", "yellow")


def _family(info: ActorInfo) -> Iterator[tuple[str, str]]:
    if info.parent is not None:
        yield "child of", _address(info.parent)
    for child in info.children[:CHILDREN_SHOWN]:
        again = f", begun again {counted(child.restarts, 'time')}" if child.restarts else ""
        yield "child", f"{_address(child.id)}{again}; at this actor's end: {child.on_parent_close}"
    if len(info.children) > CHILDREN_SHOWN:
        yield "children", f"{len(info.children) - CHILDREN_SHOWN:,} more, see --json"


def _address(actor: ActorId) -> str:
    return f"{actor.type}/{key_text(actor.key)}"


def _mailbox(info: ActorInfo) -> str:
    if not info.events + info.interrupts:
        return "empty"
    return f"{counted(info.events, 'event')}, {counted(info.interrupts, 'interrupt')}"


def _print_messages(screen: Console, title: str, messages: list[MessageView], waiting: int) -> None:
    if not messages:
        return
    screen.print(f"\n{title}")
    rows = table("  SEQ", "CALL", "SENT", "")
    for message in messages:
        rows.add_row(f"  {message.seq}", _call(message.name, message.arguments), ago(message.sent_at), Text(_origin(message), "dim"))
    screen.print(rows)
    if waiting > len(messages):
        screen.print(f"  and {waiting - len(messages):,} more", style="dim")


def _call(name: str, arguments: Node) -> str:
    text = inline(_as_call(name, arguments), ONE_LINE)
    return printable(text or f"{name}(…)")


def _as_call(name: str, arguments: Node) -> Node:
    """Arguments by position, by name, or the pair of both that stands in a store for a call with keywords."""
    match arguments:
        case Group(kind="list", items=[Group(kind="tuple", items=by_position), Group(kind="dict", pairs=by_name)]):
            return Group(name, arguments=by_position, pairs=by_name)
        case Group(kind="tuple" | "list", items=by_position):
            return Group(name, arguments=by_position)
        case Group(kind="dict", pairs=by_name):
            return Group(name, pairs=by_name)
    return Group(name, arguments=[arguments])


def _origin(message: MessageView) -> str:
    parts = [
        f"by {message.sender}" if message.sender else "",
        "somebody waits for the answer" if message.asked else "",
        f"key {message.key!r}" if message.key else "",
    ]
    return printable(", ".join(part for part in parts if part))


def json_of_actor(view: ActorView, state: Node | None) -> dict[str, object]:
    """One actor as JSON."""
    told = json_of_info(view.info)
    told["waiting"] = {name: _json_of_messages(getattr(view, name)) for name in ("events", "interrupts", "untaken")}
    told["dead_letters"] = view.dead_letters
    told["traceback"] = None if view.quarantine is None else view.quarantine.traceback
    told["codec"] = view.codec
    told["state"] = None if state is None else json_of(state)
    told["problem"] = view.problem
    return told


def _json_of_messages(messages: Iterable[MessageView]) -> list[dict[str, object]]:
    return [{**message._asdict(), "arguments": json_of(message.arguments)} for message in messages]


# --- dead letters ---


def print_letters(letters: list[DeadLetterInfo], *, more: bool) -> None:
    """A table of dead letters."""
    screen = console()
    if not letters:
        screen.print("no dead letters", style="dim")
        return
    rows = table("TYPE", "KEY", "SEQ", "MESSAGE", "ATTEMPTS", "WHEN", "CAUSE", right=("SEQ", "ATTEMPTS"))
    for letter in letters:
        place = (letter.actor.type, key_text(letter.actor.key), str(letter.seq), printable(letter.handler))
        rows.add_row(*place, str(letter.failed + letter.interrupted), ago(letter.at), Text(_first_line(letter.error), "red"))
    screen.print(rows)
    if more:
        screen.print(f"{len(letters)} are shown, and there are more: --limit", style="dim")


def print_letter(letter: LetterView) -> None:
    """One dead letter, with its cause."""
    screen = console()
    info = letter.info
    screen.print(Text.assemble((f"{info.actor.type}/{key_text(info.actor.key)}", "bold"), f"  dead letter {info.seq}"))
    rows: list[tuple[str, str | Text]] = [
        (info.kind, _call(info.handler, letter.arguments)),
        ("put aside", when(info.at)),
        ("attempts", f"{info.failed} failed, {info.interrupted} interrupted by a crash{', partly applied' if info.partly else ''}"),
        ("cause", Text(printable(info.error), "red")),
    ]
    rows += [(name, printable(text)) for name, text in (("sent by", info.sender), ("key", letter.key), ("trace", info.trace_id)) if text]
    screen.print(facts(rows))
    if info.traceback:
        screen.print(Padding(Text(printable(info.traceback.rstrip()), "dim"), (1, 0, 0, 2), expand=False))


def json_of_letter(info: DeadLetterInfo) -> dict[str, object]:
    """A dead letter as JSON, without its message's arguments."""
    told: dict[str, object] = {"type": info.actor.type, "key": info.actor.key, **info._asdict()}
    del told["actor"], told["payload"]
    return told


def json_of_letter_view(letter: LetterView) -> dict[str, object]:
    """A dead letter with its message's arguments as JSON."""
    return {**json_of_letter(letter.info), "arguments": json_of(letter.arguments), "idempotency_key": letter.key}


# --- trees ---


def print_tree(screen: Console, node: Node) -> None:
    """A value, its parts below it; what fits on a line stays on one."""
    root = Tree("", guide_style="dim", hide_root=True)
    budget = [MAX_NODES]
    if isinstance(node, Group) and node.kind == "dict":
        for key, value in node.pairs:
            _grow(root, f"{_attribute(key)}: ", value, budget, 0)
    else:
        _grow(root, "", node, budget, 0)
    screen.print(Padding(root, (0, 0, 0, 2), expand=False))


def _grow(tree: Tree, label: str, node: Node, budget: list[int], depth: int) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        return
    whole = inline(node, ONE_LINE)
    if budget[0] == 0 or depth == MAX_DEPTH:
        whole = str(LEFT_OUT)
    name = Text(printable(label), "cyan")
    if whole is not None or not isinstance(node, Group):
        tree.add(name + Text(printable(whole or str(node))))
        return
    branch = tree.add(name + Text(printable(node.summary)))
    parts = list(islice(node.parts(), MAX_PARTS + 1))
    for part_label, part in parts[:MAX_PARTS]:
        _grow(branch, part_label, part, budget, depth + 1)
    if len(parts) > MAX_PARTS:
        branch.add(Text("… --json shows them all", "dim"))


def _attribute(key: Node) -> str:
    text = (inline(key, ONE_LINE) or "…") if isinstance(key, Group) else str(key)
    return text[1:-1] if text[1:-1].isidentifier() else text


def _first_line(text: str) -> str:
    return printable(text.partition("\n")[0])
