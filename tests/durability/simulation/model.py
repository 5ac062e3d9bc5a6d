"""What a program comes to, by a plain interpreter: no host, no store, no crash, no time but that which is written in the program.

Programs are made so that nothing that a host may choose changes what they come to; so there is one right answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, final

from .cast import Op


class Failed(Exception):
    """The program fails here, with an error of that name."""


@final
class Expected:
    """What is to be known of one player at the end.

    `is_cut` says that its parent's end ends it: then it did no more than this, and perhaps less.
    """

    def __init__(self) -> None:
        self.facts: Counter[str] = Counter()
        self.result = ""
        self.has_failed = False
        self.is_cut = False
        self.answers: list[str] = []  # of those programs that it was sent as events
        self.hears = 0
        self.items: Counter[int] = Counter()
        self.sent: Counter[str] = Counter()  # notes, by account
        self.paid: Counter[str] = Counter()  # cents, by account
        self.own_pokes: Counter[int] = Counter()
        self.exits: dict[str, str] = {}
        self.booked: dict[int, tuple[bool, bool, bool]] = {}  # by saga: the first, the second, and whether they were undone
        self.nested: set[int] = set()  # sagas inside of others
        self.steps: dict[tuple[int, str], int] = {}  # attempts, by operation and step


@final
class Model:
    """All players, by key."""

    def __init__(self) -> None:
        self.players: dict[str, Expected] = {}
        self.lives: dict[str, int] = {}  # of clumsy children, by key

    def play(self, key: str, programs: tuple[Op, ...]) -> Expected:
        """Let a player play its programs, one in each life."""
        player = self.players[key] = Expected()
        try:
            for program in programs:
                player.result = self.one(key, program)
        except Failed as failed:
            player.result, player.has_failed = str(failed), True
        return player

    def perform(self, key: str, programs: tuple[Op, ...]) -> Expected:
        """Let a player play its programs as events, one after the other: each comes to its own end."""
        player = self.players[key] = Expected()
        for program in programs:
            try:
                player.answers.append(self.one(key, program))
            except Failed as failed:
                player.answers.append(f"raises {failed}")
        return player

    def one(self, key: str, op: Op) -> str:
        """The answer of one operation. Raises Failed."""
        player = self.players[key]
        try:
            answer = PLAYED[op.kind](self, key, op)
        except Failed as failed:
            player.facts[f"{op.number} {op.kind} raises {failed}"] += 1
            raise
        player.facts[f"{op.number} {op.kind} {answer}"] += 1
        return answer


def always(answer: str) -> Callable[[Model, str, Op], str]:
    return lambda model, key, op: answer


def a_step(what: str, answer: str, attempts: int = 1) -> Callable[[Model, str, Op], str]:
    """So many attempts, or none given: one more than the operation says; without an answer it fails."""

    def asked(model: Model, key: str, op: Op) -> str:
        model.players[key].steps[op.number, what] = op.n + 1 if attempts == 0 else attempts
        if not answer:
            raise Failed("StepFailed")
        return answer

    return asked


def hear(model: Model, key: str, op: Op) -> str:
    model.players[key].hears += 1
    return "heard"


def item(model: Model, key: str, op: Op) -> str:
    model.players[key].items[op.number] += 1
    return "emitted"


def paid(answer: str) -> Callable[[Model, str, Op], str]:
    def pay(model: Model, key: str, op: Op) -> str:
        model.players[key].sent[op.other] += 1
        model.players[key].paid[op.other] += op.n
        return answer

    return pay


def poke_oneself(model: Model, key: str, op: Op) -> str:
    model.players[key].own_pokes[op.number] += 1
    return "sent"


def fail(model: Model, key: str, op: Op) -> str:
    raise Failed("LookupError")


def in_turn(model: Model, key: str, op: Op) -> str:
    answer = ""
    for part in op.parts:
        answer = model.one(key, part)
    return answer


def catch(model: Model, key: str, op: Op) -> str:
    try:
        return in_turn(model, key, op)
    except Failed as failed:
        return str(failed)


def gather(model: Model, key: str, op: Op) -> str:
    answers: list[str] = []
    failures: list[Failed] = []
    for part in op.parts:
        try:
            answers.append(model.one(key, part))
        except Failed as failed:
            failures.append(failed)
    if failures:
        raise failures[0]
    return " ".join(answers)


def piped(model: Model, key: str, op: Op) -> str:
    in_turn(model, key, op)
    return "piped"


def time_out(model: Model, key: str, op: Op) -> str:
    """Its parts do nothing but wait: those that end in time have ended."""
    return together(model, key, op, op.seconds)[0]


def together(model: Model, key: str, op: Op, limit: float) -> tuple[str, float]:
    """What the parts that begin together come to, and when; facts of what ends later than the limit do not come about."""
    ends = [wait(model, key, part, min(limit, op.seconds)) for part in op.parts]
    latest = max(end for _, end in ends)
    if latest > op.seconds:
        return "timed out", op.seconds
    return " ".join(answer for answer, _ in ends), latest


def wait(model: Model, key: str, op: Op, limit: float) -> tuple[str, float]:
    answer, end = ("slept", op.seconds) if op.kind == "sleep" else together(model, key, op, limit)
    if end <= limit:
        model.players[key].facts[f"{op.number} {op.kind} {answer}"] += 1
    return answer, end


def undo(model: Model, key: str, op: Op) -> str:
    """What was booked inside by sagas that ended well is undone too."""
    booked = model.players[key].booked
    before = set(booked)
    is_whole = is_undone = False
    try:
        in_turn(model, key, op)
        is_whole, is_undone = True, bool(op.n % 2)
    except Failed:
        is_undone = True
        raise
    finally:
        booked[op.number] = True, is_whole, is_undone
        inside = booked.keys() - before - {op.number}
        model.players[key].nested |= inside
        if is_undone:
            booked.update({inner: (*booked[inner][:2], True) for inner in inside})
    return "undone" if is_undone else "booked"


def child(model: Model, key: str, op: Op) -> str:
    played = begun(model, key, op)
    if played.has_failed:
        raise Failed("ChildFailed")
    return played.result


def child_left(model: Model, key: str, op: Op) -> str:
    begun(model, key, op)
    return "left"


def child_cut(model: Model, key: str, op: Op) -> str:
    begun(model, key, op)
    name = f"{key}.{op.number}"
    for other, player in model.players.items():
        if f"{other}.".startswith(f"{name}."):
            player.is_cut = True
    return "left"


def child_cancelled(model: Model, key: str, op: Op) -> str:
    name = f"{key}.{op.number}"
    model.players[name] = Expected()
    model.players[name].is_cut = True
    model.players[key].exits[name] = "cancelled"
    return "enough" if op.n % 2 else "terminated: enough"


def begun(model: Model, key: str, op: Op) -> Expected:
    name = f"{key}.{op.number}"
    played = model.play(name, op.parts)
    model.players[key].exits[name] = "failed" if played.has_failed else "completed"
    return played


def clumsy(model: Model, key: str, op: Op) -> str:
    model.lives[f"{key}.{op.number}"] = op.n + 1
    model.players[key].exits[f"{key}.{op.number}"] = "completed"
    return str(op.n + 1)


PLAYED: Final[dict[str, Callable[[Model, str, Op], str]]] = {
    "sleep": always("slept"),
    "step_called": a_step("call", "called"),
    "step_computed": a_step("compute", "computed"),
    "step_called_again": a_step("call_again", "called again", 0),
    "step_beats": a_step("beat", "beaten", 2),
    "step_fails": a_step("call_in_vain", "", 2),
    "step_hangs": a_step("call_too_long", "", 2),
    "hear": hear,
    "hear_nothing": always("nothing"),
    "until": always("poked"),
    "tick": always("ticked"),
    "ring": always("rung"),
    "item": item,
    "draw": always("drawn"),
    "patch": always("True"),
    "send": paid("sent"),
    "ask": paid("asked"),
    "look": always("looked"),
    "inform": always("suspended"),
    "poke_oneself": poke_oneself,
    "fail": fail,
    "hold": always("held"),
    "group_fails": always("1 failed"),
    "in_turn": in_turn,
    "catch": catch,
    "gather": gather,
    "group": gather,
    "time_out": time_out,
    "wait_for": time_out,
    "task": in_turn,
    "undo": undo,
    "child": child,
    "child_left": child_left,
    "clumsy": clumsy,
    "child_cut": child_cut,
    "child_cancelled": child_cancelled,
    "ask_in_vain": always("timed out"),
    "move_on": time_out,
    "group_of_anyio": gather,
    "pipe": piped,
}
