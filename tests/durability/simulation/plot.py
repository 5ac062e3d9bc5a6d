"""What happens in a simulation, drawn from its seed: programs of players, verbs of clients, troubles of the host and its disk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Final, NamedTuple

from perdure.actors.testing import Faults

from .cast import Op
from .model import Model

ACCOUNTS: Final = "abcd"
LEAVES: Final = [
    *("sleep", "sleep", "step_called", "step_called", "step_computed", "step_called_again", "step_beats", "step_fails", "step_hangs"),
    *("hear", "hear", "hear_nothing", "until", "tick", "ring", "item", "item", "draw", "patch", "send", "send", "ask", "ask", "look"),
    *("inform", "poke_oneself", "fail", "hold", "group_fails", "clumsy", "child_cancelled", "ask_in_vain"),
]
BRANCHES: Final = [
    *("in_turn", "in_turn", "catch", "gather", "group", "time_out", "wait_for", "task", "undo", "undo", "child", "child_left"),
    *("move_on", "group_of_anyio", "pipe", "child_cut"),
]
NOTHING: Final[frozenset[str]] = frozenset()
FAILING: Final = frozenset({"fail", "step_fails", "step_hangs"})
FROM_OUTSIDE: Final = frozenset({"hear", "until"})  # they wait for what a client sends, and clients know no children
OF_TIMERS: Final = frozenset({"tick", "ring"})  # they wait for what comes after the event that is being handled
ONLY_WAIT: Final = {"time_out", "wait_for", "move_on"}  # of these, what ends first is known
CANCELS: Final = {"group", "group_of_anyio", "pipe"}  # if one part fails, how far the others are is not known
TOLERATES: Final = {"catch", "child_left", "child_cut"}
OF_CHILDREN: Final = {"child", "child_left", "child_cut"}
POKES: Final = 3  # that each player is sent
CUT: Final = 0.2  # how likely a player is cancelled or terminated on its way


class Verb(NamedTuple):
    """What a client does after some seconds: to which actor; `number` is its own among all that clients do."""

    after: float
    kind: str
    key: str
    number: int
    n: int = 0
    other: str = ""


class Trouble(NamedTuple):
    """How the host fares until it is killed.

    For how many seconds it lives, whether it has the next version of the code, how many actors and steps it keeps, what its disk is like.
    """

    seconds: float
    is_next: bool
    max_active: int
    max_steps: int
    faults: Faults


class Plot(NamedTuple):
    """All that is drawn from a seed."""

    players: dict[str, tuple[Op, ...]]  # what each plays in its lives
    workers: dict[str, tuple[Op, ...]]  # what each is sent as events
    clients: list[list[Verb]]
    troubles: list[Trouble]
    ends_as_next: bool  # whether the last hosts, which have no troubles, have the next version of the code


def plot_of(seed: int) -> Plot:
    """The plot of a seed."""
    random = Random(f"plot {seed}")
    numbers = count(1)
    players = {f"p{place}": _programs(random, numbers) for place in range(random.randint(1, 3))}
    workers = {f"w{place}": _events(random, numbers) for place in range(random.randint(0, 2))}
    count_of_troubles = random.choice([0, 1, 2, 3, 5, 12])
    deploy = random.choice([count_of_troubles + 1, random.randint(0, count_of_troubles)])
    troubles = [_trouble(random, is_next=place >= deploy) for place in range(count_of_troubles)]
    return Plot(players, workers, _clients(random, players, workers), troubles, deploy <= count_of_troubles)


def _programs(random: Random, numbers: Iterator[int]) -> tuple[Op, ...]:
    return tuple(_branch(random, numbers, 3, NOTHING) for _ in range(random.choice([1, 1, 2])))


def _events(random: Random, numbers: Iterator[int]) -> tuple[Op, ...]:
    """What begins with a sleep is not undone when it fails."""

    def one() -> Op:
        number, sleep = next(numbers), Op("sleep", next(numbers), random.randint(0, 4))
        return Op("in_turn", number, 0, "", (sleep, _op(random, numbers, 2, FROM_OUTSIDE | OF_TIMERS)))

    return tuple(one() for _ in range(random.randint(1, 4)))


def _op(random: Random, numbers: Iterator[int], depth: int, without: frozenset[str]) -> Op:
    """One in which nothing is of these kinds."""
    if depth and random.random() < 0.5:
        return _branch(random, numbers, depth, without)
    return _leaf(random, numbers, random.choice([kind for kind in LEAVES if kind not in without]))


def _leaf(random: Random, numbers: Iterator[int], kind: str) -> Op:
    most = {"until": POKES, "step_called_again": 2, "clumsy": 2}.get(kind, 4)
    return Op(kind, next(numbers), random.randint(kind in {"tick", "send", "ask"}, most), random.choice(ACCOUNTS))


def _branch(random: Random, numbers: Iterator[int], depth: int, without: frozenset[str]) -> Op:
    kind = random.choice(BRANCHES)
    number, n = next(numbers), random.randint(0, 4)
    if kind in ONLY_WAIT:
        return Op(kind, number, n, "", _waits(random, numbers, depth))
    if kind in CANCELS:
        without |= FAILING
    elif kind in TOLERATES:
        without -= FAILING
    if kind in OF_CHILDREN:
        without = (without | FROM_OUTSIDE) - OF_TIMERS
    parts = tuple(_op(random, numbers, depth - 1, without) for _ in range(random.randint(1, 3)))
    return Op(kind, number, n, "", parts)


def _waits(random: Random, numbers: Iterator[int], depth: int) -> tuple[Op, ...]:
    def one() -> Op:
        if depth > 1 and random.random() < 0.3:
            return Op("time_out", next(numbers), random.randint(0, 4), "", _waits(random, numbers, depth - 1))
        return Op("sleep", next(numbers), random.randint(0, 4))

    return tuple(one() for _ in range(random.randint(1, 3)))


# --- clients ---

TO_ACCOUNTS: Final = [
    *("add_asked", "add_asked", "add_sent", "add_sent", "transfer", "transfer", "transfer_asking", "transfer_slowly"),
    *("fail_asked", "fail_sent", "hurry", "hurry", "look", "inform", "again", "again", "loose"),
]

TO_GUESTS: Final = {
    "lodger": ["start", "start", "start_new", "restart", "result", "note", "note", "noted", "delete"],
    "delicate": ["note", "note", "poison", "mend", "noted"],
    "fickle": ["start", "stray", "stray", "mend"],
}

Programs = dict[str, tuple[Op, ...]]


def _clients(random: Random, players: Programs, workers: Programs) -> list[list[Verb]]:
    numbers = count(1)
    clients = [[_to_account(random, numbers) for _ in range(random.randint(5, 40))] for _ in range(random.choice([1, 2, 3, 4]))]
    clients += [_to_player(random, numbers, key, Model().play(key, programs).hears) for key, programs in players.items()]
    for key, events in workers.items():
        clients.append([Verb(_pause(random), "perform", key, next(numbers), place) for place in range(len(events))])
    for key, kinds in TO_GUESTS.items():
        chosen = random.choices(kinds, k=random.choice([0, 0, random.randint(2, 10)]))
        clients.append([Verb(_pause(random), kind, key, next(numbers), random.randint(0, 3)) for kind in chosen])
    return [verbs for verbs in clients if verbs]


def _to_player(random: Random, numbers: Iterator[int], key: str, hears: int) -> list[Verb]:
    kinds = ["start"] + ["poke"] * POKES + ["word"] * (hears + random.randint(0, 2))
    random.shuffle(kinds)
    if random.random() < CUT:
        kinds.insert(random.randint(kinds.index("start") + 1, len(kinds)), random.choice(["cancel", "terminate"]))
    return [Verb(_pause(random), kind, key, next(numbers)) for kind in kinds]


def _to_account(random: Random, numbers: Iterator[int]) -> Verb:
    key = random.choice(ACCOUNTS)
    kind = random.choice(TO_ACCOUNTS)
    n = random.choice([0, 1, 2, 3, 3]) if kind.startswith("fail") else random.randint(1, 100)
    others = [other for other in ACCOUNTS if other > key] if kind == "transfer_asking" else ACCOUNTS.replace(key, "")
    if not others:  # two that ask each other would wait for ever
        kind, others = "transfer", list(ACCOUNTS.replace(key, ""))
    return Verb(_pause(random), kind, key, next(numbers), n, random.choice(list(others)))


def _pause(random: Random) -> float:
    return random.choice([0.0, 0.0, random.random() / 100, random.random(), random.random() * 8])


# --- troubles ---


def _trouble(random: Random, *, is_next: bool) -> Trouble:
    faults = Faults(
        uncertain=random.choice([0.0, 0.0, 0.02, 0.1, 0.3]),
        fatal=random.choice([0.0, 0.3]),
        full=random.choice([0.0, 0.0, 0.02]),
        slow=random.choice([0.0, 0.02, 0.2]),
        latency=random.choice([0.0005, 0.002, 0.02]),
    )
    return Trouble(
        seconds=random.choice([random.random() / 50, random.random(), random.random() * 10, random.random() * 40]),
        is_next=is_next,
        max_active=random.choice([0, 1, 3, 10_000]),
        max_steps=random.choice([1, 3, 1000]),
        faults=faults,
    )
